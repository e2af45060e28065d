"""Bytes of another machine, fetched by several threads at the same time."""

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fusefs.content.file import OpenFile
from fusefs.content.pieces import FetchFailed, Pieces, Room, Take
from fusefs.errors import RegistryError
from fusefs.ranges import Ranges
from tests.support.processes import until

DATA = random.Random(1).randbytes(8000)
READERS, SENT_AT_ONCE = 8, 500


def test_a_server_that_ignores_ranges_sends_everything_once_however_many_wait(tmp_path: Path) -> None:
    asked, one_at_a_time = threading.Barrier(READERS), threading.Lock()
    sent = []

    def receive(_start: int, _end: int, take: Take) -> None:
        asked.wait(10)  # all have asked before the first one learns that ranges are ignored
        with one_at_a_time:
            for offset in range(0, len(DATA), SENT_AT_ONCE):
                sent.append(offset)
                take(offset, DATA[offset : offset + SENT_AT_ONCE])

    file = OpenFile(os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT), "the blob")
    pieces = Pieces(Room(file, str(tmp_path)), len(DATA), receive)
    size = len(DATA) // READERS
    with ThreadPoolExecutor(READERS) as readers:
        read = readers.map(lambda number: bytes(pieces.read(number * size, size)), range(READERS))
        assert b"".join(read) == DATA
    pieces.close()
    assert len(sent) == len(DATA) // SENT_AT_ONCE + READERS - 1  # each other answer ends at its first bytes


def test_a_file_that_may_not_grow_asks_seldom_and_keeps_its_limit(tmp_path: Path) -> None:
    limit, asked = 5 << 20, []
    file = OpenFile(os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT), "the blob")

    def grow(more: int) -> bool:
        asked.append(more)
        return os.fstat(file.descriptor).st_blocks * 512 + more <= limit

    size, piece = 32 << 20, 1 << 16
    pieces = Pieces(
        Room(file, str(tmp_path), piece, grow), size, lambda start, end, take: take(start, bytes(end - start))
    )

    def read() -> None:
        for offset in range(0, size, 2 * piece):
            pieces.read(offset, piece)

    with pytest.raises(FetchFailed, match="not enough space"):
        read()
    occupied = os.fstat(file.descriptor).st_blocks * 512
    assert limit - (1 << 17) <= occupied <= limit
    assert len(asked) < 40  # there are 80 pieces
    pieces.close()


def test_what_is_fetched_again_needs_no_more_room(tmp_path: Path) -> None:
    file = OpenFile(os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT), "the blob")
    pieces = Pieces(
        Room(file, str(tmp_path), len(DATA)), len(DATA), lambda start, end, take: take(start, DATA[start:end])
    )
    for _ in range(3):
        assert pieces.read(0, len(DATA)) == DATA
        pieces.drop(0, len(DATA))
    pieces.close()


def test_the_notes_never_name_what_was_dropped_before_they_were_written(tmp_path: Path) -> None:
    noted = Ranges()

    class Slow:
        def add(self, start: int, end: int) -> None:
            pieces.drop(start + 100, end - 100)  # a reader was faster
            noted.add(start, end)

        def remove(self, start: int, end: int) -> None:
            noted.remove(start, end)

        def fetching(self, *, everything: bool) -> None:
            pass

    file = OpenFile(os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT), "the blob")
    room = Room(file, str(tmp_path), notes=Slow())
    go_on = iter([True])

    def receive(start: int, end: int, take: Take) -> None:
        if not next(go_on, False):
            raise RegistryError("no more")
        take(start, DATA[start:end])

    pieces = Pieces(room, len(DATA), receive)
    with pytest.raises(FetchFailed, match="no more"):
        pieces.read(1000, 1000)
    assert [*noted] == [*pieces.present] == [(1000, 1100), (1900, 2000)]
    pieces.close()


@pytest.mark.parametrize("wanted", [(100, 200), (3000, 4000), (0, 8000)])
def test_who_waits_for_a_fetch_of_more_bytes_asks_alone_if_that_fails(tmp_path: Path, wanted: tuple[int, int]) -> None:
    asked, began, go = list[tuple[int, int]](), threading.Event(), threading.Event()

    def receive(start: int, end: int, take: Take) -> None:
        asked.append((start, end))
        if start <= 5000 < end:
            began.set()
            go.wait()
            raise RegistryError("no such byte")
        take(start, DATA[start:end])

    file = OpenFile(os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT), "the blob")
    pieces = Pieces(Room(file, str(tmp_path)), len(DATA), receive)
    with ThreadPoolExecutor(2) as threads:
        everything = threads.submit(pieces.read, 0, len(DATA))
        began.wait()
        some = threads.submit(pieces.read, wanted[0], wanted[1] - wanted[0])
        until(lambda: len(pieces._changed._waiters) == 1, "the second one waits")  # type: ignore[attr-defined]
        go.set()
        with pytest.raises(FetchFailed) as caught:
            everything.result()
        assert not caught.value.shared
        if wanted == (0, 8000):
            with pytest.raises(FetchFailed) as caught:
                some.result()
            assert caught.value.shared
        else:
            assert bytes(some.result()) == DATA[slice(*wanted)]
    assert asked == [(0, 8000), *([] if wanted == (0, 8000) else [wanted])]
    pieces.close()


def test_who_waits_for_others_in_vain_asks_once_and_no_more(tmp_path: Path) -> None:
    asked, go = list[tuple[int, int]](), threading.Event()

    def receive(start: int, end: int, _: Take) -> None:
        asked.append((start, end))
        go.wait()
        raise RegistryError("no such byte")

    file = OpenFile(os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT), "the blob")
    pieces = Pieces(Room(file, str(tmp_path)), len(DATA), receive)
    with ThreadPoolExecutor(READERS) as threads:
        first = threads.submit(pieces.read, 0, len(DATA))
        until(lambda: bool(asked), "the first one asks")
        others = [threads.submit(pieces.read, number * 100, 1000) for number in range(READERS - 1)]
        until(lambda: len(pieces._changed._waiters) == READERS - 1, "the others wait")  # type: ignore[attr-defined]
        go.set()
        for reader in (first, *others):
            with pytest.raises(FetchFailed, match="no such byte"):
                reader.result(10)
    assert len(asked) <= READERS
    pieces.close()


def test_a_reader_of_a_bad_byte_costs_others_nothing(tmp_path: Path) -> None:
    over = threading.Event()

    def receive(start: int, end: int, take: Take) -> None:
        if start <= 5000 < end:
            over.wait(0.002)
            raise RegistryError("no such byte")
        take(start, DATA[start:end])

    file = OpenFile(os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT), "the blob")
    pieces = Pieces(Room(file, str(tmp_path)), len(DATA), receive)

    def read_all() -> None:
        while not over.is_set():
            with pytest.raises(FetchFailed):
                pieces.read(0, len(DATA))

    with ThreadPoolExecutor(1) as threads:
        everything = threads.submit(read_all)
        try:
            for offset in range(0, 4000, 50):
                assert bytes(pieces.read(offset, 50)) == DATA[offset : offset + 50]
        finally:
            over.set()
        everything.result(10)
    pieces.close()
