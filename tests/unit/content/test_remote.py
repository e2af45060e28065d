"""A blob that another machine has: which bytes are fetched, by whom, and when they are shown."""

import errno
import itertools
import random
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fusefs.content.file import OpenFile
from fusefs.content.pieces import FetchFailed, Room, Take
from fusefs.content.protocol import Bytes
from fusefs.content.remote import RemoteBlob, _steps
from fusefs.errors import BlobError, DigestMismatch, ImgfsError, InvalidImage, NoSpace, RegistryError, Unavailable
from fusefs.ranges import Ranges
from tests.support.conformance import check_reads
from tests.support.supplies import MemorySupply, memory_file

Read = Callable[[RemoteBlob], Bytes]
DATA = random.Random(1).randbytes(1_000_000)
SIZE = len(DATA)
WAYS: list[Read] = [
    lambda blob: blob.read_at(0, SIZE),
    lambda blob: blob.unverified_range(0, SIZE),
    lambda blob: b"".join(blob.unverified_chunks()),
]
"""Ways to read a whole blob."""


def once(error: Exception) -> Callable[[int, int], None]:
    """Return a function that raises *error* at its first call."""
    errors = [error]

    def before(_start: int, _end: int) -> None:
        if errors:
            raise errors.pop()

    return before


def test_the_bytes_are_fetched_once_and_only_when_they_are_read() -> None:
    supply = MemorySupply(DATA)
    blob = RemoteBlob(SIZE, supply)
    part = blob.slice(10, 20)
    assert (blob.size, blob.stored, blob.file_place(), blob.read_cached(0, 10)) == (SIZE, SIZE, None, None)
    blob.check()
    assert supply.asked == []
    assert bytes(part.read_at(5, 100)) == DATA[15:30]
    place = blob.file_place()
    assert place is not None
    assert place.offset == 0
    blob.fetch()
    check_reads(blob)
    assert supply.asked == [(0, SIZE)]
    assert [file.descriptor for file in supply.kept] == [place.descriptor]
    blob.close()


def test_a_range_is_fetched_alone_and_once_and_the_rest_later() -> None:
    supply = MemorySupply(DATA)
    blob = RemoteBlob(SIZE, supply)
    assert blob.unverified_range(500_000, 100_000) == DATA[500_000:600_000]
    assert blob.unverified_range(500_100, 500) == DATA[500_100:500_600]
    assert blob.unverified_range(SIZE - 10, 1000) == DATA[-10:]
    assert supply.asked == [(500_000, 600_000), (SIZE - 10, SIZE)]
    assert (blob.file_place(), blob.read_cached(500_000, 10), supply.kept) == (None, None, [])
    supply.asked.clear()
    assert blob.read_at(0, SIZE) == DATA
    assert supply.asked == [(0, 500_000), (600_000, SIZE - 10)]
    assert blob.unverified_range(7, 100) == DATA[7:107]
    assert len(supply.asked) == 2


def test_pieces_that_are_close_are_fetched_in_one_request() -> None:
    supply = MemorySupply(DATA)
    blob = RemoteBlob(SIZE, supply)
    blob.unverified_range(100_000, 65_535)
    blob.unverified_range(300_000, 65_536)
    supply.asked.clear()
    assert blob.unverified_range(0, SIZE) == DATA
    assert supply.asked == [(0, 300_000), (365_536, SIZE)]


def test_wrong_bytes_in_a_range_are_dropped_and_fetched_again() -> None:
    supply = MemorySupply(DATA)
    blob = RemoteBlob(SIZE, supply)
    supply.data = bytes(SIZE)
    assert blob.unverified_range(0, 100) == bytes(100)
    supply.data = DATA
    blob.drop_range(50, 50)
    assert blob.unverified_range(0, 100) == bytes(50) + DATA[50:100]
    assert blob.read_at(0, 100) == DATA[:100]  # of all the bytes, the digest differs
    assert supply.asked == [(0, 100), (50, 100), (100, SIZE), (0, SIZE)]
    assert supply.again == [0, 1, 0, 1]


