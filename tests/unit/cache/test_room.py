"""The room of the cache: its limit, the disk, and what goes for what comes."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusefs.cache.part import own_part
from fusefs.cache.store import Cache
from tests.conftest import TakeWarnings
from tests.support.caches import ABOUT, claim, keys, layer, make

MIB = 1 << 20


@dataclass
class Disk:
    """What statvfs(3) tells."""

    f_bavail: int
    f_blocks: int = 1000
    f_frsize: int = MIB


def _used(path: Path, key: str, seconds: int) -> None:
    os.utime(path / "saved" / key / "index", (seconds, seconds))


def test_the_least_recently_used_goes_first(path: Path) -> None:
    cache = Cache(str(path), 4 * MIB)
    for number, key in enumerate("abc"):
        make(cache, key, bytes(MIB)).close()
        _used(path, key, 1 + number)
    claim(cache, "a")[0].close()  # used again
    make(cache, "d", b"x" * MIB).close()
    assert keys(path) == ["a", "c", "d"]
    assert cache.room(2 * MIB - (1 << 16)) > 0
    assert keys(path) == ["a", "d"]


def test_nothing_goes_that_is_in_use(path: Path) -> None:
    cache = Cache(str(path), MIB + (1 << 16))
    user = make(cache, "a", b"x" * MIB)
    make(cache, "b", b"x" * MIB).close()
    cache.trim()
    assert keys(path) == ["a"]
    assert cache.prune(everything=True) == 0
    assert keys(path) == ["a"]
    user.close()
    assert cache.prune(everything=True) > MIB
    assert keys(path) == []


def test_what_would_not_fit_even_so_drives_nothing_out(path: Path) -> None:
    cache = Cache(str(path), 3 * MIB)
    user = make(cache, "a", b"x" * MIB)
    make(cache, "b", b"x" * MIB).close()
    assert cache.room(3 * MIB) == 0
    assert keys(path) == ["a", "b"]
    assert user.room(MIB) > MIB
    user.close()
    assert cache.room(3 * MIB) == 3 * MIB
    assert keys(path) == []


def test_what_does_not_fit_when_it_is_complete_is_not_cached(path: Path) -> None:
    cache = Cache(str(path), 3 * MIB)
    user, others = make(cache, "a", b"x" * MIB), make(cache, "b", b"x" * MIB)
    others.close()
    layer(user, "1.layer", b"x" * 3 * MIB)
    assert sorted(os.listdir(path / "saved" / "a")) == ["index", "tar"]
    assert keys(path) == ["a", "b"]  # nothing goes for nothing
    layer(user, "2.layer", b"x" * (3 * MIB // 2))
    assert sorted(os.listdir(path / "saved" / "a")) == ["2.layer", "2.layer.seal", "index", "tar"]
    assert keys(path) == ["a"]
    late, _ = claim(cache, "c")
    tar = late.new_file()
    os.write(tar, b"x" * MIB)
    late.complete({"about": ABOUT}, tar)
    assert keys(path) == ["a"]


@pytest.mark.parametrize(("size", "left"), [(2 * MIB, ["blob", "blob.seal"]), (3 * MIB, [])])
def test_what_has_grown_in_its_entry_counts_once(path: Path, size: int, left: list[str]) -> None:
    entry, _ = Cache(str(path), 2 * MIB + MIB // 2).shared("blobs", "sha256-a")
    own = own_part(entry, size)
    assert own is not None
    os.write(own.descriptor, b"x" * size)
    own.add(0, size)
    entry.add("blob", own.descriptor, of_parts=True)
    assert sorted(os.listdir(path / "blobs" / "sha256-a")) == left
    os.close(own.descriptor)
    own.close()


def test_what_is_written_already_needs_no_more_of_the_disk(path: Path) -> None:
    disk = Disk(101)
    cache = Cache(str(path), statvfs=lambda _: disk)  # type: ignore[arg-type,return-value]
    make(cache, "old", b"x" * MIB).close()
    entry = make(cache, data=b"x" * 3 * MIB)
    layer(entry, data=b"x" * 3 * MIB)
    assert keys(path) == ["a", "old"]
    assert sorted(os.listdir(path / "saved" / "a")) == ["1.layer", "1.layer.seal", "index", "tar"]


def test_files_that_are_replaced_count_no_more(path: Path) -> None:
    entry, _ = Cache(str(path), 3 * MIB).shared("blobs", "sha256-a")
    parts = [own_part(entry, 2 * MIB) for _ in range(2)]
    for part in filter(None, parts):
        os.write(part.descriptor, b"x" * 2 * MIB)
    assert parts[0] is not None
    entry.add("blob", parts[0].descriptor, of_parts=True)
    assert sorted(os.listdir(path / "blobs" / "sha256-a")) == ["blob", "blob.seal"]


def test_the_beginning_of_what_can_never_fit_drives_nothing_out(path: Path) -> None:
    cache = Cache(str(path), 3 * MIB)
    for key in "ab":
        make(cache, key, b"x" * MIB).close()
    assert cache.room(2 * MIB, 4 * MIB) == 0
    assert keys(path) == ["a", "b"]
    assert cache.room(2 * MIB, 3 * MIB) > 0


def test_what_could_not_be_looked_at_keeps_its_files(
    path: Path, monkeypatch: pytest.MonkeyPatch, take_warnings: TakeWarnings
) -> None:
    entry, _ = Cache(str(path)).shared("blobs", "sha256-a")
    part = own_part(entry, 10)
    assert part is not None
    os.write(part.descriptor, bytes(10))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fusefs.cache.survey.each", fail)
    entry.add("blob", part.descriptor, of_parts=True)
    assert sorted(os.listdir(path / "blobs" / "sha256-a")) == ["part", "part.seal"]
    assert len(take_warnings()) == 1


def test_a_tenth_of_the_disk_stays_free(path: Path) -> None:
    disk = Disk(1000)
    cache = Cache(str(path), statvfs=lambda _: disk)  # type: ignore[arg-type,return-value]
    for number, key in enumerate("abc"):
        make(cache, key, b"x" * MIB).close()
        _used(path, key, 1 + number)
    disk.f_bavail = 110
    assert cache.room(10 * MIB) == 10 * MIB
    assert keys(path) == ["a", "b", "c"]
    assert cache.room(14 * MIB) == 0
    assert keys(path) == ["a", "b", "c"]
    assert cache.room(11 * MIB) > 11 * MIB
    assert keys(path) == ["b", "c"]
    disk.f_bavail = 99
    cache.trim()
    assert keys(path) == ["c"]
    disk.f_bavail = 20
    cache.trim()
    assert keys(path) == []
