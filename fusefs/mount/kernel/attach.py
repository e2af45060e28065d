"""Attaching a mount: onto a directory, or in the place of a FUSE mount without a moment in between."""

import os
from collections.abc import Iterable

from fusefs.errors import MountError
from fusefs.mount.kernel.support import KernelUnable, can_mount_beneath
from fusefs.mount.mountinfo import Mount, mount_id, mounts, opened_root
from fusefs.mount.syscalls import MNT_DETACH, MOVE_MOUNT_BENEATH, move_mount, umount2
from fusefs.mount.unique_ids import unique_id
from fusefs.text import printable

_GONE = "it is not mounted there any more"


class WrongContents(KernelUnable):
    """Metadata that do not fit the files: they were damaged."""


def check_contents(mount: int, known: Iterable[tuple[bytes, bytes]]) -> None:
    """Read files through a mount; WrongContents unless each begins with the bytes that it has to.

    *mount* is a descriptor of its root, attached or not; *known* are pairs of a path below it and the first bytes.
    """
    for path, expected in known:
        shown = printable(os.fsdecode(path))
        try:
            found = _first_bytes(mount, path, len(expected))
        except PermissionError:  # the options may deny the user everything
            continue
        except OSError as error:
            raise WrongContents(f"{shown} cannot be read through the kernel mount: {error.strerror}") from None
        if found != expected:
            raise WrongContents(f"{shown} has other bytes in the kernel mount")


def _first_bytes(mount: int, path: bytes, size: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=mount)
    with open(file, "rb") as stream:
        return stream.read(size)


def attach(mount: int, directory: int) -> None:
    """Attach a mount (a descriptor of its root) onto an open directory, on top of what is there; MountError.

    Close the descriptor afterwards: it makes the mount busy.
    """
    try:
        move_mount(mount, directory)
    except OSError as error:
        raise MountError(f"cannot attach the kernel mount: {error.strerror}") from None


def take_over(mount: int, old: Mount) -> Mount | None:
    """Attach a mount (a descriptor of its root) where the mount *old* is, detach that one lazily, and return the new.

    *mount* is put beneath the old one first, so that at any moment a path leads to one of them.  From then on the
    descriptor, which the caller closes, leads to the old one: the new one must not be busy for whoever unmounts it.
    Returns None if somebody already has.

    Open files and working directories stay in the old mount, which ends with the last of them: then the server of a
    FUSE mount reads ENODEV.  Nothing is asked of the old mount.

    Raises KernelUnable, with the old mount as it was: before Linux 6.5, if it is not mounted any more, if something
    is mounted in it (which would be detached, too), or if the kernel refuses.
    """
    names = os.uname()
    if not can_mount_beneath(names.release, names.version):
        raise KernelUnable(f"a mount can take over from another one since Linux 6.5; this is {names.release}")
    table = list(mounts())
    current = next(filter(old.has_numbers_of, table), None)
    if current is None:
        raise KernelUnable(_GONE)
    inside = next((entry for entry in table if entry.parent == old.id), None)
    if inside is not None:
        raise KernelUnable(f"{printable(inside.mountpoint)} is mounted in it")
    new = mount_id(mount), unique_id(mount)
    try:
        with opened_root(current._replace(unique=old.unique)) as (_, root):
            if root is None:
                raise KernelUnable(_GONE)
            try:
                _replace(mount, root, new)
            finally:
                os.close(root)  # it would keep the old mount, and its server, for ever
    except OSError as error:
        raise KernelUnable(f"cannot open {printable(current.mountpoint)}: {error.strerror}") from None
    return _attached(*new)


def _replace(mount: int, root: int, new: tuple[int, int]) -> None:
    """Put *mount*, with the IDs *new*, beneath the mount whose root is open, and detach that one."""
    try:
        move_mount(mount, root, MOVE_MOUNT_BENEATH)
    except OSError as error:
        raise KernelUnable(f"cannot mount beneath it: {error.strerror}") from None
    os.dup2(root, mount, inheritable=False)  # closes it; the caller closes this
    try:
        umount2(b"/proc/self/fd/%d" % root, MNT_DETACH)
    except OSError as error:  # it was unmounted since, which was meant for both
        from fusefs.mount.unmounting import detach  # noqa: PLC0415 - it never happened

        if (found := _attached(*new)) is not None:
            detach(found, lazily=True)
        raise KernelUnable(f"cannot detach it: {error.strerror}") from None


def _attached(number: int, unique: int) -> Mount | None:
    found = next((entry for entry in mounts() if entry.id == number), None)
    return found and found._replace(unique=unique)
