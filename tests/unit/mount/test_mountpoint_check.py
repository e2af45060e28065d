"""The check of a mountpoint: a child process makes it only if a file system on the way might not answer."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.errors import MountError
from fusefs.mount.mountinfo import mount_of
from fusefs.mount.mountpoint import claim_mountpoint
from tests.support.folders import new_folder

_forks: list[int] = []
os.register_at_fork(before=lambda: _forks.append(os.getpid()))


@pytest.fixture(name="folder")
def folder_on_a_disk() -> Iterator[Path]:
    """A folder on a disk, with a directory, a file and a link to nowhere in it."""
    folder = new_folder("check", 0o700)
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()
    (folder / "link").symlink_to("nowhere")
    try:
        with open(folder / "full" / "file", "rb") as file:
            mount = mount_of(file.fileno())
        if mount is None or mount.file_system not in {"ext4", "xfs", "btrfs"}:
            pytest.skip(f"{folder} is not on a disk")
        yield folder
    finally:
        shutil.rmtree(folder)


def test_a_directory_on_a_disk_is_checked_without_a_child(folder: Path) -> None:
    _forks.clear()
    claim_mountpoint(str(folder / "empty"), {}).close()
    assert _forks == []


def test_a_directory_of_another_kind_is_checked_by_a_child() -> None:
    _forks.clear()
    with pytest.raises(MountError, match="the directory is not empty"):
        claim_mountpoint("/proc", {})
    assert _forks == [os.getpid()]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("full", "the directory is not empty; choose an empty one"),
        ("full/file", "not a directory"),
        ("missing", f"{os.strerror(errno.ENOENT)}; mkdir -p"),
        ("link", os.strerror(errno.ENOENT)),
    ],
)
def test_both_ways_tell_the_same(folder: Path, name: str, why: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(MountError) as raised:
        claim_mountpoint(str(folder / name), {})
    assert str(raised.value).startswith(f"cannot mount on {folder / name}: {why}")
    assert set(os.listdir("/proc/self/fd")) == before
