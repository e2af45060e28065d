"""The cache by itself: what counts, what is shared, and what goes."""

import contextlib
import json
import os
import resource
import shutil
import stat
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusefs.cache.sealed_file import read_document, write_document
from fusefs.cache.store import DEFAULT_LIMIT, Cache
from fusefs.errors import LimitReached, NoSpace
from tests.conftest import TakeWarnings
from tests.support.caches import ABOUT, claim, kept, keys, layer, make
from tests.support.processes import until

MIB = 1 << 20


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


@pytest.mark.parametrize(("everything", "limit"), [(False, DEFAULT_LIMIT), (False, 8 << 20), (False, 0), (True, 0)])
def test_what_would_be_pruned_is_what_is_pruned(
    path: Path, take_warnings: TakeWarnings, *, everything: bool, limit: int
) -> None:
    for number, key in enumerate(("whole", "leftovers", "altered", "used")):
        make(path, key, bytes(4 * MIB)).close()
        os.utime(path / "saved" / key / "index", (number, number + 1))
    (path / "saved" / "leftovers" / "1.layer").write_bytes(bytes(MIB))
    _touch(path / "saved" / "altered" / "tar")
    claim(path, "incomplete")[0].close()
    blob = path / "blobs" / "b"
    shutil.copytree(path / "saved" / "incomplete", blob)
    (blob / "part").write_bytes(bytes(MIB))
    user, _ = claim(path, "used")
    cache, before = Cache(str(path), limit), sorted(path.rglob("*"))
    would = cache.prunable(everything=everything)
    assert sorted(path.rglob("*")) == before
    assert cache.prune(everything=everything) == sum(removal.size for removal in would) > 6 * MIB
    gone = {(one.entry.kind, one.entry.key) for one in would if one.names is None}
    left = {(kind, key) for kind in ("saved", "blobs") for key in os.listdir(path / kind)}
    assert left == {(file.parent.name, file.name) for file in before if file.parent.parent == path} - gone
    assert cache.prunable(everything=everything) == []
    user.close()
    take_warnings()


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
