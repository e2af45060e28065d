"""A kernel mount takes over from FUSE while the process is killed, stopped or unmounted at a random moment.

Afterwards there is a working mount or none, and no process, loop device or file is left.
"""

import contextlib
import gzip
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.drills.mount_drills import SMALL, TOP, check_blobs
from tests.support.builders import Archive, layer
from tests.support.erofs_images import bound_loop_devices
from tests.support.file_systems import tmpfs
from tests.support.mounts import Bench, Finished, mounted_below, tree
from tests.support.processes import mounts_at, until

ACTIONS = ("SIGTERM", "SIGKILL", "umount", "umount -l")
_LATEST = 0.25
"""Seconds after the mount is ready at which the last action comes; a take-over has ended by then."""


class Case(NamedTuple):
    """One round."""

    image: Path
    action: str
    foreground: bool
    in_use: bool
    """Whether a file is open in the mount."""
    delay: float
    """Seconds between the message that the mount is ready and the action."""


def drill(imgfs: Bench, rounds: int, seed: int, loop_devices: Path | None = None) -> Counter[str]:
    """Run *rounds* rounds; return how often a case ended how.

    With *loop_devices*, a directory, files lie in a file system whose files cannot be mounted directly.
    """
    imgfs.driver = ""
    image = imgfs.folder / "image.tar.gz"
    image.write_bytes(gzip.compress(Archive(layers=[layer(SMALL), layer(TOP)]).data(), 1))
    mountpoint = imgfs.mountpoint()
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    with tmpfs(loop_devices, "256m") if loop_devices else contextlib.nullcontext():
        for number in range(rounds):
            delay = _LATEST * rng.random() ** 3  # mostly while the kernel takes over
            case = Case(image, ACTIONS[number % len(ACTIONS)], rng.random() < 0.3, rng.random() < 0.3, delay)
            tmpdir = loop_devices or imgfs.spool
            found[f"{case.action}: {_round(imgfs, case, mountpoint, tmpdir)}"] += 1
    return found


def _round(imgfs: Bench, case: Case, mountpoint: Path, tmpdir: Path) -> str:
    """Mount, act, and look at what there is; return that."""
    words = ["--index", "--log-file", str(imgfs.log), "--tmpdir", str(tmpdir)]
    process = imgfs.start("mount", *(["-f"] if case.foreground else []), *words, case.image, mountpoint)
    assert process.stderr is not None
    assert any(line.startswith("imgfs: mounted ") for line in process.stderr)
    with contextlib.ExitStack() as stack:
        if case.in_use:
            with contextlib.suppress(OSError):
                stack.enter_context((mountpoint / "config").open("rb"))
        time.sleep(case.delay)
        _act(imgfs, case, mountpoint)
    until(lambda: not imgfs.processes(), "the process ends")
    process.communicate(timeout=20)
    state = _state(imgfs, case, mountpoint)
    _clear(imgfs, mountpoint)
    until(lambda: not bound_loop_devices(imgfs.folder), "the loop devices are free")
    return state


def _act(imgfs: Bench, case: Case, mountpoint: Path) -> None:
    if case.action.startswith("umount"):
        done = imgfs.run(*case.action.split(), mountpoint)
        if case.in_use and case.action == "umount":
            assert done.status in (0, 9), done
            if done.status == 9:
                imgfs.run("umount", "-l", mountpoint)
        else:
            assert done == Finished(0, "", ""), done
        return
    number = signal.Signals[case.action]
    for pid in imgfs.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _state(imgfs: Bench, case: Case, mountpoint: Path) -> str:
    """Return what is mounted, which works or is the dead mount of a killed process; in the foreground, end it."""
    kinds = [mount.file_system for mount in mounts_at(mountpoint)]
    if case.action != "SIGKILL":
        assert "fuse.imgfs" not in kinds, kinds
        if case.action != "SIGTERM" or case.foreground:
            assert kinds == [], kinds
    if kinds[:1] == ["fuse.imgfs"]:  # the latest first
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        kinds = [f"dead, then {kinds[1]}" if kinds[1:] else "dead", *kinds[1:]]
    if mounted_below(mountpoint):
        shown = {name: data for name, data in tree(mountpoint / "rootfs").items() if data is not None}
        assert shown == SMALL | TOP
        check_blobs(mountpoint)
    return kinds[0] if kinds else "none"


def _clear(imgfs: Bench, mountpoint: Path) -> None:
    if mounted_below(mountpoint):
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    assert subprocess.run(["mountpoint", "-q", mountpoint], check=False).returncode == 32
    assert mounted_below(mountpoint) == []
    until(lambda: not imgfs.processes(), "all processes end")
    assert os.listdir(imgfs.spool) == []
