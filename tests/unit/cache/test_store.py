"""The cache by itself: what counts, what is shared, and what goes."""

import contextlib
import errno
import json
import os
import resource
import stat
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusefs.cache.entry import CacheEntry
from fusefs.cache.part import own_part
from fusefs.cache.sealed_file import read_document, write_document
from fusefs.cache.store import Cache
from fusefs.errors import LimitReached, NoSpace
from tests.conftest import TakeWarnings
from tests.support.caches import ABOUT, claim, kept, keys, make
from tests.support.conformance import closing_what_is_opened
from tests.support.processes import until

MIB = 1 << 20


@dataclass
class Disk:
    """What statvfs(3) tells."""

    f_bavail: int
    f_blocks: int = 1000
    f_frsize: int = MIB


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


@pytest.fixture(name="path")
def cache_path(tmp_path: Path) -> Path:
    """Where the cache is to be."""
    return tmp_path / "cache"


def layer(entry: CacheEntry, name: str = "1.layer", data: bytes = b"index") -> None:
    """Keep a file besides the tar."""
    file = entry.new_file()
    os.write(file, data)
    entry.add(name, file)
    os.close(file)


def read(descriptor: int | None) -> bytes | None:
    """Return the bytes of a cached file."""
    return None if descriptor is None else os.pread(descriptor, 100, 0)


def test_what_was_completed_is_there_the_next_time(path: Path) -> None:
    make(path).close()
    entry, facts = claim(path)
    assert facts is not None
    assert facts["about"] == ABOUT
    assert (path / "saved" / "a" / "tar").read_bytes() == b"the tar"
    layer(entry)
    assert read(entry.open_cached("1.layer")) == b"index"
    assert entry.open_cached("2.layer") is None


