"""An object in a store: much of it, and a store that answers slowly."""

import contextlib
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from fusefs.content.protocol import Bytes
from fusefs.errors import ImgfsError, InvalidImage, RegistryError, Unavailable
from fusefs.image.model import Traffic
from fusefs.sources.url.bucket import Bucket
from fusefs.sources.url.object_child import ASK, _described
from tests.support.answers import Answer, Got, answers, silent
from tests.support.fake_engine import serving
from tests.support.file_server import file_server
from tests.support.processes import until
from tests.support.requirements import give_up

PIECE, PIECES = bytes(256 << 10), 8
PAUSE, TIMEOUT = 0.3, 2.0


class _Slow(http.server.BaseHTTPRequestHandler):
    """Sends an object of PIECES pieces, one each PAUSE seconds."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        size = len(PIECE) * PIECES
        self.send_response(206)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Range", f"bytes 0-{size - 1}/{size}")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.end_headers()
        with contextlib.suppress(OSError):  # the reader gave up
            for _ in range(PIECES):
                time.sleep(PAUSE)  # this is what the test is about
                self.wfile.write(PIECE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _needs_obstore() -> None:
    if subprocess.run([sys.executable, "-c", "import obstore"], capture_output=True, check=False).returncode:
        give_up("needs obstore")


@pytest.fixture(name="endpoint")
def endpoint_fixture() -> Iterator[str]:
    """Give the URL of a slow store."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


class _Breaks(http.server.BaseHTTPRequestHandler):
    """Sends an object of PIECES pieces, one each PAUSE seconds; the first answer that is long breaks off."""

    protocol_version = "HTTP/1.1"
    endpoint = ""
    has_broken = False
    is_busy_then = False
    etag = etag_then = '"1"'
    modified, modified_then = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT"

    def do_GET(self) -> None:
        size = len(PIECE) * PIECES
        start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        if self.has_broken and self.is_busy_then:
            self.send_error(503)
            return
        self.send_response(206)
        self.send_header("Content-Length", str(end - start + 1))
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        if etag := self.etag_then if self.has_broken else self.etag:
            self.send_header("ETag", etag)
        self.send_header("Last-Modified", self.modified_then if self.has_broken else self.modified)
        self.end_headers()
        if end - start < len(PIECE) or self.has_broken:
            self.wfile.write(bytes(end - start + 1))
            return
        type(self).has_broken = self.close_connection = True
        for _ in range(PIECES - 2):
            time.sleep(PAUSE)  # so that the break is late
            self.wfile.write(PIECE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(name="breaking")
def breaking_fixture() -> Iterator[type[_Breaks]]:
    """Give the class of a store that breaks one answer off."""

    class Breaks(_Breaks):
        pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaks)
    Breaks.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    with serving(server):
        yield Breaks


def bucket_at(endpoint: str, timeout: float = TIMEOUT) -> Bucket:
    """Return an object of a store."""
    settings = {"AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_SKIP_SIGNATURE": "true", "AWS_REGION": "eu"}
    return Bucket("s3://images/a.tar", "s3://images/a.tar", {**os.environ, **settings}, timeout, Traffic())


def received(endpoint: str, size: int) -> int:
    """Return how many of the first *size* bytes of an object arrive."""
    return received_from(bucket_at(endpoint), size)


def received_from(bucket: Bucket, size: int) -> int:
    """Return how many of the first *size* bytes arrive from *bucket*."""
    lengths: list[int] = []

    def take(_: int, data: Bytes) -> None:
        lengths.append(len(data))

    try:
        bucket.receive(0, size, take)
    finally:
        bucket._end()  # otherwise the child ends with this process
    return sum(lengths)


def test_an_answer_may_take_longer_than_the_timeout(endpoint: str) -> None:
    assert received(endpoint, len(PIECE) * PIECES) == len(PIECE) * PIECES


@pytest.mark.parametrize("before", ["nothing", "an answer", "an answer to another child"])
def test_an_answer_that_breaks_late_is_resumed(breaking: type[_Breaks], before: str) -> None:
    bucket = bucket_at(breaking.endpoint)
    if before != "nothing":
        bucket.begin(10)
    if before == "an answer to another child":
        bucket._end()
    assert received_from(bucket, len(PIECE) * PIECES) == len(PIECE) * PIECES
    assert breaking.has_broken


def test_a_store_that_is_busy_after_a_break_is_not_called_silent(breaking: type[_Breaks]) -> None:
    breaking.is_busy_then = True
    bucket = bucket_at(breaking.endpoint, 2 * TIMEOUT)
    bucket.begin(10)
    with pytest.raises(RegistryError, match="Server returned non-2xx status code: 503"):
        received_from(bucket, len(PIECE) * PIECES)


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_an_answer_without_a_strong_etag_is_resumed(breaking: type[_Breaks], etag: str) -> None:
    breaking.etag = breaking.etag_then = etag
    assert received(breaking.endpoint, len(PIECE) * PIECES) == len(PIECE) * PIECES


@pytest.mark.parametrize(
    "fields",
    [
        {"etag_then": '"2"'},
        {"etag_then": ""},
        {"etag": ""},
        {"etag": "", "etag_then": "", "modified_then": "Wed, 21 Oct 2015 07:28:01 GMT"},
    ],
)
def test_a_resumed_answer_is_of_the_same_version(breaking: type[_Breaks], fields: dict[str, str]) -> None:
    for name, value in fields.items():
        setattr(breaking, name, value)
    with pytest.raises(Unavailable, match="was changed while it is in use"):
        received(breaking.endpoint, len(PIECE) * PIECES)


