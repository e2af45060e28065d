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
from fusefs.errors import RegistryError
from fusefs.image.model import Traffic
from fusefs.sources.url.bucket import Bucket
from tests.support.answers import silent
from tests.support.fake_engine import serving
from tests.support.file_server import file_server
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


def bucket_at(endpoint: str) -> Bucket:
    """Return an object of a store."""
    settings = {"AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_SKIP_SIGNATURE": "true", "AWS_REGION": "eu"}
    return Bucket("s3://images/a.tar", {**os.environ, **settings}, TIMEOUT, Traffic())


def received(endpoint: str, size: int) -> int:
    """Return how many of the first *size* bytes of an object arrive."""
    bucket = bucket_at(endpoint)
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
