"""The cache after a kill at each moment at which something of it changes."""

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drills.engine_drills import all_is_right
from tests.drills.mount_drills import LAYERS, zipped_archive
from tests.support.fake_engine import Engine, default_engine
from tests.support.mounts import COMMAND, Bench
from tests.support.processes import mounts_at, until

PLANTED = (sys.executable, str(Path(__file__).parents[1] / "programs" / "planted.py"))


@pytest.fixture(name="engine")
def an_engine(imgfs: Bench) -> Iterator[Engine]:
    """An engine with an image of compressed layers, which is asked by default."""
    imgfs.log_is_quiet = False  # what was left by a kill is said there
    with default_engine(imgfs, zipped_archive()) as engine:
        yield engine


def killed_at_each(imgfs: Bench, act: Callable[[], object], then: Callable[[], object]) -> Counter[str]:
    """Let *act* be killed at its first change, then at its second, until it is not killed; return the changes.

    After each kill *then* is called.
    """
    mark = imgfs.folder / "killed"
    found: Counter[str] = Counter()
    while not found or mark.exists():
        mark.unlink(missing_ok=True)
        imgfs.command = (*PLANTED, f"kill={found.total() + 1}={mark}")
        act()
        imgfs.command = (COMMAND,)
        if mark.exists():
            found[mark.read_text(encoding="ascii")] += 1
        then()
    return found


def test_a_mount_may_be_killed_at_each_change(imgfs: Bench, engine: Engine) -> None:
    mountpoint = imgfs.mountpoint()

    def act() -> None:
        imgfs.run("mount", "-q", "--log-file", imgfs.log, "img", mountpoint)
        with contextlib.suppress(OSError):
            os.listdir(mountpoint / "rootfs")
        if mounts_at(mountpoint):
            subprocess.run(["umount", mountpoint], check=True)
        until(lambda: not imgfs.processes(), "all processes end")

    def then() -> None:
        all_is_right(imgfs, engine, mountpoint)
        assert imgfs.run("cache", "prune", "--all").status == 0
        assert [*imgfs.cache.glob("*/*")] == []

    found = killed_at_each(imgfs, act, then)
    # The cache and two places in it, the entry; then each file is synced and linked, and so is what is said of it.
    assert found["os.mkdir"] >= 2
    assert found["os.link"] >= 2 + 2 * 2 * len(LAYERS)
    assert found["os.fsync"] >= 2 + 2 * len(LAYERS)


def test_a_removal_may_be_killed_at_each_change(imgfs: Bench, engine: Engine) -> None:
    mountpoint = imgfs.mountpoint()

    def then() -> None:
        all_is_right(imgfs, engine, mountpoint)

    then()
    found = killed_at_each(imgfs, lambda: imgfs.run("cache", "prune", "--all"), then)
    # The index first, the tar; of each layer the index and the plain tar with what is said of them; the directory.
    del found["os.mkdir"]  # tried, and there already
    assert found == {"os.remove": 2 + 2 * 2 * len(LAYERS), "os.rmdir": 1}
