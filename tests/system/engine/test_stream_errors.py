"""Garbage and broken connections where an image should come, with the SDK and without it."""

import gzip
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.builders import LAYERS, Archive, archive_of, layer, member
from tests.support.fake_engine import Answer, Engine, fake_engine
from tests.support.mounts import Bench

IMAGE = Archive(layers=(*LAYERS, layer({"big": bytes(range(256)) * 8192})))
DATA = IMAGE.data()
HALF = Answer(parts=[DATA[: len(DATA) // 2]])
PAGE = b"<!DOCTYPE html><title>Sign in</title>" + b"<p>to use the network" * 100

NO_TAR = r"img: not a tar archive: .*"
_STOPPED = r"the engine at \S+ stopped sending img after [0-9.]+ MB: "
STOPPED = _STOPPED + r"[^\n]{1,200}"
CUT = _STOPPED + "its answer is cut short or garbled"
SENT: dict[str, tuple[Answer, int, str]] = {
    "nothing": (Answer(), 5, NO_TAR),
    "nothing but an end": (Answer(unframed=True), 5, NO_TAR),
    "one byte": (Answer(parts=[b"x"]), 5, NO_TAR),
    "one byte and an end": (Answer(parts=[b"x"], unframed=True), 5, NO_TAR),
    "a page": (Answer(parts=[PAGE]), 5, NO_TAR),
    "a short page": (Answer(parts=[b"<html>"]), 5, NO_TAR),
    "an endless page": (Answer(parts=[PAGE * 1000] * 1000), 5, NO_TAR),
    "half a JSON document": (Answer(parts=[b'{"message": "disk on']), 5, NO_TAR),
    "JSON of another kind": (Answer(parts=[json.dumps([1, None]).encode()]), 5, NO_TAR),
    "a message that is a number": (Answer(parts=[b'{"message": 5}']), 5, NO_TAR),
    "a compressed tar": (Answer(parts=[gzip.compress(DATA, 1)]), 5, NO_TAR),
    "zeros": (Answer(parts=[bytes(1 << 20)] * 3), 5, r"img: .*"),
    "a tar of something else": (
        Answer(parts=[archive_of(member("hello", b"hello\n"))]),
        5,
        r"img: no image config, .*",
    ),
    "a page after half the tar": (replace(HALF, parts=[*HALF.parts, PAGE * 3000]), 5, r"img: .*"),
    "a chunk whose size is a word": (replace(HALF, framing=b"size\r\n"), 3, CUT),
    "a chunk of a negative size": (replace(HALF, framing=b"-5\r\nhello\r\n"), 3, STOPPED),
    "a chunk of a size without end": (replace(HALF, framing=b"1" * 100_000), 3, STOPPED),
    "a chunk of 16 EiB": (replace(HALF, framing=b"ffffffffffffffff\r\nhello"), 3, STOPPED),
    "no chunk at all": (replace(HALF, framing=b"\r\n\r\n"), 3, CUT),
    "the end of the connection": (replace(HALF, cut=True), 3, CUT),
    "a reset": (replace(HALF, reset=True), 3, STOPPED),
    "a reset before anything": (Answer(reset=True), 3, STOPPED),
}


@pytest.fixture(name="engine", params=["unix", "tcp"])
def engine_with_and_without_the_sdk(imgfs: Bench, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Give an honest engine: over a unix socket the SDK is not needed."""
    with fake_engine(socket=imgfs.folder / "engine.sock" if request.param == "unix" else None) as engine:
        engine.script.archive = IMAGE
        imgfs.environment["DOCKER_HOST"] = engine.host
        yield engine


@pytest.mark.parametrize(("answer", "status", "message"), SENT.values(), ids=SENT.keys())
def test_a_stream_that_is_no_image(imgfs: Bench, engine: Engine, answer: Answer, status: int, message: str) -> None:
    engine.script.save = answer
    done = imgfs.run("mount", "-q", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    assert (done.status, done.out) == (status, "")
    assert re.fullmatch(f"imgfs: {message}\n", done.err), done.err
    imgfs.nothing_left()
    assert [*imgfs.cache.glob("saved/*/*")] == []


DESCRIBED: dict[str, Answer] = {
    "a page": Answer(parts=[PAGE]),
    "half a document": Answer(parts=[b'{"Id": "sha256:']),
    "brackets": Answer(parts=[b"[" * 1_000_000]),
    "a number of a million digits": Answer(parts=[b'{"Size": ' + b"1" * 1_000_000 + b"}"]),
    "no UTF-8": Answer(parts=[b'{"Id": "\xff"}']),
    "a broken chunk": Answer(parts=[b"{"], framing=b"size\r\n"),
    "a reset": Answer(reset=True),
}


def _no_engine(imgfs: Bench, engine: Engine) -> None:
    """Assert that mounting ends with one line of bounded length that names the engine."""
    done = imgfs.run("mount", "-q", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert engine.host in done.err
    assert len(done.err) < 1000
    imgfs.nothing_left()


@pytest.mark.parametrize("answer", DESCRIBED.values(), ids=DESCRIBED.keys())
def test_a_description_that_is_none(imgfs: Bench, engine: Engine, answer: Answer) -> None:
    engine.script.inspect = answer
    _no_engine(imgfs, engine)


@pytest.mark.parametrize("answer", DESCRIBED.values(), ids=DESCRIBED.keys())
def test_a_refusal_that_says_nothing(imgfs: Bench, engine: Engine, answer: Answer) -> None:
    engine.script.save = replace(answer, status=500)
    _no_engine(imgfs, engine)


@pytest.mark.parametrize("answer", DESCRIBED.values(), ids=DESCRIBED.keys())
def test_a_version_that_is_none(imgfs: Bench, answer: Answer) -> None:
    with fake_engine() as engine:
        engine.script.version = answer
        imgfs.environment["DOCKER_HOST"] = engine.host
        _no_engine(imgfs, engine)


class _Greeting(socketserver.BaseRequestHandler):
    """Says what it is before anybody asks, as ssh does."""

    def handle(self) -> None:
        self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def test_something_else_listens_there(imgfs: Bench) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), _Greeting) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            host = f"tcp://127.0.0.1:{server.server_address[1]}"
            done = imgfs.run("mount", "-q", "--log-file", imgfs.log, "-H", host, "img", imgfs.mountpoint())
        finally:
            server.shutdown()
            thread.join()
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert done.err.startswith(f"imgfs: cannot reach an engine at {host}: ")
    imgfs.nothing_left()
