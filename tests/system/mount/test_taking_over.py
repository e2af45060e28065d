"""A kernel mount takes the place of a FUSE mount, and nobody who uses that sees an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs.mount.kernel.attach import take_over
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.kernel.support import KernelUnable
from fusefs.mount.mountinfo import Mount, identified, mount_at
from fusefs.mount.unmounting import unmount_all
from tests.programs import take_over as taking_program
from tests.support.builders import Archive
from tests.support.changesets import changeset, file
from tests.support.erofs_images import BLOCK, ErofsImage, open_files
from tests.support.erofs_mounts import need_kernel_mounts
from tests.support.file_systems import tmpfs
from tests.support.lookers import looked_at
from tests.support.mounts import Bench, mounted_below, the_mount
from tests.support.processes import until

GONE = r"^it is not mounted there any more$"
BIG = os.urandom(1 << 20)
ADMIN_ALONE = ["setpriv", "--bounding-set=-all,+sys_admin", "--"]
"""The capability that the process of a mount keeps."""


@pytest.fixture(name="mountpoint")
def fuse_mount(imgfs: Bench) -> Path:
    """An image that is mounted with FUSE."""
    need_kernel_mounts()
    return imgfs.mount(Archive(layers=[changeset(file("big", BIG))]).write(imgfs.folder / "image.tar"))


def _copied(folder: Path) -> tuple[ErofsImage, bytes]:
    """Return an image of the files in *folder*, and its device."""
    device, stored = b"", {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            data = path.read_bytes()
            stored[path.name.encode()] = (len(device) // BLOCK, len(data))
            device += data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0")
    return ErofsImage(stored=stored, blocks=len(device) // BLOCK, xattrs={b"imgfs.image": b"nginx"}), device


def _take_over(folder: Path, mountpoint: Path, *wrapper: str) -> None:
    image, data = _copied(mountpoint)
    with open_files(folder, image.metadata(), data) as files:
        words = [*wrapper, sys.executable, taking_program.__file__, str(mountpoint), *map(str, files)]
        subprocess.run(words, check=True, pass_fds=files)


def _mounted(mountpoint: Path) -> Mount:
    mount = mount_at(str(mountpoint))
    assert mount is not None
    return mount


def test_nobody_sees_an_error(imgfs: Bench, mountpoint: Path) -> None:
    with looked_at(mountpoint, 100_000):
        _take_over(imgfs.folder, mountpoint, *ADMIN_ALONE)
    (kernel,) = mounted_below(mountpoint)
    assert (kernel, the_mount(mountpoint).file_system) == (str(mountpoint), "erofs")
    until(lambda: not imgfs.processes(), "the process of the FUSE mount ends")
    assert imgfs.run("umount", mountpoint).status == 0


def test_open_files_and_a_shell_inside_go_on_and_the_process_ends_with_them(imgfs: Bench, mountpoint: Path) -> None:
    serving = imgfs.serving(mountpoint)
    big = (mountpoint / "rootfs" / "big").open("rb", buffering=0)
    assert big.read(10) == BIG[:10]
    listing = os.scandir(mountpoint)
    first = next(listing).name
    shell = subprocess.Popen(["sh"], cwd=mountpoint, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    names = set(os.listdir(mountpoint))

    _take_over(imgfs.folder, mountpoint)
    assert set(os.listdir(mountpoint)) == {"config", "index.json", "manifest.json", "oci-layout"}  # all of the copy
    assert big.read() == BIG[10:]
    assert {first, *(entry.name for entry in listing)} == names
    output, _ = shell.communicate("cat rootfs/big | wc -c; ls\n")
    assert output.split() == [str(len(BIG)), *sorted(names)]

    assert list(imgfs.processes()) == [serving]
    listing.close()
    assert list(imgfs.processes()) == [serving]
    big.close()
    until(lambda: not imgfs.processes(), "the process of the FUSE mount ends with the last open file")
    assert imgfs.run("umount", mountpoint).status == 0
    assert mounted_below(mountpoint) == []


def test_a_mount_in_which_something_is_mounted_stays(imgfs: Bench, mountpoint: Path) -> None:
    image, data = _copied(mountpoint)
    with open_files(imgfs.folder, image.metadata(), data) as (metadata, device):
        mount = mount_erofs(metadata, [device], "nginx")
    for place in (mountpoint, mountpoint / "rootfs"):
        before = _mounted(mountpoint)
        with tmpfs(place):
            with pytest.raises(KernelUnable) as caught:
                take_over(mount, before)
            assert str(caught.value) == f"{place} is mounted in it"
            assert len(mounted_below(mountpoint)) == 2
    take_over(mount, before)
    os.close(mount)
    assert the_mount(mountpoint).file_system == "erofs"
    assert imgfs.run("umount", mountpoint).status == 0


def test_a_mount_that_is_gone_or_another_one_by_now_is_not_taken_over(imgfs: Bench, mountpoint: Path) -> None:
    image, data = _copied(mountpoint)
    with open_files(imgfs.folder, image.metadata(), data) as (metadata, device):
        mount = mount_erofs(metadata, [device], "nginx")
    old = _mounted(mountpoint)
    if known := identified([old])[0].unique:  # the mount is another one that has got its numbers
        with pytest.raises(KernelUnable, match=GONE):
            take_over(mount, old._replace(unique=known - 1))
        reason = f"cannot unmount {mountpoint}: something else is there by now"
        for lazily in (False, True):
            assert unmount_all([old._replace(unique=known - 1)], lazily=lazily) == [reason]
        assert mounted_below(mountpoint) == [str(mountpoint)]
    assert imgfs.run("umount", mountpoint).status == 0
    with tmpfs(mountpoint), pytest.raises(KernelUnable, match=GONE):
        take_over(mount, old)
    os.close(mount)
    assert mounted_below(mountpoint) == []


def test_a_mount_whose_directory_was_renamed_is_taken_over(imgfs: Bench) -> None:
    need_kernel_mounts()
    parent = imgfs.mountpoint("parent")
    (parent / "mnt").mkdir()
    archive = Archive().write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mount(archive, at=parent / "mnt")
    old = _mounted(mountpoint)
    moved = parent.rename(imgfs.folder / "moved") / "mnt"
    image, data = _copied(moved)
    with open_files(imgfs.folder, image.metadata(), data) as (metadata, device):
        mount = mount_erofs(metadata, [device], "nginx")
    take_over(mount, old)
    os.close(mount)
    assert the_mount(moved).file_system == "erofs"
    assert imgfs.run("umount", moved).status == 0


def test_other_namespaces_see_the_kernel_mount_too(imgfs: Bench) -> None:
    need_kernel_mounts()
    archive = Archive().write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mountpoint()
    image, data = _copied_of_archive(imgfs, archive)
    with open_files(imgfs.folder, image.metadata(), data) as (metadata, device):
        script = (
            # A shared tree, as systemd makes it, and a namespace that follows it.
            "mkfifo go\n"
            'unshare --mount --propagation slave sh -c "read x < go; exec grep $MNT /proc/self/mountinfo" &\n'
            '"$IMGFS" mount -q --log-file log image.tar "$MNT" && "$PYTHON" "$PROGRAM" "$MNT" "$METADATA" "$DEVICE"\n'
            "echo > go; wait; umount $MNT\n"
        )
        names = {"IMGFS": imgfs.command[0], "PYTHON": sys.executable, "PROGRAM": taking_program.__file__}
        names |= {"MNT": str(mountpoint), "METADATA": str(metadata), "DEVICE": str(device)}
        words = ["unshare", "--mount", "--propagation", "shared", "sh", "-c", script]
        done = subprocess.run(
            words,
            env=imgfs.environment | names,
            cwd=imgfs.folder,
            pass_fds=[metadata, device],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    (line,) = done.stdout.splitlines()
    assert " - erofs nginx " in line


def _copied_of_archive(imgfs: Bench, archive: Path) -> tuple[ErofsImage, bytes]:
    mountpoint = imgfs.mount(archive, at=imgfs.mountpoint("copied"))
    copied = _copied(mountpoint)
    assert imgfs.run("umount", mountpoint).status == 0
    return copied
