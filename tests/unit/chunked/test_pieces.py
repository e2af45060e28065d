"""A tar whose pieces are fetched when they are read."""

import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from itertools import accumulate
from typing import Any

import pytest

from fusefs.chunked.annotations import format_of
from fusefs.chunked.comparison import compare
from fusefs.chunked.formats import open_tar
from fusefs.chunked.headers import Headers
from fusefs.chunked.pieces import PieceTable, PieceTar
from fusefs.chunked.remembered import RememberedRanges
from fusefs.content.file import OpenFile
from fusefs.content.pieces import FetchFailed
from fusefs.content.protocol import Literal
from fusefs.errors import ImgfsError, InvalidImage, RegistryError, Unavailable
from tests.support.changesets import About, changeset, device, file
from tests.support.chunked_layers import Chunked, Ranges, estargz, zstd_chunked
from tests.support.processes import until
from tests.unit.chunked.example import EVERYTHING

SIZE = 5000
PARTS = [random.Random(number).randbytes(SIZE) for number in range(40)]
TAR = b"".join(PARTS)


def _plain(data: bytes, inner: int, size: int) -> bytes:
    return data[inner : inner + size]


@contextmanager
def pieces(blob: Ranges, gap: int = 0) -> Iterator[PieceTar]:
    """Give a tar of nothing but pieces, which lie *gap* bytes apart in *blob*, uncompressed."""
    table = PieceTable()
    for number, part in enumerate(PARTS):
        source = number * (SIZE + gap)
        table.add(number * SIZE, SIZE, source, SIZE, 0, sha256(part).digest())
    headers = Headers(OpenFile(os.memfd_create("tar", os.MFD_CLOEXEC), "the layer"))
    tar = PieceTar(headers.end(len(TAR))[0], table, blob, _plain)
    yield tar
    tar.close()


def test_a_read_fetches_the_pieces_that_it_needs_by_one_request_and_once() -> None:
    blob = Ranges(TAR)
    with pieces(blob) as tar:
        assert tar.read_cached(7000, 10) is None
        assert tar.read_at(7000, 10) == TAR[7000:7010]
        assert tar.read_at(24_000, 3000) == TAR[24_000:27_000]
        assert blob.asked == [(5000, 5000), (20_000, 10_000)]
        assert tar.read_at(20_000, 10_000) == TAR[20_000:30_000]
        assert bytes(tar.read_cached(20_000, 10_000) or b"") in (TAR[20_000:30_000], b"")
        assert tar.read_at(len(TAR) - 5, 100) == TAR[-5:]
        assert tar.read_at(len(TAR), 5) == b""
        assert len(blob.asked) == 3


def test_pieces_that_are_far_apart_take_two_requests() -> None:
    gap = 1 << 17
    blob = Ranges(b"".join(part + bytes(gap) for part in PARTS))
    with pieces(blob, gap) as tar:
        assert tar.read_at(0, 2 * SIZE) == TAR[: 2 * SIZE]
        assert blob.asked == [(0, SIZE), (SIZE + gap, SIZE)]


