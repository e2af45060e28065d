"""The files of an entry in which a blob arrives, and their notes."""

import os
import random
import resource
from pathlib import Path

import pytest

from fusefs.cache.entry import CacheEntry
from fusefs.cache.part import Fetching, Part, others_part, own_part, part_size, read_notes
from fusefs.cache.store import Cache
from fusefs.ranges import Ranges

SIZE = 10_000


@pytest.fixture(name="entry")
def entry_fixture(tmp_path: Path) -> CacheEntry:
    """Give an entry that is complete, so that it stays."""
    entry, _ = Cache(str(tmp_path / "cache")).shared("blobs", "sha256-a")
    entry.complete({"about": {}})
    return entry


def _own(entry: CacheEntry, *ranges: tuple[int, int]) -> Part:
    part = own_part(entry, SIZE)
    assert part is not None
    for start, end in ranges:
        os.pwrite(part.descriptor, b"x" * (end - start), start)
        part.add(start, end)
    return part


def _end(*parts: Part) -> None:
    """Do what the end of a process does."""
    for part in parts:
        part.close()
        os.close(part.descriptor)


def _ranges(entry: CacheEntry, name: str = "part") -> list[tuple[int, int]] | None:
    notes = read_notes(entry.directory, name, None)
    return None if notes is None else [*notes.ranges]


def test_the_next_owner_goes_on(entry: CacheEntry) -> None:
    first = _own(entry, (0, 10), (100, 200))
    first.remove(110, 120)
    _end(first)
    second = _own(entry, (110, 115))
    assert [*second.present] == [(0, 10), (100, 110), (120, 200)]
    assert _ranges(entry) == [(0, 10), (100, 115), (120, 200)]
    assert part_size(entry.directory, SIZE) == (10 + 15 + 80, SIZE)


def test_bytes_in_order_are_one_record(entry: CacheEntry) -> None:
    _own(entry, *((start, start + 10) for start in range(0, SIZE, 10)))
    assert _ranges(entry) == [(0, SIZE)]
    assert os.stat("part.seal", dir_fd=entry.directory).st_size < 100


def test_who_reads_the_notes_now_and_then_knows_what_is_there(entry: CacheEntry) -> None:
    draw, expected, notes = random.Random(1), Ranges(), None
    part = _own(entry)
    for _ in range(3000):
        start = draw.choice([*(end for _, end in expected), draw.randrange(SIZE)]) % SIZE
        end = min(SIZE, start + draw.randrange(1, 50))
        if draw.random() < 0.3:
            part.remove(start, end)
            expected.remove(start, end)
        else:
            part.add(start, end)
            expected.add(start, end)
        if draw.random() < 0.2:
            notes = read_notes(entry.directory, "part", notes)
            assert notes is not None
            assert [*notes.ranges] == [*expected]


def test_notes_of_another_file_with_the_same_name_are_read_from_their_beginning(entry: CacheEntry) -> None:
    first = _own(entry, (0, 100), (400, 500))
    notes = read_notes(entry.directory, "part", None)
    for name in ("part", "part.seal"):
        os.unlink(name, dir_fd=entry.directory)
    _end(first)  # a file system may use its inodes for the next files
    _own(entry, (200, 300), (600, 700), (800, 900))
    again = read_notes(entry.directory, "part", notes)
    assert again is not None
    assert [*again.ranges] == [(200, 300), (600, 700), (800, 900)]


@pytest.mark.parametrize("damage", ["no notes", "half a header", "another magic", "other file", "no bytes"])
def test_what_is_damaged_begins_anew(entry: CacheEntry, damage: str) -> None:
    _end(_own(entry, (0, 10)))
    folder = Path(f"/proc/self/fd/{entry.directory}")
    part, notes = folder / "part", folder / "part.seal"
    if damage == "no notes":
        notes.unlink()
    elif damage == "no bytes":
        os.truncate(part, 0)
    elif damage == "other file":
        part.rename(folder / "elsewhere")
        part.write_bytes(bytes(10))
    else:
        notes.write_bytes(notes.read_bytes()[:20] if damage == "half a header" else bytes(100))
    again = _own(entry)
    assert not again.present
    assert _ranges(entry) == []
    assert part.stat().st_size == 0


def test_half_a_record_is_overwritten(entry: CacheEntry) -> None:
    _end(_own(entry, (0, 10)))
    with Path(f"/proc/self/fd/{entry.directory}/part.seal").open("ab") as notes:
        notes.write(b"half")
    part = _own(entry, (20, 30))
    assert [*part.present] == [(0, 10)]
    assert _ranges(entry) == [(0, 10), (20, 30)]


def test_bytes_that_a_crash_took_are_not_there(entry: CacheEntry) -> None:
    _end(_own(entry, (0, 1000)))
    os.truncate(f"/proc/self/fd/{entry.directory}/part", 600)
    assert [*_own(entry).present] == [(0, 600)]


def test_the_fullest_free_file_is_taken_and_those_with_nothing_else_go(entry: CacheEntry) -> None:
    parts = _own(entry, (0, 10)), _own(entry, (0, 100)), _own(entry, (95, 105)), _own(entry)
    assert len({part.name for part in parts}) == 4
    _end(*parts)
    assert _own(entry).name == parts[1].name
    left = sorted(os.listdir(entry.directory))
    assert left == ["index", "part-2", "part-2.seal", "part-3", "part-3.seal"]
    assert part_size(entry.directory, SIZE) == (105, SIZE)


def test_there_are_eight_at_most(entry: CacheEntry) -> None:
    parts = [_own(entry) for _ in range(8)]
    assert own_part(entry, SIZE) is None
    _end(parts[3])
    assert _own(entry).name == parts[3].name


def test_the_one_who_fetches_everything_is_seen_until_it_ends(entry: CacheEntry) -> None:
    pieces, whole = _own(entry, (0, 10)), _own(entry, (0, 5))
    assert others_part(entry) is None
    whole.tell(Fetching.EVERYTHING)
    seen = others_part(entry)
    assert seen is not None
    assert seen.descriptor is None
    whole.tell(Fetching.VERIFIED)
    seen = others_part(entry)
    assert seen is not None
    assert seen.descriptor is not None
    assert os.pread(seen.descriptor, 9, 0) == b"xxxxx"
    os.close(seen.descriptor)
    whole.tell(Fetching.EVERYTHING)
    _end(whole)
    assert others_part(entry) is None
    _end(pieces)
    _own(entry)
    _own(entry)
    assert others_part(entry) is None  # what the last owner did does not count


def test_a_note_that_cannot_be_written_leaves_the_last_one(entry: CacheEntry) -> None:
    part = _own(entry, (0, 1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            part.add(5, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert part_size(entry.directory, SIZE) == (1, SIZE)


def test_nothing_is_noted_after_the_end(entry: CacheEntry) -> None:
    part = _own(entry, (0, 1))
    part.close()
    part.add(1, 2)
    part.remove(0, 1)
    part.tell(Fetching.VERIFIED)
    assert _ranges(entry) == [(0, 1)]
    assert others_part(entry) is None
