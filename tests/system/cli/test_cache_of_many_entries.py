"""A cache of more entries than a process may open files."""

import fcntl
import itertools
import json
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.cache.store import Cache
from tests.conftest import TakeWarnings
from tests.support.builders import Archive
from tests.support.caches import fill, make
from tests.support.conformance import closing_what_is_opened, open_descriptors
from tests.support.fake_engine import default_engine
from tests.support.mounts import COMMAND, Bench, Finished
from tests.support.processes import until

FEW = ["sh", "-c", 'ulimit -n 100; exec "$0" "$@"', COMMAND]
"""The command with few descriptors."""
MANY = 200


@pytest.fixture(name="path")
def cache_path(tmp_path: Path) -> Iterator[Path]:
    """Where the cache is to be."""
    with closing_what_is_opened():
        yield tmp_path / "cache"


@pytest.fixture(name="few_descriptors")
def few_descriptors_fixture() -> Iterator[None]:
    """Leave 30 to open, wherever among the open ones these are: too few for 50 entries."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = open_descriptors()
    free = (number for number in itertools.count() if number not in taken)
    limit = next(itertools.islice(free, 29, None)) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_all_is_listed_and_all_is_removed(imgfs: Bench) -> None:
    fill(imgfs.cache, MANY)
    imgfs.command = FEW
    assert len(json.loads(imgfs.run("cache", "list", "--json").out)) == MANY
    done = imgfs.run("cache", "prune")
    kept = rf"kept {MANY} entries, [0-9.]+ [kM]B: within the limit of 10\.7 GB; --all removes them"
    assert re.fullmatch(rf"freed 0 B\n{kept}\n", done.out), done
    assert len(json.loads(imgfs.run("cache", "list", "--json").out)) == MANY
    assert imgfs.run("cache", "prune", "--all").status == 0
    assert os.listdir(imgfs.cache / "files") == []


def test_a_mount_keeps_its_index(imgfs: Bench) -> None:
    fill(imgfs.cache, MANY)
    imgfs.command = FEW
    mountpoint = imgfs.mount(Archive().write(imgfs.folder / "image.tar"))
    assert os.listdir(mountpoint / "rootfs")
    until(lambda: list(imgfs.cache.glob("files/*/*.layer.seal")), "the index is kept")


@pytest.mark.usefixtures("few_descriptors")
def test_the_limit_is_held(path: Path) -> None:
    fill(path, 50)
    size = Cache(str(path)).entries()[0].size
    Cache(str(path), 20 * size).trim()
    assert len(Cache(str(path)).entries()) == 20


@pytest.mark.usefixtures("few_descriptors")
def test_what_is_in_use_stays_among_many(path: Path) -> None:
    fill(path, 50)
    user = make(path)
    cache = Cache(str(path), 0)
    assert cache.room(1) == 0
    cache.trim()
    assert [(one.kind, one.in_use) for one in cache.entries()] == [("saved", True)]
    user.close()
    assert cache.prune(everything=True) > 0
    assert cache.entries() == []


def test_what_is_used_between_the_look_and_the_removal_stays(path: Path) -> None:
    make(path).close()
    first = Cache(str(path), 0)
    waiter = os.open(path / "saved" / "a", os.O_RDONLY)

    def statvfs(descriptor: int) -> os.statvfs_result:
        fcntl.flock(waiter, fcntl.LOCK_SH)  # who waited for a maker locks at any time; here, after the look
        return os.fstatvfs(descriptor)

    Cache(str(path), 0, statvfs=statvfs).trim()
    assert os.listdir(path / "saved") == ["a"]
    os.close(waiter)
    first.trim()
    assert os.listdir(path / "saved") == []


def test_without_a_descriptor_nothing_is_taken_for_altered(path: Path, take_warnings: TakeWarnings) -> None:
    entry = make(path)
    cache = Cache(str(path))
    taken = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):  # noqa: PT012 - the one that is too much
            while True:
                taken.append(os.dup(entry.directory))
        assert entry.open_cached("1.layer") is None
        assert cache.room(1) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert take_warnings() == [
        f"{path}/saved/a: cannot use 1.layer: Too many open files",
        f"cannot make room in the cache {path}: Too many open files",
    ]
    assert [one.key for one in cache.entries()] == ["a"]


def test_an_engines_image_stays_however_few_files_a_mount_may_open(imgfs: Bench) -> None:
    with default_engine(imgfs):
        mountpoint = imgfs.mount("img")
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        (index,) = until(lambda: list(imgfs.cache.glob("saved/*/index")), "the image is kept")
        until(lambda: not imgfs.processes(), "all processes end")
        before = {path.name: path.stat().st_ino for path in index.parent.iterdir()}
        statuses = []
        imgfs.log_is_quiet = False
        for number in range(6, 20):
            imgfs.command = ["sh", "-c", f'ulimit -n {number}; exec "$0" "$@"', COMMAND]
            statuses.append(imgfs.run("mount", "-q", "--log-file", imgfs.log, "img", mountpoint).status)
            imgfs.end_mounts()
            until(lambda: not imgfs.processes(), "all processes end")
            assert {path.name: path.stat().st_ino for path in index.parent.iterdir()} == before
    assert statuses[0] == 10  # a limit of the process, before anything is mounted


def test_a_mount_that_keeps_many_looks_at_all_entries_but_once(path: Path) -> None:
    fill(path, 3)
    cache = Cache(str(path))
    assert cache.room(1000) > 0
    entry = path / "files" / "0"
    (entry / "half.layer").write_bytes(b"half")  # which a look removes
    for _ in range(20):
        assert cache.room(1000) > 0
        with cache.admitting() as admits:
            assert admits(1000, 1000)
    assert sorted(os.listdir(entry)) == ["half.layer", "index"]
    cache.trim()
    assert os.listdir(entry) == ["index"]
