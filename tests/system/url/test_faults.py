"""A web server that fails, lies or changes its file: the right bytes, or one clear line."""

import random
import threading
import time
from pathlib import Path

import pytest

from tests.support.builders import Archive, layer
from tests.support.fault_proxy import PASS, Asked, Fault, Proxy, Reply, cut, headers, slow_headers, stall, status
from tests.support.file_server import FileServer
from tests.support.mounts import Bench

RANDOM = random.Random(5).randbytes(500_000).hex()
ARCHIVE = Archive(layers=[layer({"etc/motd": b"hello\n", "etc/random": RANDOM.encode()})]).data()


def flipped(_: Asked, reply: Reply) -> Reply:
    """Change a byte in the middle of a long body."""
    if len(reply.body) > 500_000:
        reply.body = reply.body[:250_000] + bytes([reply.body[250_000] ^ 1]) + reply.body[250_001:]
    return reply


def url_of(proxy: Proxy, path: str = "/app.tar") -> str:
    """Return the URL of a file behind the proxy."""
    return f"http://{proxy.host}{path}"


@pytest.fixture(name="url")
def url_fixture(server: FileServer, proxy: Proxy) -> str:
    """Give the URL of the archive behind the proxy."""
    server.put("/app.tar", ARCHIVE)
    return url_of(proxy)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        cut(1000),
        cut(1000, reset=True),
        cut(0),
        status(503),
        status(429, Retry_After="0"),
        status(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT", Date="Wed, 21 Oct 2015 07:28:00 GMT"),
        headers(Content_Range="bytes 5-9/10"),
    ],
)
def test_a_transfer_goes_on_after_a_fault(
    imgfs: Bench, server: FileServer, proxy: Proxy, url: str, fault: Fault, *, ranges: bool
) -> None:
    server.ranges = ranges
    proxy.faults["app.tar"] = [fault, PASS, fault]
    done = imgfs.run("cat", f"{url}:/etc/random", "--progress", "none")
    assert (done.status, done.out == RANDOM) == (0, True), done.err


def test_a_cut_transfer_resumes_at_the_byte_that_it_reached(imgfs: Bench, proxy: Proxy, url: str) -> None:
    proxy.faults["app.tar"] = [PASS, PASS, cut(500_000)]
    assert imgfs.run("cat", f"{url}:/etc/motd").out == "hello\n"
    ranges = [asked.headers["Range"] for asked in proxy.asked]
    assert ranges[0] == "bytes=0-32767"
    start = int(ranges[2][6:].partition("-")[0])
    assert ranges[3] == f"bytes={start + 500_000}-{ranges[2].rpartition('-')[2]}"
    assert all("If-Range" in asked.headers for asked in proxy.asked[1:])


@pytest.mark.parametrize("code", [400, 501])
def test_a_server_that_refuses_parts_sends_all(imgfs: Bench, proxy: Proxy, url: str, code: int) -> None:
    refused = status(code)
    proxy.always["app.tar"] = lambda asked, reply: refused(asked, reply) if "Range" in asked.headers else reply
    assert imgfs.run("cat", f"{url}:/etc/motd").out == "hello\n"
    assert ["Range" in asked.headers for asked in proxy.asked] == [True, False]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (status(404), (4, "does not exist: the server answers 404")),
        (status(403), (4, "denies access: 403")),
        (status(500), (3, "answers 500")),
        (status(418), (3, "answers 418")),
        (status(429, Retry_After="3600"), (3, "it asks to wait 3600 s")),
        (status(302, Location="http://[x"), (3, "malformed URL")),
        (status(302, Location="ftp://example.org/"), (3, "redirects to a URL that is not")),
        (status(302, Location="?again"), (3, "redirects more than 5 times")),
        (status(416, b"", Content_Length="1000000", Content_Range="bytes */0"), (5, "the file is empty")),
        (headers(Content_Range="bytes 7-8/9"), (3, "the server sends bytes 7-8/9")),
        (status(200, b"<html>", Content_Type="text/html; charset=utf-8"), (5, "the server sends a web page")),
        (status(200, b"\x0b" * 2000, Content_Encoding="br"), (5, "the server compresses it (Content-Encoding: br)")),
        (status(206, b"x\x9c" * 1000, Content_Encoding="deflate", Content_Range="bytes 0-1999/2000"), (5, "deflate)")),
        (slow_headers(0.4), (3, "timed out")),
        (headers(**{f"X{n}": "x" * 1000 for n in range(90)}), (3, "headers have more than")),
    ],
)
def test_a_bad_answer_is_one_line(
    imgfs: Bench, proxy: Proxy, url: str, fault: Fault, expected: tuple[int, str]
) -> None:
    proxy.always["app.tar"] = fault
    began = time.monotonic()
    done = imgfs.run("ls", "--timeout", "1", "--progress", "none", url)
    assert (done.status, expected[1] in done.err, done.err.count("\n")) == (expected[0], True, 1), done
    assert time.monotonic() - began < 3