def test_a_reader_that_goes_on_gets_more_and_more_at_once() -> None:
    blob = Ranges(TAR)
    with pieces(blob) as tar:
        for offset in range(0, len(TAR), SIZE):
            assert tar.read_at(offset, SIZE) == PARTS[offset // SIZE]
        assert [size for _, size in blob.asked] == [SIZE, len(TAR) - SIZE]


def test_threads_that_want_one_piece_share_the_fetch() -> None:
    class Slow(Ranges):
        def unverified_range(self, offset: int, size: int) -> bytes:
            everyone.wait(10)
            return super().unverified_range(offset, size)

    everyone = threading.Event()
    blob = Slow(TAR)
    found: list[bytes] = []
    with pieces(blob) as tar:
        threads = [threading.Thread(target=lambda: found.append(bytes(tar.read_at(100, 50)))) for _ in range(20)]
        for thread in threads:
            thread.start()
        everyone.set()
        for thread in threads:
            thread.join()
    assert found == [TAR[100:150]] * 20
    assert blob.asked == [(0, SIZE)]


def test_many_threads_at_random_places_read_the_right_bytes() -> None:
    blob = Ranges(TAR)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(200):
            offset, size = rng.randrange(len(TAR)), rng.randrange(1, 20_000)
            if tar.read_at(offset, size) != TAR[offset : offset + size]:
                wrong.append(offset)

    with pieces(blob) as tar:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert sum(size for _, size in blob.asked) < 2 * len(TAR)  # pieces between two others may come again


class Failing(Ranges):
    """Fails all reads that begin at an offset, as soon as so many threads wait for them."""

    def __init__(self, waiting: threading.Semaphore, count: int, offset: int, error: ImgfsError | None = None) -> None:
        super().__init__(TAR)
        self._waiting, self._count, self._offset, self._error = waiting, count, offset, error

    def unverified_range(self, offset: int, size: int) -> bytes:
        data = super().unverified_range(offset, size)
        if len(self.asked) == 1:
            for _ in range(self._count):
                assert self._waiting.acquire(timeout=10)
        if not offset <= self._offset < offset + size:
            return data
        if self._error is not None:
            raise FetchFailed(self._error)
        return data[: self._offset - offset] + bytes(size - (self._offset - offset))


def _waited_for(tar: PieceTar, waiting: threading.Semaphore) -> None:
    """Let *tar* release *waiting* when a thread waits for another one."""

    class Counting(threading.Condition):
        def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
            waiting.release()
            return super().wait_for(predicate, timeout)

    tar._changed = Counting()


@pytest.mark.parametrize("error", [None, RegistryError("gone")])
def test_threads_that_want_one_piece_share_the_error(error: ImgfsError | None) -> None:
    waiting = threading.Semaphore(0)
    blob = Failing(waiting, 19, 0, error)
    with pieces(blob) as tar, ThreadPoolExecutor(20) as pool:
        _waited_for(tar, waiting)
        errors = [read.exception() for read in [pool.submit(tar.read_at, 100, 50) for _ in range(20)]]
        assert all(isinstance(each, FetchFailed) for each in errors)
        assert len({str(each) for each in errors}) == 1
        assert len(set(map(id, errors))) == 20
        assert blob.asked == [(0, SIZE)] * (2 if error is None else 1)
        if error is not None:  # the next reader tries again
            blob._offset = -1
            assert tar.read_at(100, 50) == TAR[100:150]


@pytest.mark.parametrize("error", [None, RegistryError("gone")])
def test_an_error_of_pieces_that_a_thread_does_not_want_is_not_shared(error: ImgfsError | None) -> None:
    waiting = threading.Semaphore(0)
    blob = Failing(waiting, 1, 0, error)
    with pieces(blob) as tar, ThreadPoolExecutor(2) as pool:
        _waited_for(tar, waiting)
        both = pool.submit(tar.read_at, 0, 2 * SIZE)
        until(lambda: blob.asked, "both pieces are asked for")
        second = pool.submit(tar.read_at, SIZE, SIZE)
        assert isinstance(both.exception(), FetchFailed)
        assert second.result() == PARTS[1]
        assert blob.asked == [(0, 2 * SIZE), *[(0, SIZE)] * (error is None), (SIZE, SIZE)]


def test_an_error_of_what_is_fetched_ahead_is_not_shared() -> None:
    waiting = threading.Semaphore(0)
    blob = Failing(waiting, 1, 5 * SIZE, RegistryError("gone"))
    with pieces(Ranges(TAR)) as tar, ThreadPoolExecutor(2) as pool:
        _waited_for(tar, waiting)
        assert tar.read_at(0, SIZE) == PARTS[0]
        tar._blob = blob
        first = pool.submit(tar.read_at, SIZE, SIZE)
        until(lambda: blob.asked, "a piece and those behind it are asked for")
        ahead = pool.submit(tar.read_at, 2 * SIZE, SIZE)
        assert (first.result(), ahead.result()) == (PARTS[1], PARTS[2])
        assert blob.asked[0] == (SIZE, len(TAR) - SIZE)
        assert sorted(blob.asked[1:]) == [(SIZE, SIZE), (2 * SIZE, SIZE)]
        with pytest.raises(FetchFailed):
            tar.read_at(5 * SIZE, 1)


def test_a_damaged_piece_is_fetched_once_more_and_then_an_error_for_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blob = Ranges(TAR)
    with pieces(blob) as tar:
        blob.blob = bytes(len(TAR))
        with pytest.raises(FetchFailed, match=r"the layer: the bytes 5000-9999 do not have the digest sha256:"):
            tar.read_at(5000, 5)
        with pytest.raises(FetchFailed, match=r"the layer: the bytes 5000-9999 do not have the digest sha256:"):
            tar.read_at(0, 6000)
        assert blob.asked == [(5000, 5000)] * 2
        assert blob.dropped == [(5000, 5000)] * 2
        blob.blob = TAR
        assert tar.read_at(0, 5000) == PARTS[0]
        now = time.monotonic()
        monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now + 2)
        assert tar.read_at(5000, 5) == TAR[5000:5005]

        class Once(Ranges):
            def unverified_range(self, offset: int, size: int) -> bytes:
                right = super().unverified_range(offset, size)
                return right if self.dropped else bytes(size)

        tar._blob = Once(TAR)
        assert tar.read_at(15_000, 5) == TAR[15_000:15_005]


def test_damage_behind_what_is_read_is_no_error_yet() -> None:
    damaged = bytearray(TAR)
    damaged[5 * SIZE] ^= 1
    with pieces(Ranges(bytes(damaged))) as tar:
        assert tar.read_at(0, SIZE) == PARTS[0]
        assert tar.read_at(SIZE, SIZE) == PARTS[1]  # with all that follows, as far as it is right
        assert tar.read_at(4 * SIZE, SIZE) == PARTS[4]
        with pytest.raises(FetchFailed):
            tar.read_at(5 * SIZE, SIZE)
        assert tar.read_at(6 * SIZE, SIZE) == PARTS[6]


