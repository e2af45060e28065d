"""The kernel's table of mounts (proc_pid_mountinfo(5)).

Any user can write into it: mountpoints, sources and subtypes of FUSE are text that somebody chose.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fusefs.errors import MountError, limit_reached

FILE_SYSTEM = "fuse.imgfs"
"""The type of our FUSE mounts."""

KERNEL_FILE_SYSTEM = "erofs"
"""The type of our kernel mounts, and of others: the root of ours says so (`fusefs.mount.status`)."""

_TABLE = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")
_OWNER = re.compile(rb"(?:^|,)user_id=([0-9]+)")


class Mount(NamedTuple):
    """One line of the table."""

    mountpoint: str
    file_system: str
    connection: int
    """The minor device number, which is how FUSE names the connection."""
    source: str = ""
    """The device, which for FUSE is any text."""
    owner: int | None = None
    """The user who has mounted it, where the file system says so as FUSE does."""
    id: int = 0
    """The mount ID, unique while the mount exists."""
    parent: int = 0
    """The mount ID of the mount that the mountpoint lies in."""

    @property
    def is_fuse(self) -> bool:
        """Whether a process answers for it."""
        return self.file_system.startswith("fuse") and self.file_system != "fusectl"

    @property
    def may_be_image(self) -> bool:
        """Whether it is a mount of an image, or of a type that images are mounted with, too."""
        return self.file_system in (FILE_SYSTEM, KERNEL_FILE_SYSTEM)

    def is_foreign(self, user: int) -> bool:
        """Return whether somebody answers for it who is neither *user* nor root."""
        return self.is_fuse and self.owner not in (0, user)


def mounts() -> Iterator[Mount]:
    """Yield all mounts, the earliest first.  MountError without a /proc to read them from."""
    try:
        with open(_TABLE, "rb") as file:
            table = file.read()
    except OSError as error:
        raise limit_reached(error) or MountError(f"cannot read {_TABLE}: {error.strerror}; mount /proc first") from None
    return parsed(table)


def parsed(table: bytes) -> Iterator[Mount]:
    r"""Yield the mounts that *table* lists, without lines that are not understood.

    The kernel escapes space, tab, newline and backslash, nothing else: a mountpoint may hold ``\r`` or any other byte.
    """
    for line in table.split(b"\n"):
        mount = _mount(line)
        if mount is not None:
            yield mount


def _mount(line: bytes) -> Mount | None:
    fields, _, about = line.partition(b" - ")
    try:
        number, parent, device, _, path, *_ = fields.split(b" ")
        file_system, source, *options = about.split(b" ")
        owner = _OWNER.search(options[0]) if options else None
        return Mount(
            mountpoint=_unescaped(path),
            file_system=_unescaped(file_system),
            connection=int(device.partition(b":")[2]),
            source=_unescaped(source),
            owner=int(owner[1]) if owner else None,
            id=int(number),
            parent=int(parent),
        )
    except ValueError:
        return None


def mount_at(mountpoint: str) -> Mount | None:
    """Return the topmost mount on *mountpoint*, an absolute path without links, if there is one."""
    found = None
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            found = mount
    return found


def is_mounted(mount: Mount) -> bool:
    """Return whether *mount* is still there, wherever its mountpoint has gone."""
    same = mount.id, mount.connection, mount.file_system
    return any((other.id, other.connection, other.file_system) == same for other in mounts())


def mount_of(descriptor: int) -> Mount | None:
    """Return the mount that an open file lies in, if the table lists it.  Nothing is asked of the mount itself."""
    number = mount_id(descriptor)
    return next((mount for mount in mounts() if mount.id == number), None)


def mount_id(descriptor: int) -> int:
    """Return the ID of the mount that an open file lies in (proc_pid_fdinfo(5))."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError as error:
        missing = MountError(f"cannot read /proc/self/fdinfo: {error.strerror}; mount /proc first")
        raise limit_reached(error) or missing from None
    return next(int(line[len(b"mnt_id:") :]) for line in lines if line.startswith(b"mnt_id:"))


@contextmanager
def opened_root(mount: Mount) -> Iterator[tuple[int, int | None]]:
    """Yield descriptors of the directory that contains *mount* and of its root (None: it is gone).

    The caller closes the root: while it is open, the mount is busy.
    """
    above, name = os.path.split(mount.mountpoint)
    folder = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        root = os.open(name or ".", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        if mount_id(root) == mount.id:
            yield folder, root
        else:
            os.close(root)
            yield folder, None
    finally:
        os.close(folder)


def path_of(descriptor: int) -> str:
    """Return the path that an open file has now, as the table writes it.  Nothing is asked of its file system."""
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _unescaped(word: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(_octal, word))


def _octal(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8) & 0xFF])
