"""The cache by itself: what counts, what is shared, what goes, and where it refuses to be."""

import contextlib
import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusefs.cache import Cache
from fusefs.cacheentry import Entry
from fusefs.errors import NoSpace
from tests.conformance import closing_what_is_opened
from tests.conftest import TakeWarnings
from tests.file_systems import tmpfs
from tests.processes import until
from tests.requirements import ROOT, need

MIB = 1 << 20
ABOUT = {"names": ["x:1"], "id": "sha256:1", "platform": "", "storage": "", "created_ns": 0}


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


@pytest.fixture(name="path")
def cache_path(tmp_path: Path) -> Path:
    """Where the cache is to be."""
    return tmp_path / "cache"


def claim(path: Path | Cache, key: str = "a") -> tuple[Entry, dict[str, object] | None]:
    """Return what another process gets that asks for *key*."""
    cache = path if isinstance(path, Cache) else Cache(str(path))
    return cache.saved(key, nullcontext)


def make(path: Path | Cache, key: str = "a", data: bytes = b"the tar") -> Entry:
    """Make the entry *key* with *data* as its tar, and use it."""
    entry, facts = claim(path, key)
    assert facts is None
    file = entry.new_file()
    os.write(file, data)
    entry.complete({"about": ABOUT}, file)
    os.close(file)
    return entry


def kept(path: Path, key: str = "a") -> bool:
    """Return whether *key* is kept; then nobody uses it afterwards."""
    entry, facts = claim(path, key)
    (entry.close if facts else entry.abandon)()
    return facts is not None


def keys(path: Path) -> list[str]:
    """Return the keys of what there is."""
    return sorted(os.listdir(path / "saved"))


def layer(entry: Entry, name: str = "1.layer", data: bytes = b"index") -> None:
    """Keep a file besides the tar."""
    file = entry.new_file()
    os.write(file, data)
    entry.keep(name, file, {"note": 7})
    os.close(file)


def read(found: tuple[int, dict[str, object]] | None) -> bytes | None:
    """Return the bytes of a kept file."""
    return None if found is None else os.pread(found[0], 100, 0)


def test_what_was_completed_is_there_the_next_time(path: Path) -> None:
    make(path).close()
    entry, facts = claim(path)
    assert facts is not None
    assert facts["about"] == ABOUT
    assert (path / "saved" / "a" / "tar").read_bytes() == b"the tar"
    layer(entry)
    found = entry.kept("1.layer")
    assert found is not None
    assert (read(found), found[1]["note"]) == (b"index", 7)
    assert entry.kept("2.layer") is None


def test_the_cache_is_private_and_says_what_it_is(path: Path) -> None:
    make(path)
    modes = {p.relative_to(path): stat.S_IMODE(p.stat().st_mode) for p in (path, *path.rglob("*"))}
    assert {str(name): oct(mode) for name, mode in modes.items()} == {
        ".": "0o700", "CACHEDIR.TAG": "0o600", "saved": "0o700", "files": "0o700",
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
    assert entry.kept("1.layer") is None
    layer(entry)
    assert read(entry.kept("1.layer")) == b"index"


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
    assert take_warnings() == [f"{path}/saved/a: dropped: index is of another version"]


@pytest.mark.parametrize("alter", ALTERATIONS)
def test_a_layer_that_was_altered_is_dropped_alone(
    path: Path, take_warnings: TakeWarnings, alter: Callable[[Path], None]
) -> None:
    entry = make(path)
    layer(entry)
    layer(entry, "2.layer")
    alter(path / "saved" / "a" / "1.layer")
    assert entry.kept("1.layer") is None
    (warning,) = take_warnings()
    assert warning.startswith(f"{path}/saved/a: dropped 1.layer: 1.layer")
    assert entry.kept("1.layer") is None
    layer(entry, data=b"anew")
    assert read(entry.kept("1.layer")) == b"anew"
    assert read(entry.kept("2.layer")) == b"index"


def test_two_mounts_that_make_one_layer_keep_the_first(path: Path) -> None:
    entry = make(path)
    other, _ = claim(path)
    layer(entry, data=b"1")
    layer(other, data=b"2")
    assert (read(entry.kept("1.layer")), read(other.kept("1.layer"))) == (b"1", b"1")


def test_who_comes_while_an_entry_is_made_waits_and_shares_it(path: Path) -> None:
    maker, _ = claim(path)
    told = threading.Event()
    found: list[object] = []

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        told.set()
        yield

    def ask() -> None:
        found.append(Cache(str(path)).saved("a", waiting)[1])

    others = [threading.Thread(target=ask) for _ in range(3)]
    for other in others:
        other.start()
    assert told.wait(10)
    assert found == []
    file = maker.new_file()
    os.write(file, b"the tar")
    maker.complete({"about": ABOUT}, file)
    for other in others:
        other.join(10)
    assert [isinstance(facts, dict) and facts["about"] for facts in found] == [ABOUT] * 3


def test_who_waits_for_a_maker_that_gives_up_makes_it(path: Path) -> None:
    maker, _ = claim(path)
    told = threading.Event()
    found: list[object] = []

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        told.set()
        yield

    def ask() -> None:
        found.append(Cache(str(path)).saved("a", waiting)[1])

    other = threading.Thread(target=ask)
    other.start()
    assert told.wait(10)
    maker.abandon()
    other.join(10)
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


def test_a_tenth_of_the_disk_stays_free(path: Path) -> None:
    @dataclass
    class Disk:
        f_bavail: int
        f_blocks: int = 1000
        f_frsize: int = MIB

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


def test_a_full_disk_keeps_nothing_and_says_so(tmp_path: Path, take_warnings: TakeWarnings) -> None:
    with tmpfs(tmp_path, "1m"):
        cache = Cache(str(tmp_path / "cache"))
        entry, _ = claim(cache)
        file = entry.new_file()
        os.write(file, b"1")
        (tmp_path / "filler").write_bytes(bytes(os.statvfs(tmp_path).f_bavail * 4096))
        entry.complete({"about": ABOUT}, file)
        (warning,) = take_warnings()
        assert warning.endswith(": No space left on device")
        assert keys(tmp_path / "cache") == []
        with contextlib.suppress(OSError):
            os.close(file)
        del entry, cache
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{number}").startswith(str(tmp_path)):
                    os.close(int(number))


def _refusal(path: Path) -> str:
    with pytest.raises(NoSpace) as caught:
        Cache(str(path))
    message = str(caught.value)
    end = "; choose another directory with --cache-dir, or --no-cache"
    assert message.startswith(f"cannot use the cache {path}: ")
    assert message.endswith(end)
    return message.removeprefix(f"cannot use the cache {path}: ").removesuffix(end)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720, 0o1777])