def test_the_cache_is_private_and_says_what_it_is(path: Path) -> None:
    make(path)
    modes = {p.relative_to(path): stat.S_IMODE(p.stat().st_mode) for p in (path, *path.rglob("*"))}
    assert {str(name): oct(mode) for name, mode in modes.items()} == {
        ".": "0o700", "CACHEDIR.TAG": "0o600", "lock": "0o600",
        "saved": "0o700", "files": "0o700", "blobs": "0o700", "tags": "0o700",
        "saved/a": "0o700", "saved/a/tar": "0o600", "saved/a/index": "0o600",
    }  # fmt: skip
    assert (path / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")


def test_an_entry_that_is_not_completed_is_nothing(path: Path) -> None:
    entry, _ = claim(path)
    os.write(entry.new_file(), b"x" * 1000)
    entry.abandon()
    assert keys(path) == []
    entry.abandon()
    assert entry.room(1) == 0


def test_what_a_killed_maker_leaves_does_not_count_and_goes(path: Path) -> None:
    folder = path / "saved" / "a"
    entry, _ = claim(path)
    (folder / "tar").write_bytes(b"half")
    (folder / "1.layer").write_bytes(b"half")
    os.close(entry.directory)  # its end
    assert Cache(str(path)).prune(everything=False) > 0
    assert keys(path) == []
    make(path, "b").close()
    (path / "saved" / "b" / "1.layer").write_bytes(b"half")
    (path / "saved" / "b" / "2.layer.seal").write_bytes(b"half")
    make(path, "c").close()  # whatever is kept sweeps
    assert sorted(os.listdir(path / "saved" / "b")) == ["index", "tar"]


def test_what_a_killed_mount_left_of_a_layer_is_no_hindrance(path: Path) -> None:
    entry = make(path)
    (path / "saved" / "a" / "1.layer").write_bytes(b"half")
    assert entry.open_cached("1.layer") is None
    layer(entry)
    assert read(entry.open_cached("1.layer")) == b"index"


def _touch(file: Path) -> None:
    os.utime(file)


def _overwrite(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"!")


def _overwrite_secretly(file: Path) -> None:
    before = file.stat()
    _overwrite(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def _replace(file: Path) -> None:
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    copy.rename(file)


def _link(file: Path) -> None:
    target = file.parent.parent / "moved"
    file.rename(target)
    file.symlink_to(target)


def _remove(file: Path) -> None:
    file.unlink()


ALTERATIONS = [_overwrite, _overwrite_secretly, _cut, _replace, _link, _touch, _remove]


@pytest.mark.parametrize("alter", ALTERATIONS)
def test_an_entry_whose_tar_was_altered_is_dropped_with_a_word_and_made_anew(
    path: Path, take_warnings: TakeWarnings, alter: Callable[[Path], None]
) -> None:
    make(path).close()
    alter(path / "saved" / "a" / "tar")
    make(path, data=b"another").close()
    (warning,) = take_warnings()
    assert warning.startswith(f"{path}/saved/a: dropped: tar")
    assert kept(path)


@pytest.mark.parametrize("alter", [_overwrite, _cut, _link])
def test_so_is_one_whose_index_was_altered(
    path: Path, take_warnings: TakeWarnings, alter: Callable[[Path], None]
) -> None:
    make(path).close()
    alter(path / "saved" / "a" / "index")
    make(path, data=b"another").close()
    (warning,) = take_warnings()
    assert warning.startswith(f"{path}/saved/a: dropped: index")
    assert kept(path)


@pytest.mark.parametrize("data", [b"", b"{}", b"imgfs cache 99 " + b"0" * 64 + b"\n{}", b"\0" * 200])
def test_so_is_one_of_another_version(path: Path, take_warnings: TakeWarnings, data: bytes) -> None:
    make(path).close()
    (path / "saved" / "a" / "index").write_bytes(data)
    make(path).close()
    assert take_warnings() == [f"{path}/saved/a: dropped: index was written by another version of imgfs"]


@pytest.mark.parametrize("alter", ALTERATIONS)
def test_a_layer_that_was_altered_is_dropped_alone(
    path: Path, take_warnings: TakeWarnings, alter: Callable[[Path], None]
) -> None:
    entry = make(path)
    layer(entry)
    layer(entry, "2.layer")
    alter(path / "saved" / "a" / "1.layer")
    assert entry.open_cached("1.layer") is None
    (warning,) = take_warnings()
    assert warning.startswith(f"{path}/saved/a: dropped 1.layer: 1.layer")
    assert entry.open_cached("1.layer") is None
    layer(entry, data=b"anew")
    assert read(entry.open_cached("1.layer")) == b"anew"
    assert read(entry.open_cached("2.layer")) == b"index"


def test_two_mounts_that_make_one_layer_keep_the_first(path: Path) -> None:
    entry = make(path)
    other, _ = claim(path)
    layer(entry, data=b"1")
    layer(other, data=b"2")
    assert (read(entry.open_cached("1.layer")), read(other.open_cached("1.layer"))) == (b"1", b"1")


@contextlib.contextmanager
def waiting_for(path: Path, number: int) -> Iterator[list[object]]:
    """Let *number* others ask for an entry that somebody makes in the block, and give the indexes that they get."""
    told = threading.Event()
    found: list[object] = []

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        told.set()
        yield

    def ask() -> None:
        found.append(Cache(str(path)).saved("a", waiting)[1])

    others = [threading.Thread(target=ask) for _ in range(number)]
    for other in others:
        other.start()
    assert told.wait(10)
    assert found == []
    yield found
    for other in others:
        other.join(10)


def test_who_comes_while_an_entry_is_made_waits_and_shares_it(path: Path) -> None:
    maker, _ = claim(path)
    with waiting_for(path, 3) as found:
        file = maker.new_file()
        os.write(file, b"the tar")
        maker.complete({"about": ABOUT}, file)
    assert [isinstance(facts, dict) and facts["about"] for facts in found] == [ABOUT] * 3


def test_who_waits_for_a_maker_that_gives_up_makes_it(path: Path) -> None:
    maker, _ = claim(path)
    with waiting_for(path, 1) as found:
        maker.abandon()
    assert found == [None]


def test_one_who_uses_what_was_altered_meanwhile_keeps_nobody_waiting(path: Path, take_warnings: TakeWarnings) -> None:
    user = make(path)
    _touch(path / "saved" / "a" / "tar")
    second = make(path, data=b"another")
    assert len(take_warnings()) == 1
    assert (path / "saved" / "a" / "tar").read_bytes() == b"another"
    assert len(keys(path)) == 2
    user.close()
    second.close()
    Cache(str(path)).trim()
    assert keys(path) == ["a"]
    assert kept(path)


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


def test_a_cache_that_is_removed_meanwhile_is_no_longer_used(path: Path) -> None:
    entry = make(path)
    subprocess.run(["rm", "-r", path], check=True)
    with pytest.raises(NoSpace, match=r"^cannot write in "):
        entry.new_file()
    assert entry.open_cached("1.layer") is None


def test_a_lock_goes_with_the_descriptor_and_not_to_programs_that_are_started(path: Path) -> None:
    entry = make(path)
    with subprocess.Popen(["sleep", "60"]) as child:
        until(lambda: os.readlink(f"/proc/{child.pid}/exe").endswith("sleep"), "the program runs")
        entry.close()
        Cache(str(path)).prune(everything=True)
        child.kill()
    assert keys(path) == []


def test_an_archive_is_described_once_and_by_whoever_comes(path: Path) -> None:
    first, facts = Cache(str(path)).archive("k")
    second, other = Cache(str(path)).archive("k")
    assert (facts, other) == (None, None)
    about = {"path": "/x", "created_ns": 0}
    first.complete({"about": about, "n": 1})
    second.complete({"about": about, "n": 2})
    (kept_one,) = Cache(str(path)).entries()
    assert (kept_one.kind, kept_one.key, kept_one.about, kept_one.in_use) == ("files", "k", about, True)
    _, facts = Cache(str(path)).archive("k")
    assert facts == {"about": about, "n": 1}
    assert json.dumps(facts)


def test_a_document_takes_memory_by_its_size(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    write_document(folder, "document", {"a": 1})
    tracemalloc.start()
    try:
        assert read_document(folder, "document") == {"a": 1}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(folder)
    assert peak < 1 << 20


def test_too_few_descriptors_are_no_fault_of_the_cache(path: Path) -> None:
    free = os.open("/", os.O_RDONLY)  # the lowest free number
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))
    try:
        with pytest.raises(LimitReached, match="too many open files"):
            Cache(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_document_is_replaced_or_stays(path: Path) -> None:
    path.mkdir()
    directory = os.open(path, os.O_RDONLY)
    write_document(directory, "facts", {"number": 1}, replace=True)
    (path / "facts.new").write_bytes(b"left by a kill")
    write_document(directory, "facts", {"number": 2}, replace=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_document(directory, "facts", {"number": 3}, replace=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_document(directory, "facts") == {"number": 2}
    assert [*path.iterdir()] == [path / "facts"]
    with pytest.raises(FileExistsError):
        write_document(directory, "facts", {})
    os.close(directory)
