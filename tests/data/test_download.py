"""Downloads: against a server on this machine that misbehaves in every way that was thought of."""

import gzip
import hashlib
import http.server
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from urllib.parse import urlsplit

import pytest

from gpucnn.data import UnavailableError, fetch
from gpucnn.errors import ArgumentError, DataError

CONTENT = bytes(range(256)) * 800
PACKED = gzip.compress(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LARGE = random.Random(3).randbytes(3 << 20)  # of which a part is worth keeping
LARGE_MD5 = hashlib.md5(LARGE).hexdigest()
release = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, body, length=None, code=200):
        self.send_response(code)
        if length != "none":
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def large(self, kind):
        """LARGE, from where it was asked for; cut, or told of a wrong place, or of another file."""
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and kind != "large-whole" else 0
        content = LARGE if kind != "large-other" else LARGE[::-1]
        if kind == "large-416" and start:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            told = start + 1 if kind == "large-elsewhere" else start
            self.send_header("Content-Range", f"bytes {told}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + (2 << 20)] if kind == "large-cut" else content[start:])

    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.ranges.append(self.headers.get("Range"))
        kind = urlsplit(self.path).path.strip("/")  # a proxy is requested whole addresses
        try:
            if kind == "good":
                self.answer(PACKED)
            elif kind == "plain":
                self.answer(CONTENT)
            elif kind == "unsized":
                self.answer(PACKED, "none")
            elif kind == "moved":
                self.send_response(302)
                self.send_header("Location", "/good")
                self.end_headers()
            elif kind.startswith("to-"):
                self.send_response(307)
                self.send_header("Location", {"to-ftp": "ftp://127.0.0.1/f", "to-file": "file:///etc/passwd"}.get(kind, f"/{kind[3:]}"))
                self.end_headers()
            elif kind == "round":
                self.send_response(301)
                self.send_header("Location", f"/round?{len(self.server.asked)}")
                self.end_headers()
            elif kind.startswith("chunked"):
                self.protocol_version = "HTTP/1.1"
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Connection", "close")
                self.end_headers()
                for start in range(0, len(PACKED), 500):
                    piece = PACKED[start : start + 500]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write({"chunked": b"0\r\n\r\n", "chunked-cut": b"1f", "chunked-odd": b"many\r\n"}[kind])
                self.close_connection = True
            elif kind == "cut":
                self.answer(PACKED[:-50], len(PACKED))
            elif kind == "cut-unsized":
                self.answer(PACKED[:-50], "none")
            elif kind == "short-length":
                self.answer(PACKED, len(PACKED) - 50)
            elif kind == "other":
                self.answer(gzip.compress(b"another file"))
            elif kind == "page":
                self.answer(b"\n<html>log in first</html>")
            elif kind == "bomb":
                self.answer(gzip.compress(bytes(1 << 22)))
            elif kind == "silent":
                release.wait(5)
            elif kind == "stalls":
                self.send_response(200)
                self.send_header("Content-Length", str(len(PACKED)))
                self.end_headers()
                self.wfile.write(PACKED[:100])
                self.wfile.flush()
                release.wait(5)
            elif kind == "trickles":
                self.send_response(200)
                self.end_headers()
                for i in range(100):
                    self.wfile.write(PACKED[i : i + 1])
                    self.wfile.flush()
                    if release.wait(0.05):
                        break
            elif kind.startswith("large"):
                self.large(kind)
            elif kind == "garbled":
                self.wfile.write(b"what?\r\n\r\n")
            else:
                self.send_error(404)
        except OSError:
            pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    release.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.ranges = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    release.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("good", PACKED), ("plain", CONTENT), ("unsized", PACKED), ("moved", PACKED), ("to-moved", PACKED), ("chunked", PACKED)],
)
def test_a_file_comes_whole(server, tmp_path, kind, expected):
    calls = []
    target = tmp_path / "new" / "folder" / "file.gz"
    url = server.url + kind
    assert fetch([url], target, SHA256, progress=lambda *call: calls.append(call)) == url
    assert target.read_bytes() == expected and os.listdir(target.parent) == ["file.gz"]
    assert calls[-1] == ("file.gz", len(expected), None if kind in ("unsized", "chunked") else len(expected))
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "the connection broke after"),
        ("cut-unsized", "file is damaged"),
        ("short-length", "file is damaged"),
        ("other", "the server sent another file"),
        ("page", "web page"),
        ("missing", "HTTP 404"),
        ("silent", r"no answer within 0\.8 s"),
        ("stalls", "no data for 0.8 s after 100 bytes"),
        ("trickles", "too slow"),
        ("garbled", "127.0.0.1"),
        ("chunked-cut", "the connection broke after"),
        ("chunked-odd", "the connection broke after"),
        ("round", "HTTP 301 .*infinite loop"),
        ("to-ftp", "it leads to ftp://127.0.0.1/f, which is not an http address"),
        ("to-file", "not allowed"),
        ("to-missing", "HTTP 404"),
    ],
)
def test_a_bad_mirror_gives_a_reason_and_the_next_is_asked(server, tmp_path, kind, reason):
    target = tmp_path / "file.gz"
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=reason) as caught:
        fetch([server.url + kind], target, SHA256, timeout=0.8, advice="do that instead")
    assert time.monotonic() - start < 10  # it gives up; a busy machine may take long
    text = str(caught.value)
    assert "file.gz" in text and "127.0.0.1" in text and text.endswith("do that instead") and "\n" not in text
    assert os.listdir(tmp_path) == []
    assert fetch([server.url + kind, server.url + "good"], target, SHA256, timeout=0.8) == server.url + "good"
    assert target.read_bytes() == PACKED and os.listdir(tmp_path) == ["file.gz"]


