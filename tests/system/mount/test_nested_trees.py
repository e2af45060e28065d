"""Lazy directories below lazy directories, in a real mount."""

import os
import random
from pathlib import Path

from tests.support.mounts import Bench
from tests.support.own_views import mounted
from tests.support.remote_content import DATA, SPARSE
from tests.support.requirements import ROOT, need

LAYER = "engine/a/layers/0"
"""Three of these names are lazy directories: ``engine``, ``a`` and ``0``."""


def numbers(top: Path) -> dict[str, int]:
    """Return the inode numbers of all that is below *top*, each as its directory lists it."""
    found: dict[str, int] = {}
    waiting = [top]
    while waiting:
        here = waiting.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                found[os.path.relpath(entry.path, top)] = entry.inode()
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
    return found


def test_trees_below_trees_are_listed_and_read(imgfs: Bench) -> None:
    with mounted(imgfs, "nested") as mountpoint:
        assert sorted(os.listdir(mountpoint)) == ["empty", "engine"]
        assert sorted(os.listdir(mountpoint / "engine")) == ["a", "b"]
        assert (mountpoint / LAYER / "d" / "data").read_bytes() == DATA  # looked up before anything there is listed
        assert (mountpoint / "engine" / "b" / "rootfs" / "sparse").read_bytes() == SPARSE
        assert sorted(os.listdir(mountpoint / LAYER)) == ["d", "sparse"]
        assert os.listdir(mountpoint / "engine" / "b" / "rootfs" / "d") == ["data"]
    imgfs.nothing_left()


def test_inode_numbers_are_those_of_the_listing_and_stay_when_the_kernel_forgets(imgfs: Bench) -> None:
    need(ROOT)  # to make the kernel forget
    with mounted(imgfs, "nested") as mountpoint:
        first = numbers(mountpoint)
        assert {LAYER, f"{LAYER}/d/data", "engine/b/layers/1/top"} <= first.keys()
        shuffled = random.Random(1).sample(sorted(first), len(first))
        assert {path: os.lstat(mountpoint / path).st_ino for path in shuffled} == first
        Path("/proc/sys/vm/drop_caches").write_text("2", encoding="ascii")  # names and inodes that nobody uses
        assert {path: os.lstat(mountpoint / path).st_ino for path in reversed(shuffled)} == first
        assert numbers(mountpoint) == first
        directories = [path for path in first if os.path.isdir(mountpoint / path)]
        assert len({first[path] for path in directories}) == len(directories)  # only files have several names
    imgfs.nothing_left()


def test_two_dots_lead_up_through_every_tree(imgfs: Bench) -> None:
    with mounted(imgfs, "nested") as mountpoint:
        path = mountpoint / LAYER / "d"
        here = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for above in path.relative_to(mountpoint).parents:
                with os.scandir(here):  # lists it, and so asks for its parent
                    up = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
                os.close(here)
                here = up
                assert os.fstat(here).st_ino == os.lstat(mountpoint / above).st_ino
        finally:
            os.close(here)
    imgfs.nothing_left()
