"""Limits of a process: the mount serves rightly, or does not come into being, with one line and a documented status."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import LAYERS, Archive, layer, sha256
from tests.support.mounts import COMMAND, Bench, Finished, mounted_below
from tests.support.processes import until
from tests.support.requirements import need
from tests.support.slow_archive import SlowFile

BIG = layer({"zeros": bytes(4 << 20), "noise": os.urandom(4 << 20)})


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """A small image."""
    return Archive().write(imgfs.folder / "image.tar")


@pytest.fixture(name="slow")
def slow_file(imgfs: Bench) -> Iterator[SlowFile]:
    """Give an archive that answers when it is told to; let everything pass at the end."""
    slow = SlowFile(imgfs, Archive(layers=(*LAYERS, BIG)).data())
    try:
        yield slow
    finally:
        slow.end()


def _limit(imgfs: Bench, *limits: str) -> None:
    need("prlimit")
    imgfs.command = ("prlimit", *limits, COMMAND)


@pytest.mark.parametrize("options", [[], ["-f"]], ids=["in the background", "in the foreground"])
@pytest.mark.parametrize("limit", ["as=30", "as=36", "as=42", "as=45", "as=60", "data=20", "data=35"])
def test_too_little_memory_is_one_line(imgfs: Bench, archive: Path, limit: str, options: list[str]) -> None:
    _limit(imgfs, f"--{limit}000000")
    done = imgfs.run("mount", "--no-cache", "--log-file", imgfs.log, *options, archive, imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (10, "", 1), done
    assert "memory" in done.err
    imgfs.nothing_left()


def test_wherever_the_memory_ends_it_is_one_line(imgfs: Bench, archive: Path) -> None:
    """The event loop of trio waits for ever if a task of its own finds no memory."""
    mountpoint = imgfs.mountpoint()
    for kilobytes in range(40_800, 43_000, 100):
        _limit(imgfs, f"--as={kilobytes}000")
        done = imgfs.run("mount", "--no-cache", "--log-file", imgfs.log, archive, mountpoint)
        assert (done.status, done.err.count("\n")) == (10, 1), (kilobytes, done)


def test_more_readers_than_memory_has_room_for_wait_and_are_answered(imgfs: Bench, slow: SlowFile) -> None:
    _limit(imgfs, "--as=100000000")
    mountpoint = imgfs.mount(slow.path)
    imgfs.command = (COMMAND,)
    slow.hold()
    path = mountpoint / "blobs" / "sha256" / sha256(BIG)[7:]
    readers = [
        subprocess.Popen(["tail", "-c", f"+{number << 17}", path], stdout=subprocess.PIPE) for number in range(1, 60)
    ]
    for _ in range(4):
        slow.hear("waiting")
    # Reads may have to wait, too, but lookups and attributes have room of their own.
    assert (mountpoint / "config").stat().st_size == len(Archive(layers=(*LAYERS, BIG)).config_data)
    slow.go()
    for number, reader in enumerate(readers, 1):
        assert reader.communicate(timeout=20)[0] == BIG[(number << 17) - 1 :]
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")


def test_without_free_processes_everything_is_served_all_the_same(imgfs: Bench) -> None:
    group = Path("/sys/fs/cgroup/pids")
    need(str(group))
    archive = Archive(layers=(*LAYERS, layer({"zeros": bytes(16 << 20)}))).write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mount(archive)
    serving = imgfs.serving(mountpoint)
    group /= f"imgfs-tests-{serving}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(serving))
        (group / "pids.max").write_text("1")
        assert (mountpoint / "rootfs" / "zeros").read_bytes() == bytes(16 << 20)
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        imgfs.nothing_left()
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "the process leaves")
        group.rmdir()


@pytest.mark.parametrize("foreground", [False, True])
def test_a_mount_whose_processor_time_is_used_up_unmounts(imgfs: Bench, archive: Path, *, foreground: bool) -> None:
    if foreground:
        process = imgfs.foreground(archive)
        process.send_signal(signal.SIGXCPU)  # as the kernel does at RLIMIT_CPU
        assert process.wait(10) == 0
    else:
        os.kill(imgfs.serving(imgfs.mount(archive)), signal.SIGXCPU)
        until(lambda: not mounted_below(imgfs.folder), "it unmounts")
    imgfs.nothing_left()
