"""What the kernel gets of a file: bytes that stay."""

import os
from pathlib import Path

import pytest

from fusefs.content.file import OpenFile
from fusefs.content.watched import WatchedFile
from fusefs.errors import Unavailable
from fusefs.mount.kernel.attach import check_contents
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.kernel.snapshot import stable_file
from fusefs.mount.kernel.support import KernelUnable
from tests.support.erofs_images import BLOCK, ErofsImage, open_files
from tests.support.erofs_mounts import need_kernel_mounts
from tests.support.file_systems import disk, tmpfs

DATA = os.urandom(5000)


def _archive(folder: Path) -> Path:
    path = folder / "x.tar"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_users_file_is_copied_at_that_moment(tmp_path: Path, kind: str) -> None:
    with disk(kind, tmp_path / "mnt") as folder:
        path = _archive(folder)
        watched = WatchedFile(os.open(path, os.O_RDONLY), "x.tar")
        copy = stable_file(watched)
        with path.open("r+b") as file:
            file.write(b"overwritten")
            file.truncate(100)
        assert os.pread(copy, 10_000, 0) == DATA
        assert os.listdir(folder) == ["x.tar"]
        assert os.fstat(copy).st_mode & 0o777 == 0o600
        os.close(copy)
        watched.close()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_mount_of_the_copy_shows_the_old_bytes_whatever_happens_to_the_file(tmp_path: Path, kind: str) -> None:
    need_kernel_mounts()
    image = ErofsImage(stored={b"data": (0, 4 * BLOCK)}, blocks=9)
    with disk(kind, tmp_path / "mnt") as folder, open_files(tmp_path, image.metadata()) as (metadata,):
        path = _archive(folder)
        watched = WatchedFile(os.open(path, os.O_RDONLY), "x.tar")
        copy = stable_file(watched)
        mount = mount_erofs(metadata, [copy], "x.tar")
        os.close(copy)
        watched.close()
        path.write_bytes(b"overwritten" * 1000)
        path.unlink()
        check_contents(mount, [(b"data", DATA[: 4 * BLOCK])])
        os.close(mount)


def test_a_file_that_was_renamed_or_removed_is_copied(tmp_path: Path) -> None:
    with disk("xfs", tmp_path / "mnt") as folder:
        path = _archive(folder)
        watched = WatchedFile(os.open(path, os.O_RDONLY), "x.tar")
        moved = path.rename(folder / "y")
        renamed = stable_file(watched)
        moved.unlink()
        removed = stable_file(watched)
        for copy in (renamed, removed):
            assert os.pread(copy, 10_000, 0) == DATA
            os.close(copy)
        watched.close()


def test_a_file_that_was_written_to_before_is_refused(tmp_path: Path) -> None:
    with disk("xfs", tmp_path / "mnt") as folder:
        path = _archive(folder)
        watched = WatchedFile(os.open(path, os.O_RDONLY), "x.tar")
        path.write_bytes(DATA[::-1])
        before = sorted(os.listdir("/proc/self/fd"))
        with pytest.raises(Unavailable, match=r"^x\.tar was changed while it is in use; "):
            stable_file(watched)
        assert sorted(os.listdir("/proc/self/fd")) == before
        watched.close()


def _check_refused(folder: Path) -> None:
    watched = WatchedFile(os.open(_archive(folder), os.O_RDONLY), "x.tar")
    try:
        before = sorted(os.listdir("/proc/self/fd"))
        with pytest.raises(KernelUnable) as caught:
            stable_file(watched)
        reason = f"x.tar may be written to, and no snapshot of it can be made in {folder}: Operation not supported"
        assert str(caught.value).startswith(reason)
        assert sorted(os.listdir("/proc/self/fd")) == before
    finally:
        watched.close()


def test_a_file_system_without_snapshots_is_told(tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    with tmpfs(place):
        _check_refused(place)
    with disk("ext4", place):
        _check_refused(place)


def test_a_file_of_imgfs_is_its_own_copy(tmp_path: Path) -> None:
    own = OpenFile(os.open(_archive(tmp_path), os.O_RDONLY), "spool")
    copy = stable_file(own)
    own.close()
    assert os.pread(copy, 10_000, 0) == DATA
    assert not os.get_inheritable(copy)
    os.close(copy)
