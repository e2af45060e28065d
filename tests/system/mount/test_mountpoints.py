"""Mountpoints that cannot be used, and mounts that are dead, busy or somebody else's."""

import contextlib
import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.mounts import Bench, Finished, mounted_below
from tests.support.processes import until


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """A small image."""
    return Archive().write(imgfs.folder / "image.tar")


def _refused(imgfs: Bench, archive: Path, mountpoint: Path, why: str) -> None:
    before = mounted_below(imgfs.folder)
    done = imgfs.run("mount", "--log-file", imgfs.log, archive, mountpoint)
    assert done == Finished(9, "", f"imgfs: cannot mount on {mountpoint}: {why}\n")
    assert mounted_below(imgfs.folder) == before


def test_a_missing_mountpoint_is_refused(imgfs: Bench, archive: Path) -> None:
    path = imgfs.folder / "missing"
    _refused(imgfs, archive, path, f"No such file or directory; mkdir -p {path} first")


def test_a_file_as_mountpoint_is_refused(imgfs: Bench, archive: Path) -> None:
    _refused(imgfs, archive, archive, "not a directory")


def test_a_dangling_link_as_mountpoint_is_refused(imgfs: Bench, archive: Path) -> None:
    (imgfs.folder / "link").symlink_to("nowhere")
    _refused(imgfs, archive, imgfs.folder / "link", "No such file or directory")


def test_a_directory_with_a_file_in_it_is_refused(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mountpoint()
    (mountpoint / "file").touch()
    _refused(imgfs, archive, mountpoint, "the directory is not empty; choose an empty one")


def test_a_mountpoint_in_use_is_refused(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    why = f"an image is mounted there; imgfs umount {mountpoint} first"
    _refused(imgfs, archive, mountpoint, why)
    assert (mountpoint / "config").read_bytes() == Archive().config_data


def test_a_bad_mountpoint_is_seen_before_the_image_is_looked_at(imgfs: Bench) -> None:
    path = imgfs.folder / "missing"
    _refused(imgfs, imgfs.folder / "no.tar", path, f"No such file or directory; mkdir -p {path} first")


def test_an_image_may_be_mounted_on_another_empty_file_system(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mountpoint()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mountpoint], check=True)
    imgfs.mount(archive, at=mountpoint)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    assert mounted_below(imgfs.folder) == [str(mountpoint)]
    subprocess.run(["umount", mountpoint], check=True)


def _no_mountpoint(path: Path) -> Finished:
    return Finished(9, "", f"imgfs: {path} is not a mountpoint; imgfs list shows what is mounted\n")


def _is_dead(mountpoint: Path) -> bool:
    try:
        os.statvfs(mountpoint)  # the kernel answers a stat from its cache
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def _killed(imgfs: Bench, archive: Path) -> Path:
    """Return a mountpoint whose process was killed, which leaves its mount and nothing else."""
    mountpoint = imgfs.mount(archive)
    os.kill(imgfs.serving(mountpoint), signal.SIGKILL)
    until(lambda: _is_dead(mountpoint), "the connection ends")
    assert mounted_below(imgfs.folder) == [str(mountpoint)]
    return mountpoint


def test_umount_clears_what_a_kill_leaves(imgfs: Bench, archive: Path) -> None:
    mountpoint = _killed(imgfs, archive)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()


def test_the_next_mount_clears_what_a_kill_leaves(imgfs: Bench, archive: Path) -> None:
    mountpoint = _killed(imgfs, archive)
    imgfs.mount(archive, at=mountpoint)
    assert mounted_below(imgfs.folder) == [str(mountpoint)]
    assert (mountpoint / "config").read_bytes() == Archive().config_data


@pytest.mark.parametrize("clear", ["umount", "mount"])
def test_a_dead_mount_is_cleared_while_its_files_are_open(imgfs: Bench, archive: Path, clear: str) -> None:
    mountpoint = imgfs.mount(archive)
    file = os.open(mountpoint / "config", os.O_RDONLY)
    os.kill(imgfs.serving(mountpoint), signal.SIGKILL)
    until(lambda: _is_dead(mountpoint), "the connection ends")
    if clear == "umount":
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        assert mounted_below(imgfs.folder) == []
    else:
        imgfs.mount(archive, at=mountpoint)
        assert (mountpoint / "config").read_bytes() == Archive().config_data
    with contextlib.suppress(OSError):  # closing is a request too, and nobody answers
        os.close(file)


def _name() -> str:
    return Path("/proc/self/comm").read_text().strip()


def test_umount_says_that_a_file_is_open(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    with (mountpoint / "config").open("rb") as file:
        done = imgfs.run("umount", mountpoint)
        why = f"in use by {_name()} ({os.getpid()}): {mountpoint}/config"
        said = f"imgfs: cannot unmount {mountpoint}: {why}; close it, or imgfs umount -l {mountpoint}\n"
        assert done == Finished(9, "", said)
        assert file.read() == Archive().config_data
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()


def test_umount_says_that_somebody_is_in_a_directory(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    done = imgfs.run("umount", ".", cwd=mountpoint)
    said = "imgfs: cannot unmount .: a file or directory in it is in use; close it, or imgfs umount -l .\n"
    assert done == Finished(9, "", said)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")


def test_umount_refuses_what_is_no_mountpoint(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mountpoint()
    assert imgfs.run("umount", mountpoint) == _no_mountpoint(mountpoint)
    imgfs.mount(archive, at=mountpoint)
    inside = mountpoint / "blobs"
    assert imgfs.run("umount", inside) == _no_mountpoint(inside)
    missing = imgfs.folder / "missing"
    assert imgfs.run("umount", missing) == _no_mountpoint(missing)


def test_umount_refuses_the_mount_of_another_file_system(imgfs: Bench) -> None:
    mountpoint = imgfs.mountpoint()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mountpoint], check=True)
    done = imgfs.run("umount", mountpoint)
    assert done == Finished(9, "", f"imgfs: {mountpoint} is not an imgfs mount but of type tmpfs; use umount\n")
    assert mounted_below(mountpoint) == [str(mountpoint)]
    subprocess.run(["umount", mountpoint], check=True)


def test_umount_refuses_an_image_that_something_is_mounted_over(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mountpoint], check=True)
    done = imgfs.run("umount", mountpoint)
    assert done == Finished(9, "", f"imgfs: {mountpoint} is not an imgfs mount but of type tmpfs; use umount\n")
    subprocess.run(["umount", mountpoint], check=True)


def test_a_mount_that_is_moved_away_can_be_unmounted_there(imgfs: Bench, archive: Path) -> None:
    mountpoint, other = imgfs.mount(archive), imgfs.mountpoint("other")
    subprocess.run(["mount", "--bind", mountpoint, other], check=True)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    assert (other / "config").read_bytes() == Archive().config_data
    assert imgfs.run("umount", other) == Finished(0, "", "")
    imgfs.nothing_left()