def test_much_is_asked_for_in_parts() -> None:
    with file_server() as server:
        server.dated = True
        server.put("/images/a.tar", bytes(9 << 20))
        assert received(server.url(""), 9 << 20) == 9 << 20
        assert server.requests == ["/images/a.tar bytes=0-8388607", "/images/a.tar bytes=8388608-9437183"]


def test_a_silent_store_fails_all_readers_at_once() -> None:
    failed, began = list[float](), time.monotonic()

    def read(number: int) -> None:
        with contextlib.suppress(RegistryError):
            bucket.receive(number << 12, number + 1 << 12, lambda *_: None)
        failed.append(time.monotonic() - began)

    with silent() as store:
        bucket = bucket_at(f"http://{store.host}")
        readers = [threading.Thread(target=read, args=(number,)) for number in range(5)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert all(TIMEOUT - 0.5 <= after < TIMEOUT + 2 for after in failed), failed
        asked = len(store.connections)
        with pytest.raises(RegistryError):  # nor is it asked again at once
            bucket.receive(0, 1, lambda *_: None)
        assert len(store.connections) == asked


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (403, Unavailable, "the store denies access"),
        (404, Unavailable, "does not exist"),
        (418, RegistryError, "418 I'm a teapot"),
        (200, RegistryError, "the store ignores ranges"),
        (416, InvalidImage, "not a tar archive: the file is empty"),
    ],
)
def test_readers_that_wait_share_the_error_of_a_store(status: int, error: type[ImgfsError], text: str) -> None:
    begun = threading.Event()
    raised, asked = list[ImgfsError](), list[int]()

    def refused(_: Got) -> Answer:
        begun.wait(10)
        return Answer(status)

    with answers(refused) as store:
        bucket = bucket_at(f"http://{store.host}")

        def read() -> None:
            try:
                bucket.receive(0, 10, lambda *_: None)
            except ImgfsError as failure:
                raised.append(failure)
                asked.append(len(store.got))

        readers = [threading.Thread(target=read) for _ in range(5)]
        for reader in readers:
            reader.start()
        until(lambda: store.got, "the store is asked")
        begun.set()
        for reader in readers:
            reader.join()
    assert {(type(each), text in str(each)) for each in raised} == {(error, True)}, raised
    assert len(set(asked)) == 1, asked
    assert len({*map(id, raised)}) == len(raised)


def part(_: Got) -> Answer:
    """Return an object of ten bytes."""
    return Answer(206, bytes(10), {"Content-Range": "bytes 0-9/10", "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"})


@pytest.mark.parametrize("status", [503, 429])
def test_a_store_that_is_busy_until_the_timeout_is_not_called_silent(status: int) -> None:
    faults = list[Answer]()
    with answers(lambda got: faults[0] if faults else part(got)) as store:
        bucket = bucket_at(f"http://{store.host}", 6.0)
        bucket.begin(10)
        bucket._end()  # the process of a mount has a child of its own
        faults.append(Answer(status))
        with pytest.raises(RegistryError, match=f"Server returned non-2xx status code: {status}"):
            bucket.receive(0, 10, lambda *_: None)


def test_a_store_that_is_busy_for_long_is_waited_for() -> None:
    def busy(got: Got) -> Answer:
        return Answer(503) if len(store.got) <= 12 else part(got)  # the library asks eleven times by itself

    with answers(busy) as store:
        bucket = bucket_at(f"http://{store.host}", 10.0)
        assert bucket.begin(10) == bytes(10)
        bucket._end()


def test_a_child_that_waits_for_the_store_ends_with_its_input() -> None:
    with silent() as store:
        bucket = bucket_at(f"http://{store.host}", 60.0)
        child = bucket._running()
        assert child.stdin is not None
        child.stdin.write(ASK.pack(0, 10, 0))
        until(lambda: store.connections, "the store is asked")
        child.stdin.close()
        try:
            assert child.wait(10) == 0
        finally:
            bucket._end()


class _GenericError(Exception):
    """As obstore's."""


_ATTEMPTS = "in 2.4\xb5s, after 5 retries, max_retries: 5, retry_timeout: 6s  - HTTP error: error sending request"


@pytest.mark.parametrize(
    ("url", "text", "shown", "names"),
    [
        (
            "s3://b/k",
            f"Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token {_ATTEMPTS}\n\nDebug",
            "http://169.254.169.254/latest/api/token: HTTP error: error sending request; ",
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
        ),
        (
            "gs://b/k",
            f"Generic GCS error: Error performing http://metadata.google.internal/token?audience=secret {_ATTEMPTS}",
            "http://metadata.google.internal/token; ",
            "GOOGLE_SERVICE_ACCOUNT, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
        ),
        (
            "az://c/k",
            "Generic MicrosoftAzure error: Account must be specified\n",
            "Generic MicrosoftAzure error: Account must be specified; ",
            "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        ),
    ],
)
def test_missing_credentials_are_named(url: str, text: str, shown: str, names: str) -> None:
    kind, described = _described(_GenericError(text), url)
    assert kind == b"G"
    assert described.decode().endswith(f"{shown}the environment has no credentials: set {names}")


def test_other_errors_are_shown_without_counts_and_queries() -> None:
    text = f"Generic S3 error: Error performing GET http://h/k {_ATTEMPTS}"
    expected = b"Generic S3 error: Error performing GET http://h/k: HTTP error: error sending request"
    assert _described(_GenericError(text), "s3://b/k") == (b"G", expected)
    assert _described(_GenericError("Generic S3 error: http://h/k?secret: x"), "s3://b/k") == (
        b"G",
        b"Generic S3 error: http://h/k",
    )
    assert _described(_GenericError("Generic S3 error: http://me:se@cret@h/k: x"), "s3://b/k") == (
        b"G",
        b"Generic S3 error: http://***@h/k: x",
    )
