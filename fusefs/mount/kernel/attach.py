"""Attaching a mount: onto a directory, or in the place of a FUSE mount without a moment in between."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress

from fusefs.errors import MountError
from fusefs.mount.kernel.support import KernelUnable, can_mount_beneath
from fusefs.mount.mountinfo import Mount, mount_id, mounts
from fusefs.mount.syscalls import MNT_DETACH, MOVE_MOUNT_BENEATH, move_mount, umount2
from fusefs.text import printable


def check_contents(mount: int, known: Iterable[tuple[bytes, bytes]]) -> None:
    """Read files through a mount; KernelUnable unless each begins with the bytes that it has to.

    *mount* is a descriptor of its root, attached or not; *known* are pairs of a path below it and the first bytes.
    """
    for path, expected in known:
        shown = printable(os.fsdecode(path))
        try:
            found = _first_bytes(mount, path, len(expected))
        except OSError as error:
            raise KernelUnable(f"{shown} cannot be read through the kernel mount: {error.strerror}") from None
        if found != expected:
            raise KernelUnable(f"{shown} has other bytes in the kernel mount")


def _first_bytes(mount: int, path: bytes, size: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=mount)
    with open(file, "rb") as stream:
        return stream.read(size)


def attach(mount: int, directory: int) -> None:
    """Attach a mount (a descriptor of its root) onto an open directory, on top of what is there; MountError."""
    try:
        move_mount(mount, directory)
    except OSError as error:
        raise MountError(f"cannot attach the kernel mount: {error.strerror}") from None


def take_over(mount: int, root: int) -> None:
    """Attach a mount where the mount with the *root* is, and detach that one lazily.

    Both are descriptors of a mount's root.  *mount* is put beneath the other one, so that at any moment a path leads
    to one of them.  Open files and working directories stay in the old mount, which ends with the last of them (a
    FUSE connection, too: its server then reads ENODEV).

    Raises KernelUnable, with the old mount as it was: before Linux 6.5, if something is mounted in the old mount
    (which would be detached as well), or if the kernel refuses.
    """
    names = os.uname()
    if not can_mount_beneath(names.release, names.version):
        raise KernelUnable(f"a mount can be replaced since Linux 6.5; this is {names.release}")
    inside = _mounts_inside(mount_id(root))
    if inside:
        raise KernelUnable(f"{printable(inside[0].mountpoint)} is mounted in it")
    try:
        move_mount(mount, root, MOVE_MOUNT_BENEATH)
    except OSError as error:
        hint = " (it is not mounted any more)" if error.errno == errno.EINVAL else ""
        raise KernelUnable(f"the kernel cannot mount beneath it: {error.strerror}{hint}") from None
    try:
        umount2(_path(root), MNT_DETACH)
    except OSError as error:
        with suppress(OSError):
            umount2(_path(mount), MNT_DETACH)
        raise KernelUnable(f"the kernel cannot detach it: {error.strerror}") from None


def _mounts_inside(number: int) -> list[Mount]:
    return [mount for mount in mounts() if mount.parent == number]


def _path(descriptor: int) -> bytes:
    return b"/proc/self/fd/%d" % descriptor