def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two seconds pass."""
    now = time.monotonic()
    monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now + 2)


def test_a_wrong_digest_drops_everything_once_and_is_an_error_for_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    supply = MemorySupply(DATA)
    supply.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    blob = RemoteBlob(SIZE, supply)
    for number in (1, 2):
        with pytest.raises(FetchFailed, match="the digest is wrong") as caught:
            blob.read_at(0, 1)
        assert isinstance(caught.value.error, DigestMismatch)
        for ask in (blob.fetch, lambda: [*blob.unverified_chunks()]):
            with pytest.raises(FetchFailed, match="the digest is wrong"):
                ask()
        assert supply.asked == [(0, SIZE), (0, SIZE)] * number
        _later(monkeypatch)
    assert (blob.file_place(), supply.kept) == (None, [])
    assert blob.unverified_range(0, 10) == DATA[:10]  # readers compare digests of their own
    supply.data = DATA
    assert blob.read_at(0, SIZE) == DATA


def test_after_two_wrong_copies_of_others_the_blob_is_asked_for_at_first_hand_alone_once() -> None:
    supply = MemorySupply(DATA)
    supply.data, supply.not_sent = bytes(SIZE), RegistryError("not in reach")
    blob = RemoteBlob(SIZE, supply)
    for _ in range(2):
        with pytest.raises(FetchFailed, match="not in reach") as caught:
            blob.read_at(0, 1)
        assert isinstance(caught.value.error, RegistryError)  # so that those who wait for the registry go on
    assert supply.again == [0, 1, 2]
    supply.data = DATA  # the others send right bytes
    assert blob.read_at(0, SIZE) == DATA
    assert supply.again == [0, 1, 2, 1]


def test_a_blob_that_is_wrong_at_first_hand_is_asked_of_all_again(monkeypatch: pytest.MonkeyPatch) -> None:
    supply = MemorySupply(DATA)
    supply.data = bytes(SIZE)
    blob = RemoteBlob(SIZE, supply)
    for _ in range(2):
        with pytest.raises(FetchFailed, match="the digest is wrong"):
            blob.read_at(0, 1)
        _later(monkeypatch)
    assert supply.again[:2] == [0, 1]
    supply.data = DATA
    now = time.monotonic()
    monkeypatch.setattr("fusefs.content.recent.time.monotonic", lambda: now + 10)
    assert blob.read_at(0, SIZE) == DATA
    assert supply.again[-1] == 0


def test_a_blob_of_another_size_is_an_error_for_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    supply = MemorySupply(DATA)
    supply.before = once(InvalidImage("another size"))
    blob = RemoteBlob(SIZE, supply)
    for is_shared in (False, True):
        with pytest.raises(FetchFailed, match="another size") as caught:
            blob.read_at(500_000, 10)
        assert caught.value.shared is is_shared
    assert supply.asked == [(0, SIZE)]
    _later(monkeypatch)
    assert blob.read_at(0, SIZE) == DATA


@pytest.mark.parametrize("error", [BlobError("another range"), Unavailable("denied"), InvalidImage("another size")])
def test_an_error_of_a_range_stops_no_other_bytes(error: ImgfsError) -> None:
    supply = MemorySupply(DATA)
    supply.before = once(error)
    blob = RemoteBlob(SIZE, supply)
    with pytest.raises(FetchFailed, match=str(error)):
        blob.unverified_range(500_000, 10)
    blob.check_supply()
    assert blob.unverified_range(500_000, 10) == DATA[500_000:500_010]
    assert blob.read_at(0, SIZE) == DATA


def test_bytes_that_are_fetched_again_while_the_digest_is_compared_are_compared_again() -> None:
    wrong = bytes(SIZE)

    class Racing(MemorySupply):
        def receive(self, start: int, end: int, take: Take, *, again: int) -> ImgfsError | None:
            return super().receive(start, end, take, again=again if end - start == SIZE else 0)

        def verify(self, data: Iterable[Bytes]) -> None:
            super().verify(data)
            if self.mended is None:
                self.data, self.mended = wrong, DATA
                blob.drop_range(100, 100)  # by a reader who had read them before they were right
                assert blob.unverified_range(100, 100) == wrong[:100]

    supply = Racing(DATA)
    blob = RemoteBlob(SIZE, supply)
    assert blob.read_at(0, SIZE) == DATA
    assert supply.asked == [(0, SIZE), (100, 200), (0, SIZE)]
    assert len(supply.kept) == 1
    blob.drop_range(0, SIZE)  # too late: they are verified
    assert blob.unverified_range(0, SIZE) == DATA


def test_a_reader_who_compares_wrong_digests_does_not_hold_up_the_whole_blob() -> None:
    class Lying(MemorySupply):
        verified = 0

        def verify(self, data: Iterable[Bytes]) -> None:
            super().verify(data)
            self.verified += 1
            assert self.verified < 5
            blob.drop_range(100, 100)  # as if a table of contents stated another digest
            blob.unverified_range(100, 100)

    supply = Lying(DATA)
    blob = RemoteBlob(SIZE, supply)
    assert blob.read_at(0, SIZE) == DATA
    assert supply.asked == [(0, SIZE), (100, 200), (100, 200)]


def test_who_waits_shares_the_error_and_the_next_access_tries_again() -> None:
    began, go = threading.Event(), threading.Event()

    def before(_start: int, _end: int) -> None:
        if not go.is_set():
            began.set()
            go.wait()
            raise RegistryError("gone")

    reads: list[Read] = [lambda blob: blob.read_at(0, 4), lambda blob: blob.unverified_range(0, 4)]
    for read in reads:
        began.clear()
        go.clear()
        supply = MemorySupply(DATA)
        supply.before = before
        blob = RemoteBlob(SIZE, supply)
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(read, blob)
            began.wait()
            waiting = [pool.submit(read, blob) for _ in range(7)]
            threading.Event().wait(0.2)  # until they all wait
            go.set()
            errors = [future.exception() for future in [first, *waiting]]
        assert [(getattr(error, "errno", None), str(error)) for error in errors] == [(errno.EIO, "[Errno 5] gone")] * 8
        assert len(supply.asked) == 1
        assert bytes(read(blob)) == DATA[:4]


def test_who_waits_for_a_piece_shares_the_fetch_of_the_whole_blob() -> None:
    supply = MemorySupply(DATA)
    reached, go = threading.Event(), threading.Event()

    def before(start: int, _end: int) -> None:
        if start == 500_000:
            reached.set()
            go.wait()

    supply.before = before
    blob = RemoteBlob(SIZE, supply)
    with ThreadPoolExecutor(4) as pool:
        whole = pool.submit(blob.read_at, 0, SIZE)
        reached.wait()
        assert blob.unverified_range(0, 1000) == DATA[:1000]  # it is there, although not verified
        later = pool.submit(blob.unverified_range, 900_000, 1000)
        go.set()
        assert (whole.result(), later.result()) == (DATA, DATA[900_000:901_000])
    assert supply.asked == [(0, SIZE)]


def test_a_server_that_ignores_ranges_sends_everything_once() -> None:
    supply = MemorySupply(DATA)
    supply.ignores_ranges = True
    blob = RemoteBlob(SIZE, supply)
    assert blob.unverified_range(500_000, 1000) == DATA[500_000:501_000]
    assert blob.unverified_range(0, 1000) == DATA[:1000]
    assert blob.read_at(0, SIZE) == DATA
    assert supply.asked == [(500_000, 501_000)]
    blob = RemoteBlob(SIZE, supply)
    meeting = threading.Barrier(4)
    supply.asked.clear()

    def before(start: int, _end: int) -> None:
        if start == 0 and len(supply.asked) <= 4:
            meeting.wait()

    supply.before = before
    with ThreadPoolExecutor(4) as pool:
        offsets = [0, 200_000, 400_000, 900_000]
        read = [*pool.map(lambda offset: blob.unverified_range(offset, 1000), offsets)]
    assert read == [DATA[offset : offset + 1000] for offset in offsets]
    assert len(supply.asked) <= 8


def test_bytes_arrive_in_order_before_all_are_there() -> None:
    supply = MemorySupply(DATA * 4)
    blob = RemoteBlob(4 * SIZE, supply)
    blob.unverified_range(3_000_000, 10)
    go = threading.Event()

    def before(start: int, _end: int) -> None:
        if start >= 2_500_000:
            go.wait()

    supply.before = before
    chunks = blob.unverified_chunks()
    first = bytes(next(chunks)) + bytes(next(chunks))
    assert first == (DATA * 4)[: len(first)]
    assert blob.file_place() is None
    go.set()
    assert first + b"".join(chunks) == DATA * 4
    assert blob.file_place() is not None
    assert supply.asked == [(3_000_000, 3_000_010), (0, 4 * SIZE)]
    assert b"".join(blob.unverified_chunks()) == DATA * 4


def test_bytes_that_arrive_in_order_end_with_the_error() -> None:
    supply = MemorySupply(DATA)
    supply.data = bytes(SIZE)
    with pytest.raises(FetchFailed, match="the digest is wrong"):
        list(RemoteBlob(SIZE, supply).unverified_chunks())
    supply.before = once(RegistryError("gone"))
    with pytest.raises(FetchFailed, match="gone"):
        list(RemoteBlob(SIZE, supply).unverified_chunks())


def test_a_blob_for_which_the_cache_has_no_room_is_stored_elsewhere() -> None:
    for read in WAYS:
        supply = MemorySupply(DATA)
        supply.cached_room = SIZE // 2
        blob = RemoteBlob(SIZE, supply)
        assert bytes(read(blob)) == DATA
        blob.fetch()
        assert supply.kept == []
        blob.close()


def test_readers_that_are_refused_at_the_same_time_go_on_elsewhere() -> None:
    supply = MemorySupply(DATA)
    supply.cached_room = 0
    both = threading.Barrier(2)
    supply.before = lambda _start, _end: both.wait(10) if not supply.outside else None
    blob = RemoteBlob(SIZE, supply)
    with ThreadPoolExecutor(2) as pool:
        read = pool.map(lambda start: blob.unverified_range(start, 1000), (0, 500_000))
        assert [*map(bytes, read)] == [DATA[:1000], DATA[500_000:501_000]]
    assert supply.outside == 1
    blob.close()


def test_wrong_copies_are_not_taken_once_more_elsewhere() -> None:
    class Wrong:
        def of(self, wanted: Ranges) -> Iterator[tuple[int, Bytes]]:
            for start, end in wanted:
                yield start, bytes(end - start)

    class Tight(MemorySupply):
        def room(self, *, cached: bool) -> Room | None:
            room = super().room(cached=cached)
            return None if room is None else room._replace(copies=Wrong(), grow=lambda _: not self.asked)

    supply = Tight(DATA)
    supply.cached_room = 0
    blob = RemoteBlob(SIZE, supply)
    assert bytes(blob.unverified_range(0, 1000)) == bytes(1000)
    blob.drop_range(0, 1000)
    assert bytes(blob.unverified_range(0, 1000)) == DATA[:1000]
    assert blob.read_at(0, SIZE) == DATA
    assert supply.outside == 1
    assert supply.again == [1, 0, 0]  # where they came from is not known
    blob.close()


def test_a_full_disk_outside_of_the_cache_is_an_error_that_loses_nothing() -> None:
    class Full(MemorySupply):
        def room(self, *, cached: bool) -> Room | None:
            return None if cached else super().room(cached=False)

    supply = Full(DATA)
    blob = RemoteBlob(SIZE, supply)
    assert blob.unverified_range(0, 1000) == DATA[:1000]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(FetchFailed):
            blob.unverified_range(500_000, 1000)
        supply.asked.clear()
        assert blob.unverified_range(0, 1000) == DATA[:1000]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (supply.asked, supply.outside) == ([], 1)
    blob.close()


def test_a_full_disk_is_told_from_other_errors() -> None:
    class Full(MemorySupply):
        def room(self, *, cached: bool) -> Room:  # noqa: ARG002
            raise NoSpace("full")

    for read in WAYS:
        with pytest.raises(FetchFailed) as caught:
            read(RemoteBlob(SIZE, Full(DATA)))
        assert caught.value.errno == errno.ENOSPC
        assert isinstance(caught.value.error, NoSpace)


def test_a_blob_that_is_stored_is_not_fetched() -> None:
    class Stored(MemorySupply):
        def stored(self) -> OpenFile:
            return memory_file(DATA)

    for read in WAYS:
        supply = Stored(DATA)
        assert bytes(read(RemoteBlob(SIZE, supply))) == DATA
        assert supply.asked == []


def test_a_file_is_closed_after_the_last_fetch_that_writes_to_it() -> None:
    supply = MemorySupply(DATA)
    reached, go = threading.Event(), threading.Event()

    def before(_start: int, _end: int) -> None:
        reached.set()
        go.wait()

    supply.before = before
    file = memory_file()
    supply.room = lambda *, cached: Room(file, "here")  # type: ignore[method-assign]  # noqa: ARG005
    blob = RemoteBlob(SIZE, supply)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(blob.unverified_range, 0, 1000)
        reached.wait()
        blob.close()
        assert file.descriptor >= 0
        go.set()
        assert isinstance(reading.exception(), OSError)
    assert file.descriptor == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        blob.unverified_range(0, 1)


def test_random_readers_get_the_right_bytes_and_each_is_fetched_once() -> None:
    draw = random.Random(5)
    for _ in range(20):
        supply = MemorySupply(DATA, step=draw.choice([700, 5000, 100_000]))
        blob = RemoteBlob(SIZE, supply)
        places = [(draw.randrange(SIZE), draw.choice([1, 1000, 70_000, 300_000])) for _ in range(60)]
        with ThreadPoolExecutor(8) as pool:
            reads = [pool.submit(blob.unverified_range, *place) for place in places]
            whole = pool.submit(blob.read_at, 0, SIZE)
            assert [bytes(read.result()) for read in reads] == [DATA[start : start + size] for start, size in places]
            assert whole.result() == DATA
        assert sum(end - start for start, end in supply.asked) < 2 * SIZE  # but for gaps between pieces


@pytest.mark.parametrize("size", [0, 1, 1 << 17, 1 << 20, (1 << 20) + 1, 5_000_001])
def test_steps_cover_all_bytes_and_are_small_at_the_end(size: int) -> None:
    steps = [*_steps(size)]
    bounds = [0, *(end for _, end in steps)]
    assert steps == [*itertools.pairwise(bounds)]
    assert bounds[-1] == size
    assert all(end - start <= 1 << 17 for start, end in steps[-1:])
    assert len(steps) <= (size >> 20) + 9
