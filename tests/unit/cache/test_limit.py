"""The limit of the cache while files grow: what is reserved counts, in whatever process files grow at the same time."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusefs.cache.entry import CacheEntry
from fusefs.cache.part import own_part
from fusefs.cache.store import BLOBS, FILES, Cache
from tests.support.caches import ABOUT, claim, keys, make
from tests.support.conformance import closing_what_is_opened

MIB = 1 << 20
LIMIT = 8 * MIB
SLACK = 1 << 16
"""More than all documents take."""


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


@pytest.fixture(name="cache")
def cache_fixture(tmp_path: Path) -> Cache:
    """A cache of 8 MiB."""
    return Cache(str(tmp_path / "cache"), LIMIT)


def blob(cache: Cache, key: str) -> CacheEntry:
    """Return an entry that several processes may fill."""
    return cache.shared(BLOBS, key)[0]


def part(entry: CacheEntry) -> int:
    """Return the file in which a blob arrives."""
    own = own_part(entry)
    assert own is not None
    return own.descriptor


def cached(cache: Cache) -> int:
    """Return what the entries take."""
    return sum(path.stat().st_blocks * 512 for path in Path(cache.path).glob("*/*/*"))


@pytest.mark.parametrize("named", ["named", ""])
def test_what_is_reserved_counts_as_long_as_the_file_is_open(cache: Cache, named: str) -> None:
    entry = blob(cache, "a")
    file = part(entry) if named else entry.new_file()
    left = entry.grow(file, 4 * MIB)
    assert left is not None
    assert 4 * MIB <= left < LIMIT - 3 * MIB
    for written in range(4):  # it counts once, whether it is written or not
        assert cache.room(LIMIT - left - SLACK)
        assert not cache.room(LIMIT - left + 1)
        os.pwrite(file, bytes(MIB), written * MIB)
    assert entry.grow(file, 5 * MIB) is None
    assert entry.grow(file, 4 * MIB - SLACK) is not None
    os.close(file)
    assert cache.room(LIMIT - (4 * MIB if named else 0) - SLACK)


def test_of_a_large_blob_the_first_bytes_alone_are_reserved(cache: Cache) -> None:
    entry = blob(cache, "a")
    assert entry.grow(part(entry), LIMIT, MIB) is None
    other = blob(cache, "b")
    assert other.grow(part(other), LIMIT - SLACK, MIB) == MIB
    assert cache.room(LIMIT - MIB - SLACK)
    assert not cache.room(LIMIT - MIB + 1)


@pytest.mark.parametrize("processes", [1, 2])
def test_files_that_grow_at_the_same_time_share_the_limit(cache: Cache, processes: int) -> None:
    caches = [cache, cache if processes == 1 else Cache(cache.path, LIMIT)]
    entries = [blob(one, key) for one, key in zip(caches, "ab", strict=True)]
    files = [part(entry) for entry in entries]
    for written in range(20):
        for entry, file in zip(entries, files, strict=True):
            if entry.grow(file, MIB // 2, MIB // 2) is not None:
                os.pwrite(file, bytes(MIB // 2), written * MIB // 2)
    assert LIMIT - 2 * MIB < cached(cache) <= LIMIT


@pytest.mark.parametrize("was", [None, "part"])
def test_what_another_process_has_left_no_room_for_is_not_cached(cache: Cache, was: str | None) -> None:
    entries = [blob(one, key) for one, key in ((cache, "a"), (Cache(cache.path, LIMIT), "b"))]
    files = [part(entry) if was else entry.new_file() for entry in entries]
    for entry, file in zip(entries, files, strict=True):
        assert entry.grow(file, 5 * MIB) is not None  # neither process knows what the other one will write
    for file in files:
        os.write(file, bytes(5 * MIB))
    for entry, file in zip(entries, files, strict=True):
        entry.add("blob", file, was)
    assert sum((Path(entry.path) / "blob").exists() for entry in entries) == 1
    assert cached(cache) <= LIMIT


def test_a_file_that_asked_for_no_room_while_it_grew_is_not_cached_without(cache: Cache) -> None:
    entry, _ = cache.archive("a")
    assert cache.room(MIB)  # after which a look at all entries is not necessary for a while
    for number in range(20):
        file = entry.new_file()
        os.write(file, bytes(MIB))
        entry.add(f"{number}.layer", file)
        os.close(file)
    assert LIMIT - 2 * MIB < cached(cache) <= LIMIT


def test_an_engines_image_that_another_process_has_left_no_room_for_is_not_cached(cache: Cache) -> None:
    entry, _ = claim(cache)
    tar, other = entry.new_file(), part(blob(Cache(cache.path, LIMIT), "b"))
    assert entry.grow(tar, 5 * MIB) is not None
    for file in (tar, other):
        os.write(file, bytes(5 * MIB))
    entry.complete({"about": ABOUT}, tar)
    assert keys(Path(cache.path)) == []


def test_a_file_for_which_there_is_no_room_does_not_count_even_if_another_one_gets_its_number_and_inode(
    cache: Cache, tmp_path: Path
) -> None:
    entry = blob(cache, "a")
    file = entry.new_file()
    assert entry.grow(file, LIMIT) is None
    inode = os.fstat(file).st_ino
    os.close(file)
    other = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(other, bytes(LIMIT))
    assert other == file
    if os.fstat(other).st_ino != inode:
        pytest.skip("the file system gives another inode")
    assert cache.room(LIMIT - SLACK)


def test_room_is_made_for_a_growing_file_as_it_grows(cache: Cache) -> None:
    for key in "abc":
        make(cache, key, bytes(2 * MIB)).close()
        os.utime(f"{cache.path}/saved/{key}/index", (ord(key), ord(key)))
    entry, _ = cache.shared(FILES, "grows")
    file = entry.new_file()
    found = []
    for _ in range(4):
        assert entry.grow(file, 2 * MIB - SLACK, 2 * MIB - SLACK) is not None
        os.write(file, bytes(2 * MIB - SLACK))
        found.append("".join(keys(Path(cache.path))))
    assert found == ["abc", "bc", "c", ""]


def test_a_tenth_of_the_disk_stays_free_while_files_grow(tmp_path: Path) -> None:
    @dataclass
    class Disk:
        f_bavail: int
        f_blocks: int = 100
        f_frsize: int = MIB

    disk = Disk(20)
    cache = Cache(str(tmp_path / "cache"), statvfs=lambda _: disk)  # type: ignore[arg-type,return-value]
    entries = [blob(cache, key) for key in "ab"]
    files = [part(entries[0]), entries[1].new_file()]
    assert entries[0].grow(files[0], 6 * MIB, 6 * MIB) is not None
    assert entries[1].grow(files[1], 4 * MIB) is None
    for entry, file in zip(entries, files, strict=True):
        assert entry.grow(file, 4 * MIB, 4 * MIB) is not None
        os.write(file, bytes(4 * MIB))
        disk.f_bavail -= 4
    assert [entry.grow(file, 2 * MIB) for entry, file in zip(entries, files, strict=True)] == [None, None]
