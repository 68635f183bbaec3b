"""Downloads a file from the first mirror that has it, verifies it, and puts it in place completely or not at all.

If a connection breaks or the download is interrupted, the part of a large file that has arrived is kept under another name in the same
folder, and the next attempt requests only the rest. In either case the whole file is verified at the end.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from gpucnn.data.files import CHUNK, content_sha256, file_md5
from gpucnn.data.idx import PathLike
from gpucnn.errors import ArgumentError, DataError
from gpucnn.files import continuing
from gpucnn.surroundings import user_path
from gpucnn.text import plain, reason_of, shortened

if TYPE_CHECKING:
    from http.client import HTTPResponse

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called as (name of the file, bytes done, bytes in all or None where the server does not say)."""

WEB = ("http://", "https://")
TIMEOUT = 10.0  # seconds
SLOWEST = 1_000  # bytes per second; under it a mirror counts as hanging
LIMIT = 1 << 30  # bytes
WORTH_KEEPING = 1 << 20  # bytes of a partial file; a smaller part is soon fetched again


class UnavailableError(DataError):
    """Data that are not on this machine and could not be downloaded."""


class _MirrorError(Exception):
    """The failure of a mirror; the text is a short reason."""


class _WrongFileError(_MirrorError):
    """A complete download of a wrong or damaged file, of which nothing can be kept."""


class _RangeError(_MirrorError):
    """A range was requested that the file does not have."""


def fetch(
    urls: Sequence[str],
    destination: PathLike,
    sha256: str | None = None,
    *,
    md5: str | None = None,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
    limit: int = LIMIT,
    advice: str = "check the network, or put the file there yourself",
) -> str:
    """Download a file to `destination` from the first of `urls` that serves it, and return that URL.

    sha256: of the uncompressed content, as hex digits, whether or not the file is gzip-compressed.
    md5: of the file as it is served. At least one of the two must be given; both are checked if given.
    progress: called as by `load_dataset`; it starts again with every mirror that is tried.
    timeout: seconds within which a mirror must answer, and for which it may deliver next to nothing.
    limit: bytes; a file that is longer, compressed or not, is refused.
    advice: what else to do, the end of the error's sentence.

    The folder is created if necessary, and removed again if nothing arrived. A large file that has arrived in part, now or earlier, is
    continued. UnavailableError, with each mirror's reason, if none of them serves the file; also if the folder cannot be written.
    ArgumentError without a check sum. The proxies of the environment (http_proxy, https_proxy, no_proxy) are honoured.
    """
    if sha256 is None and md5 is None:
        raise ArgumentError("a download needs a checksum: give sha256 or md5")
    destination = user_path(destination)
    with _folder(destination.parent):
        return _from_any(urls, destination, sha256=sha256, md5=md5, progress=progress, timeout=timeout, limit=limit, advice=advice)


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Creates a folder. If the block fails and the folder is empty, it is removed again, with the parents that were created for it: a
    mistyped path must not exist the next time."""
    try:
        new = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UnavailableError(f"the folder {folder} cannot be created ({reason_of(error)}): choose another one") from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # something is in it
            for each in new:
                each.rmdir()
        raise


def _from_any(
    urls: Sequence[str],
    destination: Path,
    *,
    sha256: str | None,
    md5: str | None,
    progress: Progress | None,
    timeout: float,
    limit: int,
    advice: str,
) -> str:
    """`fetch` into an existing folder."""
    failures: dict[str, list[str]] = {}  # the servers by what went wrong, which is often the same for all
    for url in urls:
        for again in (False, True):
            try:
                with _begun(destination) as file:
                    had = file.seek(0, os.SEEK_END)
                    _download(url, file, destination.name, progress, timeout, limit)
                    file.flush()
                    _verify(Path(file.name), sha256, md5, limit)
            except _WrongFileError as error:
                # Perhaps not this mirror's fault: the part that was continued may have come from another one.
                if had and not again:
                    continue
                failures.setdefault(str(error), []).append(_host(url))
            except _MirrorError as error:
                failures.setdefault(str(error), []).append(_host(url))
            else:
                return url
            break
    reasons = "; ".join(f"{', '.join(dict.fromkeys(hosts))}: {why}" for why, hosts in failures.items()) or "no mirror is known"
    raise UnavailableError(f"{destination.name} could not be downloaded ({reasons}): {advice}")


@contextmanager
def _begun(destination: Path) -> Iterator[BinaryIO]:
    """A file with what has arrived of `destination` so far. It takes the place of `destination` if the block succeeds.

    If the block fails, the file stays, provided that it is large enough, undamaged, and there is room for it.
    """

    def keep(error: BaseException, size: int) -> bool:
        return size >= WORTH_KEEPING and not isinstance(error, _WrongFileError | OSError)

    try:
        with continuing(destination, keep) as file:
            yield file
    except OSError as problem:
        raise UnavailableError(
            f"{destination} cannot be written ({reason_of(problem)}): free some space there, or choose another folder"
        ) from problem


def _download(url: str, file: BinaryIO, name: str, progress: Progress | None, timeout: float, limit: int) -> None:
    """Appends the rest of the file at `url` to `file` if the mirror can send only that; otherwise replaces what is there."""
    from http.client import HTTPException

    had = file.seek(0, os.SEEK_END)
    response, had = _answer(url, had, timeout)
    with response:
        file.truncate(file.seek(had))
        done, total = had, None if response.length is None else had + response.length
        since, then = done, time.monotonic()
        while True:
            try:
                chunk = response.read1(CHUNK)
            except TimeoutError:
                raise _MirrorError(f"no data for {timeout:g} s after {done:,} bytes") from None
            except (OSError, HTTPException, ValueError) as error:  # ValueError: a chunk's length that is not a number
                raise _MirrorError(f"the connection broke after {done:,} bytes, {reason_of(error)}") from error
            if not chunk:
                break
            done += len(chunk)
            if done > limit:
                raise _WrongFileError(f"the server sent more than {limit:,} bytes")
            file.write(chunk)
            if progress is not None:
                progress(name, done, total)
            now = time.monotonic()
            if now - then > timeout:
                if done - since < SLOWEST * (now - then):
                    raise _MirrorError(f"too slow: {done - since:,} bytes in {now - then:.0f} s")
                since, then = done, now
    if total is not None and done != total:
        raise _MirrorError(f"the connection broke after {done:,} of {total:,} bytes")


def _answer(url: str, had: int, timeout: float) -> tuple[HTTPResponse, int]:
    """The mirror's response, and the position of the file at which it starts."""
    if had:
        try:
            response = _open(url, timeout, had)
        except _RangeError:  # the part is at least as long as the file: it belongs to another one
            return _open(url, timeout), 0
        given = response.headers.get("Content-Range", "")
        if response.status == 206 and given.replace(" ", "").lower().startswith(f"bytes{had}-"):
            return response, had
        if response.status == 206:  # of a position that was not requested
            response.close()
            return _open(url, timeout), 0
        return response, 0
    return _open(url, timeout), 0


