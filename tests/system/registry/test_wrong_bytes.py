"""Bytes that stay wrong or denied: however many programs want them, one asks for them, and they work again soon."""

import errno
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.changesets import changeset, file
from tests.support.fault_proxy import Asked, Fault, Proxy, Reply, cut, delay, headers, status, whole
from tests.support.lazy_images import FORMATS
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.registries import Registry, push_layer

READERS = 32
DATA = random.Random(3).randbytes(300_000)
TAR = changeset(*(file(f"{number}") for number in range(READERS)), file("data", DATA))


def _inverted(_: Asked, reply: Reply) -> Reply:
    reply.body = bytes(255 - byte for byte in reply.body)
    return reply


def _longer(_: Asked, reply: Reply) -> Reply:
    reply.body += b"x"
    reply.headers["Content-Length"] = str(len(reply.body))
    return reply


def _errors(access: Callable[[int], object]) -> list[int | None]:
    """Return the error numbers of *access*, called by many threads at once; None: it succeeded."""

    def attempt(number: int) -> int | None:
        try:
            access(number)
        except OSError as error:
            return error.errno
        return None

    with ThreadPoolExecutor(READERS) as threads:
        return [*threads.map(attempt, range(READERS))]


def _fails_for_all(proxy: Proxy, digest: str, fault: Fault, access: Callable[[int], object]) -> None:
    """Assert that *access* fails for many while the blob has a *fault*, with a few requests; then end the fault."""
    proxy.always[digest], proxy.round_trip = fault, 0.05
    proxy.requests()
    assert _errors(access) == [errno.EIO] * READERS
    assert len(proxy.requests()) <= 12  # 1 to 4, and more only if all that takes two seconds
    del proxy.always[digest]


def _works(path: Path) -> bool:
    return _errors(lambda _: path.stat()) == [None] * READERS


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("place", ["rootfs", "layers/0", "blobs/sha256"])
def test_a_layer_that_stays_damaged_is_fetched_for_one_of_many_lookups(
    imgfs: Bench, server: Registry, proxy: Proxy, name: str, place: str
) -> None:
    digest = push_layer(FORMATS[name](TAR), server)
    mounted = imgfs.mount(proxy.image())
    imgfs.log_is_quiet = False

    def access(number: int) -> object:
        if place == "blobs/sha256":
            return (mounted / place / digest).read_bytes()
        return (mounted / place / f"{number}").stat()

    _fails_for_all(proxy, digest, _inverted, access)
    until(lambda: _works(mounted / "rootfs" / "data"), "the layer is shown")
    assert (mounted / "rootfs" / "data").read_bytes() == DATA


@pytest.mark.parametrize("fault", ["denied", "missing", "odd", "whole and cut"])
def test_a_layer_that_is_not_to_be_had_is_asked_for_by_one_of_many_lookups(
    imgfs: Bench, server: Registry, proxy: Proxy, fault: str
) -> None:
    digest = push_layer(FORMATS["gzip"](TAR), server)
    mounted = imgfs.mount(proxy.image())
    imgfs.log_is_quiet = False

    def cut(asked: Asked, reply: Reply) -> Reply:
        reply = whole(proxy)(asked, reply)
        reply.cut, reply.reset = 500, True
        return reply

    faults = {"denied": status(403), "missing": status(404), "odd": status(418), "whole and cut": cut}
    _fails_for_all(proxy, digest, faults[fault], lambda number: (mounted / "rootfs" / f"{number}").stat())
    until(lambda: _works(mounted / "rootfs" / "data"), "the layer is shown")


@pytest.mark.parametrize("name", ["zstd-chunked", "estargz"])
@pytest.mark.parametrize("fault", [_inverted, _longer, headers(Content_Range="bytes 1-2/3")])
def test_a_piece_that_stays_damaged_is_fetched_for_one_of_many_readers(
    imgfs: Bench, server: Registry, proxy: Proxy, name: str, fault: Fault
) -> None:
    digest = push_layer(FORMATS[name](TAR), server)
    mounted = imgfs.mount(proxy.image())
    imgfs.log_is_quiet = False
    data = mounted / "rootfs" / "data"
    assert data.stat().st_size == len(DATA)

    def read(_: int) -> None:
        with data.open("rb") as stream:
            stream.read(1000)

    _fails_for_all(proxy, digest, fault, read)
    until(lambda: _errors(read) == [None] * READERS, "the piece is shown")
    assert data.read_bytes() == DATA


@pytest.mark.parametrize("fault", [status(500), cut(0, reset=True), cut(0)])
@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_that_always_fails_stops_no_other(
    imgfs: Bench, server: Registry, proxy: Proxy, name: str, fault: Fault
) -> None:
    bad, good = changeset(*(file(f"{number}", DATA) for number in range(6))), TAR
    digest = push_layer(FORMATS[name](bad, good), server)
    mounted = imgfs.mount(proxy.image(), "--timeout", "1.5")
    imgfs.log_is_quiet = False
    proxy.always[digest] = fault
    for number in range(3):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (mounted / "layers" / "0" / f"{number}").read_bytes()
        assert (mounted / "layers" / "1" / f"{number}").read_bytes() == b""
        assert len((mounted / "layers" / "1" / "data").read_bytes()) == len(DATA)


@pytest.mark.parametrize("name", ["zstd-chunked", "estargz"])
@pytest.mark.parametrize("fault", [headers(Content_Range="bytes 1-2/3"), status(403)])
def test_a_slow_refusal_is_an_error_within_the_timeout_and_a_second(
    imgfs: Bench, server: Registry, proxy: Proxy, name: str, fault: Fault
) -> None:
    digest = push_layer(FORMATS[name](TAR), server)
    mounted = imgfs.mount(proxy.image(), "--timeout", "4")
    imgfs.log_is_quiet = False

    def slow(asked: Asked, reply: Reply) -> Reply:
        return delay(1.6)(asked, fault(asked, reply))

    with (mounted / "rootfs" / "data").open("rb", buffering=0) as data:
        assert len(data.read(1000)) == 1000
        proxy.always[digest] = slow
        began = time.monotonic()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(data.fileno(), 1000, 200_000)
        assert time.monotonic() - began < 4 + 1 + 1  # one for a busy machine
        del proxy.always[digest]
        until(lambda: _errors(lambda _: os.pread(data.fileno(), 1000, 200_000)) == [None] * READERS, "it is there")
        assert os.pread(data.fileno(), 1000, 200_000) == DATA[200_000:201_000]
