"""Snapshots of users' files: the kernel gets bytes that stay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs.content import pagecache
from fusefs.content.watched import WatchedFile
from fusefs.errors import Unavailable
from fusefs.mount.kernel.attach import check_contents
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.kernel.snapshot import Snapshot
from fusefs.mount.kernel.support import KernelUnable
from tests.support.erofs_images import BLOCK, ErofsImage, open_files
from tests.support.erofs_mounts import need_kernel_mounts
from tests.support.file_systems import disk, tmpfs
from tests.support.requirements import give_up

DATA = os.urandom(5000)


def _archive(folder: Path) -> Path:
    path = folder / "x.tar"
    path.write_bytes(DATA)
    return path


def _watched(path: Path) -> WatchedFile:
    return WatchedFile(os.open(path, os.O_RDONLY), path.name)


def _unwritten(file: WatchedFile) -> int:
    """Return how many pages of *file* have to be written to the disk."""
    pages = pagecache._Pages()
    if pagecache._system_call(pagecache._CACHESTAT, file.descriptor, pagecache._Range(0, 0), pages, 0):
        give_up("this kernel has no cachestat(2)")
    return int(pages[1])


def _descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_users_file_is_copied_when_it_is_taken(tmp_path: Path, kind: str) -> None:
    with disk(kind, tmp_path / "mnt") as folder:
        path = _archive(folder)
        watched = _watched(path)
        snapshot = Snapshot(watched)
        copy = snapshot.take()
        with path.open("r+b") as file:
            file.write(b"overwritten")
            file.truncate(100)
        assert os.pread(copy, 10_000, 0) == DATA
        assert os.listdir(folder) == ["x.tar"]
        assert (os.fstat(copy).st_mode & 0o777, os.get_inheritable(copy)) == (0o600, False)
        with pytest.raises(Unavailable):  # what was read since may be of the new bytes
            snapshot.take()
        snapshot.close()
        watched.close()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 100_000])
def test_files_of_all_sizes_are_copied(tmp_path: Path, size: int) -> None:
    with disk("xfs", tmp_path / "mnt") as folder:
        (folder / "x.tar").write_bytes(data := os.urandom(size))
        watched = _watched(folder / "x.tar")
        snapshot = Snapshot(watched)
        assert os.pread(snapshot.take(), size + 1, 0) == os.pread(snapshot.take(), size + 1, 0) == data
        snapshot.close()
        watched.close()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_what_is_not_written_to_the_disk_yet_waits_there_until_the_snapshot_is_taken(tmp_path: Path, kind: str) -> None:
    with disk(kind, tmp_path / "mnt") as folder:
        path = folder / "x.tar"
        path.write_bytes(os.urandom(8 << 20))
        watched = _watched(path)
        before = _unwritten(watched)
        assert before > 1000
        snapshot = Snapshot(watched)
        assert _unwritten(watched) == before
        snapshot.take()
        assert _unwritten(watched) == 0
        snapshot.close()
        watched.close()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_mount_of_the_copy_shows_the_old_bytes_whatever_happens_to_the_file(tmp_path: Path, kind: str) -> None:
    need_kernel_mounts()
    image = ErofsImage(stored={b"data": (0, 4 * BLOCK)}, blocks=9)
    with disk(kind, tmp_path / "mnt") as folder, open_files(tmp_path, image.metadata()) as (metadata,):
        path = _archive(folder)
        watched = _watched(path)
        snapshot = Snapshot(watched)
        mount = mount_erofs(metadata, [snapshot.take()], "x.tar")
        snapshot.close()
        watched.close()
        path.write_bytes(b"overwritten" * 1000)
        path.unlink()
        check_contents(mount, [(b"data", DATA[: 4 * BLOCK])])
        os.close(mount)


def test_a_file_that_was_renamed_or_removed_is_copied(tmp_path: Path) -> None:
    with disk("xfs", tmp_path / "mnt") as folder:
        path = _archive(folder)
        watched = _watched(path)
        before = Snapshot(watched)
        moved = path.rename(folder / "y")
        renamed = Snapshot(watched)
        moved.unlink()
        for snapshot in (before, renamed, Snapshot(watched)):
            assert os.pread(snapshot.take(), 10_000, 0) == DATA
            snapshot.close()
            snapshot.close()
        watched.close()


@pytest.mark.parametrize("moment", ["before it is made", "before it is taken"])
def test_a_file_that_was_written_to_is_refused(tmp_path: Path, moment: str) -> None:
    with disk("xfs", tmp_path / "mnt") as folder:
        path = _archive(folder)
        watched = _watched(path)
        before = _descriptors()
        if moment == "before it is made":
            path.write_bytes(DATA[::-1])
        snapshot = Snapshot(watched)
        path.write_bytes(DATA[::-1])
        with pytest.raises(Unavailable, match=r"^x\.tar was changed while it is in use; "):
            snapshot.take()
        snapshot.close()
        assert _descriptors() == before
        watched.close()


def _check_refused(folder: Path, why: str = "Operation not supported") -> None:
    watched = _watched(_archive(folder))
    try:
        before = _descriptors()
        with pytest.raises(KernelUnable) as caught:
            Snapshot(watched)
        reason = f"x.tar may be written to, and no snapshot of it can be made in {folder}: {why}"
        assert str(caught.value).startswith(reason)
        assert _descriptors() == before
    finally:
        watched.close()


def test_a_file_system_without_snapshots_is_told(tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    with tmpfs(place):
        _check_refused(place)
    with disk("ext4", place):
        _check_refused(place)


def test_a_file_that_is_mounted_in_another_file_system_is_told(tmp_path: Path) -> None:
    with disk("xfs", tmp_path / "mnt") as folder, disk("ext4", tmp_path / "other") as other:
        (folder / "x.tar").touch()
        (other / "x.tar").touch()
        subprocess.run(["mount", "--bind", other / "x.tar", folder / "x.tar"], check=True)
        try:
            _check_refused(folder, "Invalid cross-device link")
        finally:
            subprocess.run(["umount", folder / "x.tar"], check=True)


def test_the_rights_to_make_files_there_are_not_needed_when_it_is_taken(tmp_path: Path) -> None:
    with disk("xfs", tmp_path / "mnt") as folder:
        os.chown(folder, 65534, 65534)
        folder.chmod(0o500)
        program = (
            "import os, sys; from fusefs.content.watched import WatchedFile\n"
            "from fusefs.mount.kernel.snapshot import Snapshot; from fusefs.mount.privileges import drop_privileges\n"
            "snapshot = Snapshot(WatchedFile(os.open(sys.argv[1], os.O_RDONLY), 'x.tar')); drop_privileges(())\n"
            "sys.stdout.buffer.write(os.pread(snapshot.take(), 10_000, 0))\n"
        )
        words = [sys.executable, "-c", program, str(_archive(folder))]
        assert subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout == DATA