def _open(url: str, timeout: float, start: int = 0) -> HTTPResponse:
    """The response to a request for `url` from byte `start` on, or a _MirrorError after at most `timeout` seconds."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class ToTheWeb(HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
            if not newurl.lower().startswith(WEB):  # urllib would go on to ftp
                raise URLError(f"it leads to {shortened(plain(newurl), 60)}, which is not an http address")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    if not url.lower().startswith(WEB):
        raise _MirrorError("not an http address")
    headers = {"User-Agent": "gpucnn", "Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    answers: queue.Queue[Any] = queue.Queue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            # Not urlopen, which keeps the proxies of its first call for the whole process.
            answer = build_opener(ToTheWeb).open(Request(url, headers=headers), timeout=timeout)
        except Exception as error:
            answers.put(error)
            return
        answers.put(answer)
        if given_up.is_set():
            with contextlib.suppress(OSError):
                answer.close()

    # A socket's timeout applies to each address and each packet, and not at all to name resolution. A thread that may be abandoned limits
    # all of them together.
    threading.Thread(target=ask, name=f"gpucnn-download-{_host(url)}", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        given_up.set()
        raise _MirrorError(f"no answer within {timeout:g} s") from None
    if isinstance(answer, HTTPError):
        answer.close()
        refused = _RangeError if answer.code == 416 and start else _MirrorError
        words = f"HTTP {answer.code} {answer.reason}".split("\n", 1)[0]  # the server's, or urllib's of a circle
        raise refused(shortened(plain(words.rstrip()), 100))
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


def _verify(path: Path, sha256: str | None, md5: str | None, limit: int) -> None:
    with open(path, "rb") as file:
        head = file.read(16)
    if head.lstrip()[:1] == b"<":
        raise _WrongFileError("the server sent a web page instead of the file")
    if md5 is not None and (found := file_md5(path)) != md5.lower():
        raise _WrongFileError(f"the server sent another file, its MD5 is {found[:12]}… and not {md5[:12].lower()}…")
    if sha256 is None:
        return
    try:
        found = content_sha256(path, limit)
    except DataError:
        raise _WrongFileError("the file is damaged") from None
    if found != sha256.lower():
        raise _WrongFileError(f"the server sent another file, its SHA-256 is {found[:12]}… and not {sha256[:12].lower()}…")


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(url).netloc or url
    except ValueError:
        return url