def test_size_limits(server, tmp_path):
    with pytest.raises(UnavailableError, match="more than 1,000 bytes"):
        fetch([server.url + "plain"], tmp_path / "f", SHA256, limit=1000)
    with pytest.raises(UnavailableError, match="damaged"):
        fetch([server.url + "bomb"], tmp_path / "f", SHA256, limit=1 << 20)


def test_every_mirror_is_named(server, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
    with pytest.raises(DataError, match=r"refused.*not an http address.*HTTP 404"):
        fetch([closed, "file:///etc/passwd", server.url + "missing"], tmp_path / "f", SHA256)
    # A reason that all share is given once.
    with pytest.raises(DataError, match=r"\(127\.0\.0\.1:\d+, 127\.0\.0\.2:\d+: Connection refused\)"):
        fetch([closed, closed, closed.replace("127.0.0.1", "127.0.0.2")], tmp_path / "f", SHA256)
    with pytest.raises(DataError, match="no mirror"):
        fetch([], tmp_path / "f", SHA256)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_download_leaves_nothing(server, tmp_path, interrupt):
    def progress(name, done, total):
        raise interrupt

    target = tmp_path / "file.gz"
    target.write_bytes(b"what was there")
    with pytest.raises(interrupt):
        fetch([server.url + "good"], target, SHA256, progress=progress)
    assert os.listdir(tmp_path) == ["file.gz"] and target.read_bytes() == b"what was there"


def test_a_full_disk(server, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError, match=r"cannot be written \(No space left on device\)"):
        fetch([server.url + "good", server.url + "good"], tmp_path / "f", SHA256)
    assert os.listdir(tmp_path) == [] and server.asked == ["/good"]  # another mirror would not help


def test_a_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError, match="cannot be created"):
        fetch([server.url + "good"], tmp_path / "file" / "f", SHA256)
    assert server.asked == []


def test_folders_that_were_made_for_nothing_go_again(server, tmp_path):
    """Only those: a part that is worth keeping stays, and so does what was there before."""
    (tmp_path / "there").mkdir()
    with pytest.raises(UnavailableError):
        fetch([f"{server.url}/404"], tmp_path / "there" / "mistyped" / "mnist" / "file", SHA256)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    with pytest.raises(UnavailableError):
        fetch([f"{server.url}/large-cut"], tmp_path / "kept" / "file", md5=LARGE_MD5)
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_write_permission(server, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UnavailableError, match="Permission denied"):
            fetch([server.url + "good"], tmp_path / "f", SHA256)
    finally:
        tmp_path.chmod(0o700)


def test_a_server_s_words_reach_nobody_s_terminal(tmp_path, monkeypatch):
    """Nor do they make a page of a sentence."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Rude(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.wfile.write(b"HTTP/1.1 404 \x1b[31mred\x07" + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Rude) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(UnavailableError) as caught:
            fetch([f"http://127.0.0.1:{server.server_address[1]}/a"], tmp_path / "a", SHA256)
    assert "HTTP 404 \\x1b[31mred" in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) <= 500


def test_the_proxies_of_the_environment_are_those_of_this_moment(server, tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody is there
    with pytest.raises(UnavailableError, match="refused"):
        fetch([server.url + "good"], tmp_path / "a", SHA256)
    monkeypatch.delenv("http_proxy")
    assert fetch([server.url + "good"], tmp_path / "a", SHA256)


def test_a_proxy_is_asked_in_the_mirrors_place_unless_no_proxy_names_it(server, tmp_path, monkeypatch):
    """The mirror's name is for the proxy to look up: nobody here knows it. One that does not pass https on is named."""
    monkeypatch.delenv("no_proxy")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, server.url)
    assert fetch(["http://mirror.invalid/good"], tmp_path / "f", SHA256) == "http://mirror.invalid/good"
    assert server.asked == ["http://mirror.invalid/good"] and (tmp_path / "f").read_bytes() == PACKED
    with pytest.raises(UnavailableError, match=r"mirror\.invalid: Tunnel connection failed: 501"):
        fetch(["https://mirror.invalid/good"], tmp_path / "g", SHA256)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch([server.url + "good"], tmp_path / "g", SHA256)
    assert server.asked[1:] == ["/good"]