def test_a_directory_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)
    assert _refusal(path) == "others may write there"
    assert os.listdir(path) == []


def test_a_directory_of_someone_else_is_refused(path: Path) -> None:
    need(ROOT)
    path.mkdir(0o700)
    os.chown(path, 1234, 0)
    assert _refusal(path) == "it belongs to another user"


def test_a_symbolic_link_is_refused(path: Path) -> None:
    (path.parent / "real").mkdir()
    path.symlink_to("real")
    assert _refusal(path) == "it is a symbolic link"
    path.unlink()
    path.symlink_to("dangling")
    assert _refusal(path) == "it is a symbolic link"


def test_a_directory_with_something_else_in_it_is_refused(path: Path) -> None:
    (path / "saved").mkdir(parents=True)
    assert _refusal(path) == "it is not empty, and no cache of imgfs"
    (path / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# another program\n")
    assert _refusal(path) == "it is not empty, and no cache of imgfs"


def test_a_file_is_refused_and_so_is_what_is_below_it(path: Path) -> None:
    path.touch()
    assert _refusal(path) == "Not a directory"
    assert _refusal(path / "below") in ("Not a directory", "File exists")


def test_a_link_in_the_place_of_a_folder_is_not_followed(path: Path) -> None:
    make(path).close()
    victim = path.parent / "victim"
    (path / "saved").rename(victim)
    (path / "saved").symlink_to(victim)
    assert _refusal(path) in ("Not a directory", "Too many levels of symbolic links")


def test_a_link_in_the_place_of_an_entry_is_not_followed(path: Path) -> None:
    make(path).close()
    victim = path.parent / "victim"
    (path / "saved" / "a").rename(victim)
    (path / "saved" / "a").symlink_to(victim)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        claim(path)
    Cache(str(path)).prune(everything=True)
    assert sorted(os.listdir(victim)) == ["index", "tar"]


def test_a_file_system_that_is_read_only_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with tmpfs(folder):
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        assert _refusal(folder / "cache") == "Read-only file system"


def test_a_directory_of_ones_own_may_be_there_already(path: Path) -> None:
    path.mkdir(0o755)
    make(path)
    assert kept(path)


def test_a_cache_that_is_removed_meanwhile_is_no_longer_used(path: Path) -> None:
    entry = make(path)
    subprocess.run(["rm", "-r", path], check=True)
    with pytest.raises(NoSpace, match=r"^cannot write in "):
        entry.new_file()
    assert entry.kept("1.layer") is None


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
    (kept_one,) = Cache(str(path)).kept()
    assert (kept_one.kind, kept_one.key, kept_one.about, kept_one.in_use) == ("files", "k", about, True)
    _, facts = Cache(str(path)).archive("k")
    assert facts == {"about": about, "n": 1}
    assert json.dumps(facts)
