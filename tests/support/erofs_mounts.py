"""Kernel mounts for the tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusefs.cache.sealed_file import stated, write_document
from fusefs.mount.kernel.attach import attach
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.kernel.support import Backing, backing_here
from fusefs.mount.syscalls import fsopen, umount2
from tests.support.erofs_images import ErofsImage, open_files
from tests.support.mounts import Bench, the_mount
from tests.support.processes import Mounted, mounts_at, until
from tests.support.requirements import ROOT, give_up, need


def need_kernel_mounts(backing: Backing = Backing.LOOP) -> None:
    """Go on if this machine mounts EROFS from *backing*."""
    need(ROOT)
    try:
        os.close(fsopen(b"erofs"))
    except OSError as error:
        give_up(f"needs EROFS: {error.strerror}")
    if backing is Backing.FILE and backing_here() is not Backing.FILE:
        give_up("needs a kernel that mounts EROFS from files")


def mount_on(directory: Path, image: ErofsImage, source: str, *devices: bytes, **how: Any) -> None:
    """Mount *image* on *directory*; its files lie in the folder *place* (default: beside it); *flags* as usual."""
    with open_files(how.pop("place", directory.parent), image.metadata(), *devices) as (metadata, *files):
        mount = mount_erofs(metadata, files, source, **how)
    target = os.open(directory, os.O_PATH)
    try:
        attach(mount, target)
    finally:
        os.close(target)
        os.close(mount)


@contextmanager
def mounted_on(directory: Path, image: ErofsImage, source: str, *devices: bytes, **how: Any) -> Iterator[Mounted]:
    """Mount *image* on *directory* for as long as the block takes, unless somebody unmounts it before."""
    mount_on(directory, image, source, *devices, **how)
    try:
        yield the_mount(directory)
    finally:
        for mount in mounts_at(directory):
            umount2(os.fsencode(mount.path), 0)


def until_kernel(mountpoint: Path, seconds: float = 15.0) -> None:
    """Wait until the kernel alone serves *mountpoint*; for a moment, the FUSE mount lies on the kernel mount."""
    until(
        lambda: [mount.file_system for mount in mounts_at(mountpoint)] == ["erofs"],
        "the kernel mount takes over",
        seconds,
    )


def kind(mountpoint: Path) -> str:
    """Return the type of the file system at *mountpoint*."""
    return the_mount(mountpoint).file_system


def by_kernel(imgfs: Bench, image: str | Path, *options: str, name: str = "kernel") -> Path:
    """Mount *image* by the kernel at once."""
    mountpoint = imgfs.mountpoint(name)
    done = imgfs.run("mount", "--driver", "erofs", *options, image, mountpoint)
    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines()[-1].startswith(f"imgfs: mounted {image} on {mountpoint} in ")
    assert kind(mountpoint) == "erofs"
    return mountpoint


def seal_again(seal: Path, file: Path) -> None:
    """Replace the *seal* by one that fits *file* as it is."""
    seal.unlink()
    folder, descriptor = (os.open(path, os.O_RDONLY) for path in (seal.parent, file))
    write_document(folder, seal.name, {"file": stated(descriptor)})
    for opened in (folder, descriptor):
        os.close(opened)