def test_a_mirror_that_speaks_no_tls_and_one_that_nobody_vouches_for(server, tmp_path):
    """The next is asked, and nothing is taken from either."""
    secure = server.url.replace("http:", "https:")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:\d+: .*(SSL|TLS)"):
        fetch([secure + "good"], tmp_path / "f", SHA256, timeout=5)
    assert fetch([secure + "good", server.url + "good"], tmp_path / "f", SHA256, timeout=5) == server.url + "good"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    command = f"{openssl} req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -days 1 -subj /CN=127.0.0.1"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(UnavailableError, match=r"self.signed certificate"):
        fetch([secure + "good"], tmp_path / "g", SHA256, timeout=5)
    assert server.asked == ["/good"] and not (tmp_path / "g").exists()


# A large file that came in part is continued.


def unfinished(folder):
    return [name for name in os.listdir(folder) if name.endswith(".unfinished")]


@pytest.mark.parametrize("mirror", ["large", "to-large", "large-whole", "large-416", "large-elsewhere"])
def test_what_came_of_a_large_file_is_continued(server, tmp_path, mirror):
    """By another call and by another mirror, be it that it gives the whole file, none of the rest, or another place than was asked for."""
    target, calls = tmp_path / "set.zip", []
    with pytest.raises(UnavailableError, match="the connection broke after 2,097,152 of 3,145,728 bytes"):
        fetch([server.url + "large-cut"], target, md5=LARGE_MD5)
    (part,) = unfinished(tmp_path)
    assert (tmp_path / part).read_bytes() == LARGE[: 2 << 20] and not target.exists()
    fetch([server.url + mirror], target, md5=LARGE_MD5, progress=lambda *call: calls.append(call))
    assert target.read_bytes() == LARGE and os.listdir(tmp_path) == ["set.zip"]
    assert server.ranges[2 if mirror == "to-large" else 1] == f"bytes={2 << 20}-" and calls[-1] == ("set.zip", len(LARGE), len(LARGE))
    assert (calls[0][1] > 2 << 20) == (mirror in ("large", "to-large"))  # the others began anew


def test_the_next_mirror_goes_on_where_the_first_broke(server, tmp_path):
    assert fetch([server.url + "large-cut", server.url + "large"], tmp_path / "f", md5=LARGE_MD5) == server.url + "large"
    assert (tmp_path / "f").read_bytes() == LARGE and server.ranges == [None, f"bytes={2 << 20}-"]


def test_a_part_of_another_file_is_dropped_and_the_mirror_asked_once_more(server, tmp_path):
    (tmp_path / ".f.unfinished").write_bytes(bytes(2 << 20))
    assert fetch([server.url + "large"], tmp_path / "f", md5=LARGE_MD5) == server.url + "large"
    assert (tmp_path / "f").read_bytes() == LARGE and server.ranges == [f"bytes={2 << 20}-", None]
    with pytest.raises(UnavailableError, match="the server sent another file, its MD5 is"):
        fetch([server.url + "large-other"], tmp_path / "g", md5=LARGE_MD5)
    assert os.listdir(tmp_path) == ["f"]  # nothing of a wrong file is kept


def test_who_stops_a_large_download_can_go_on(server, tmp_path):
    def progress(name, done, total):
        if done >= 1 << 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([server.url + "large"], tmp_path / "f", md5=LARGE_MD5, progress=progress)
    assert len(unfinished(tmp_path)) == 1
    fetch([server.url + "large"], tmp_path / "f", md5=LARGE_MD5)
    assert (tmp_path / "f").read_bytes() == LARGE and server.ranges[1].startswith("bytes=")


def test_a_part_that_another_process_is_writing_is_left_to_it(server, tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="this system has no such locks")
    part = tmp_path / ".f.unfinished"
    part.write_bytes(LARGE[: 2 << 20])
    with open(part, "r+b") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        fetch([server.url + "large"], tmp_path / "f", md5=LARGE_MD5)
    assert (tmp_path / "f").read_bytes() == LARGE and part.read_bytes() == LARGE[: 2 << 20] and server.ranges == [None]


def test_a_link_is_not_continued_into_what_it_leads_to(server, tmp_path):
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / ".f.unfinished").symlink_to(tmp_path / "precious")
    fetch([server.url + "good"], tmp_path / "f", SHA256)
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_no_download_without_a_check_sum(tmp_path):
    with pytest.raises(ArgumentError, match="give sha256 or md5"):
        fetch(["http://127.0.0.1:9/"], tmp_path / "f")
    assert os.listdir(tmp_path) == []