def test_a_changed_archive_is_unavailable_and_what_is_here_stays(imgfs: Bench, server: FileServer, url: str) -> None:
    mounted = imgfs.mount(url)
    blob = next(path for path in (mounted / "blobs" / "sha256").iterdir() if path.stat().st_size > 1_000_000)
    with blob.open("rb", buffering=0) as file:
        there = file.read(4096)
        server.put("/app.tar", Archive(layers=[layer({"other": bytes(3_000_000)})]).data())
        with pytest.raises(OSError, match="Input/output"):
            (mounted / "layers" / "0" / "etc" / "motd").read_bytes()
        assert file.seek(0) == 0
        assert file.read(4096) == there
    assert "was changed while it is in use" in imgfs.log.read_text()
    imgfs.log_is_quiet = False


def test_damage_is_found_where_a_file_s_would_be(imgfs: Bench, proxy: Proxy, url: str) -> None:
    proxy.always["app.tar"] = flipped
    done = imgfs.run("cat", "--verify", "--progress", "none", f"{url}:/etc/motd")
    assert (done.status, "has the digest" in done.err) == (6, True)


def test_redirects_are_remembered_until_they_expire(imgfs: Bench, server: FileServer, proxy: Proxy, url: str) -> None:
    server.redirects["/moved.tar"] = f"{url}?signed"
    mounted = imgfs.mount(server.url("/moved.tar"))
    assert server.requests.count("/moved.tar bytes=0-32767") == 1
    proxy.faults["app.tar"] = [status(403)]
    assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    assert len([request for request in server.requests if request.startswith("/moved.tar")]) == 2


def test_no_credentials_are_sent_anywhere(imgfs: Bench, server: FileServer, url: str) -> None:
    (imgfs.folder / ".netrc").write_text("default login someone password secret\n")
    server.redirects["/moved.tar"] = url
    environment = {"HOME": imgfs.folder, "NETRC": imgfs.folder / ".netrc"}
    assert imgfs.run("cat", f"{server.url('/moved.tar')}:/etc/motd", **environment).out == "hello\n"
    assert not [sent for sent in server.headers if {"Authorization", "Cookie", "Referer"} & set(sent)]
    done = imgfs.run("ls", server.url("/app.tar").replace("://", "://someone:secret@"))
    assert (done.status, "secret" in done.err, "it must not contain a user" in done.err) == (2, False, True)


def test_a_silent_server_is_an_error_after_the_timeout_and_reads_go_on_when_it_is_back(
    imgfs: Bench, proxy: Proxy, url: str
) -> None:
    mounted = imgfs.mount(url, "--timeout", "1")
    until = threading.Event()
    proxy.always["app.tar"] = stall(100, until)
    began = time.monotonic()
    with pytest.raises(OSError, match="Input/output"):
        (mounted / "rootfs" / "etc" / "motd").read_bytes()
    assert time.monotonic() - began < 3
    assert (mounted / "manifest.json").read_bytes()
    until.set()
    proxy.always.clear()
    wait_for(mounted / "rootfs" / "etc" / "motd")
    imgfs.log_is_quiet = False


def wait_for(path: Path) -> None:
    """Read *path* until that succeeds: a server that failed is not asked for a moment."""
    deadline = time.monotonic() + 5
    while True:
        try:
            path.read_bytes()
        except OSError:
            assert time.monotonic() < deadline
        else:
            return