def test_what_nobody_has_asked_for_may_be_out_of_reach() -> None:
    class Part(Ranges):
        """The cache, which has the first pieces, while the registry is not asked (--offline)."""

        def unverified_range(self, offset: int, size: int) -> bytes:
            if offset + size > 8 * SIZE:
                raise FetchFailed(Unavailable("not in the cache"))
            return super().unverified_range(offset, size)

    with pieces(Part(TAR)) as tar:
        for number in range(8):
            assert tar.read_at(number * SIZE, SIZE) == PARTS[number]
        with pytest.raises(FetchFailed):
            tar.read_at(8 * SIZE, 1)


def test_documents_are_remembered_until_one_of_them_is_dropped() -> None:
    blob = Ranges(TAR)
    first = RememberedRanges(blob, b"")
    assert first.unverified_range(100, 50) == TAR[100:150]
    assert first.unverified_range(7, 3) == TAR[7:10]
    known = first.packed()
    first.forget()
    assert first.unverified_range(100, 50) == TAR[100:150]
    assert first.packed() == b""
    second = RememberedRanges(blob, known)
    asked = len(blob.asked)
    assert second.unverified_range(110, 20) == TAR[110:130]
    assert len(blob.asked) == asked
    assert second.packed() == b""
    second.drop_range(0, 1)
    assert second.unverified_range(110, 20) == TAR[110:130]
    assert len(blob.asked) == asked + 1
    assert RememberedRanges(blob, known[:-1]).size == len(TAR)  # cut off: the digests will tell


def test_large_documents_are_not_held_in_memory_to_be_remembered() -> None:
    documents = RememberedRanges(Ranges(bytes(33 << 20)), b"")
    for _ in range(2):
        assert documents.unverified_range(0, 33 << 20) == bytes(33 << 20)
    assert documents.packed() == b""


def test_a_table_finds_the_pieces_of_a_run() -> None:
    table = PieceTable()
    sizes = [3, 5, 2]
    for start, size in zip(accumulate([10, 3, 9]), sizes, strict=True):  # from 10, 13 and 22 on
        table.add(start, size, 0, 1, 0, bytes(32))
    found = {offset: list(table.span(offset, 2)) for offset in (0, 8, 9, 12, 13, 17, 18, 20, 21, 23, 24)}
    assert found == {
        0: [],
        8: [],
        9: [0],
        12: [0, 1],
        13: [1],
        17: [1],
        18: [],
        20: [],
        21: [2],
        23: [2],
        24: [],
    }
    assert list(table.span(0, 100)) == [0, 1, 2]
    assert zlib.crc32(table.digest(2)) == zlib.crc32(bytes(32))


@contextmanager
def opened(layer: Chunked) -> Iterator[PieceTar]:
    """Give the tar of *layer*, read piece by piece."""
    known = format_of(layer.annotations)
    assert known is not None
    tar = open_tar(
        known, layer.annotations, Ranges(layer.blob), OpenFile(os.memfd_create("tar", os.MFD_CLOEXEC), "the layer")
    )
    yield tar
    tar.close()


@pytest.mark.parametrize("write", [zstd_chunked, estargz])
def test_the_tar_of_the_whole_layer_is_compared_with_the_pieces(write: Callable[[bytes], Chunked]) -> None:
    data = b"data" + bytes(3000) + b"more"
    with opened(write(EVERYTHING)) as tar:
        assert compare(tar, Literal(write(EVERYTHING).tar), "it")
    with opened(write(changeset(file("a", data), file("b")))) as tar:
        for other in (
            changeset(file("a", b"date" + data[4:]), file("b")),
            changeset(file("a", data.replace(b"\0more", b"1more")), file("b")),
            changeset(file("a", data[:500] + b"x" + data[501:]), file("b")),
            changeset(file("c", data), file("b")),
            changeset(file("a", data, About(mode=0o600)), file("b")),
            changeset(file("a", data)),
            changeset(file("a", data), file("b"), file("c")),
        ):
            with pytest.raises(InvalidImage, match="it: its table of contents and its tar differ at "):
                compare(tar, Literal(write(other).tar), "it")


@pytest.mark.parametrize("write", [zstd_chunked, estargz])
def test_a_member_that_is_not_shown_is_no_difference(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[bytes], Chunked]
) -> None:
    odd = device("odd", "c", 1 << 12, 1)
    with monkeypatch.context() as patch:
        patch.setattr("fusefs.tar.attributes._MAX_MAJOR", 1 << 12)  # builders write any number
        layer = write(changeset(odd, file("a")))
        others = [write(changeset(device("odd", "c", 1, 1), file("a"))), write(changeset(odd, file("a", b"1")))]
    with opened(layer) as tar:
        assert compare(tar, Literal(layer.tar), "it")
        for other in others:
            with pytest.raises(InvalidImage, match="it: its table of contents and its tar differ at "):
                compare(tar, Literal(other.tar), "it")


def test_a_table_of_contents_has_no_fractions_of_a_second() -> None:
    layer = estargz(changeset(file("a", b"1", About(mtime_ns=1_600_000_000_500_000_000))))
    with opened(layer) as tar:
        assert not compare(tar, Literal(layer.tar), "it")
