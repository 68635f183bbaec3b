"""Getting a file from the first mirror that has it, checked, and written whole or not at all."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from gpucnn.data.files import CHUNK, atomic_file, content_sha256
from gpucnn.data.idx import PathLike
from gpucnn.errors import DataError
from gpucnn.surroundings import user_path
from gpucnn.text import plain, reason_of, shortened

if TYPE_CHECKING:
    from http.client import HTTPResponse

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called as (name of the file, bytes done, bytes in all or None where the server does not say)."""

TIMEOUT = 10.0  # seconds
SLOWEST = 1_000  # bytes per second; under it a mirror counts as hanging
LIMIT = 1 << 30  # bytes


class UnavailableError(DataError):
    """Data that is not on this machine and could not be fetched either."""


class _MirrorError(Exception):
    """Why one mirror did not do. Its text is a short reason."""


def fetch(
    urls: Sequence[str],
    destination: PathLike,
    sha256: str,
    *,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
    limit: int = LIMIT,
    advice: str = "check the network, or put the file there by hand",
) -> str:
    """Download a file to `destination` from the first of `urls` that serves it, and return that URL.

    sha256: of the uncompressed content, as hex digits, whether or not the file is gzip-compressed.
    progress: see `Progress`; it starts again from 0 with every mirror that is tried.
    timeout: seconds that a mirror has to answer, and the longest that it may deliver nothing or next to nothing.
    limit: bytes; a file that is longer, compressed or not, is refused.
    advice: what to do if nothing helps, the end of the error's sentence.

    The folder is made if need be. UnavailableError, with each mirror's reason, if none of them serves the file; also if the
    folder cannot be written. The proxies of the environment (http_proxy, https_proxy, no_proxy) are honoured.
    """
    destination = user_path(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UnavailableError(f"the folder {destination.parent} cannot be made ({reason_of(error)}): choose another one") from error
    failures = []
    for url in urls:
        try:
            # A file of its own for every mirror, so that nothing of a broken answer is left for the next.
            with atomic_file(destination, UnavailableError) as file:
                _download(url, file, destination.name, progress, timeout, limit)
                file.flush()
                _verify(Path(file.name), sha256, limit)
        except _MirrorError as error:
            failures.append(f"{_host(url)}: {error}")
        else:
            return url
    reasons = "; ".join(failures) or "no mirror is known"
    raise UnavailableError(f"{destination.name} could not be downloaded ({reasons}): {advice}")


def _download(url: str, file: BinaryIO, name: str, progress: Progress | None, timeout: float, limit: int) -> None:
    from http.client import HTTPException

    with _open(url, timeout) as response:
        done, total = 0, response.length
        since, then = 0, time.monotonic()
        while True:
            try:
                chunk = response.read1(CHUNK)
            except TimeoutError:
                raise _MirrorError(f"nothing came for {timeout:g} s after {done:,} bytes") from None
            except (OSError, HTTPException, ValueError) as error:  # ValueError: a chunk's length that is no number
                raise _MirrorError(f"the connection broke after {done:,} bytes, {reason_of(error)}") from error
            if not chunk:
                break
            done += len(chunk)
            if done > limit:
                raise _MirrorError(f"it sent more than {limit:,} bytes")
            file.write(chunk)
            if progress is not None:
                progress(name, done, total)
            now = time.monotonic()
            if now - then > timeout:
                if done - since < SLOWEST * (now - then):
                    raise _MirrorError(f"too slow, {done - since:,} bytes in {now - then:.0f} s")
                since, then = done, now
    if total is not None and done != total:
        raise _MirrorError(f"the connection broke after {done:,} of {total:,} bytes")


def _open(url: str, timeout: float) -> HTTPResponse:
    """The answer to a request for `url`, or a _MirrorError after `timeout` seconds at the latest."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    if not url.lower().startswith(("http://", "https://")):
        raise _MirrorError("not an http address")
    answers: queue.Queue[Any] = queue.Queue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            answer = urlopen(Request(url, headers={"User-Agent": "gpucnn"}), timeout=timeout)
        except Exception as error:
            answers.put(error)
            return
        answers.put(answer)
        if given_up.is_set():
            with contextlib.suppress(OSError):
                answer.close()

    # A socket's timeout holds for each address and each packet, and not at all for the look-up of the name. A thread that is
    # left behind bounds all of them together.
    threading.Thread(target=ask, name=f"gpucnn-download-{_host(url)}", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        given_up.set()
        raise _MirrorError(f"no answer within {timeout:g} s") from None
    if isinstance(answer, HTTPError):
        answer.close()
        raise _MirrorError(shortened(plain(f"HTTP {answer.code} {answer.reason}".rstrip()), 100))  # the server's words
    if isinstance(answer, TimeoutError) or (isinstance(answer, URLError) and isinstance(answer.reason, TimeoutError)):
        raise _MirrorError(f"no answer within {timeout:g} s")
    if isinstance(answer, URLError):
        raise _MirrorError(reason_of(answer.reason) if isinstance(answer.reason, BaseException) else str(answer.reason))
    if isinstance(answer, OSError | HTTPException | ValueError):
        raise _MirrorError(reason_of(answer))
    if isinstance(answer, BaseException):
        raise answer
    response: HTTPResponse = answer
    return response


def _verify(path: Path, sha256: str, limit: int) -> None:
    with open(path, "rb") as file:
        head = file.read(16)
    if head.lstrip()[:1] == b"<":
        raise _MirrorError("a web page came instead of the file")
    try:
        found = content_sha256(path, limit)
    except DataError:
        raise _MirrorError("the file came damaged") from None
    if found != sha256.lower():
        raise _MirrorError(f"another file came, its SHA-256 is {found[:12]}… and not {sha256[:12].lower()}…")


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(url).netloc or url
    except ValueError:
        return url
