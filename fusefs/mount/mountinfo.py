"""The kernel's table of mounts (proc_pid_mountinfo(5)).

Any user can write into it: mountpoints, sources and subtypes of FUSE are text that somebody chose.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from fusefs.errors import MountError, limit_reached
from fusefs.mount.unique_ids import is_there, unique_id, unique_ids
from fusefs.pattern import pattern

FILE_SYSTEM = "fuse.imgfs"
"""The type of our FUSE mounts."""

KERNEL_FILE_SYSTEM = "erofs"
"""The type of our kernel mounts, and of others: the root of ours says so (`fusefs.mount.status`)."""

_TABLE = "/proc/self/mountinfo"
_OCTAL = pattern(rb"\\([0-7]{3})")
_OWNER = pattern(rb"(?:^|,)user_id=([0-9]+)")


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
    """The mount ID, unique while the mount exists: the next mount may get that of one that is gone."""
    parent: int = 0
    """The mount ID of the mount that the mountpoint lies in."""
    unique: int = 0
    """The ID that no other mount ever gets; 0 if the kernel does not tell, or was not asked."""

    @property
    def is_fuse(self) -> bool:
        """Whether a process answers for it."""
        return self.file_system.startswith("fuse") and self.file_system != "fusectl"

    def has_numbers_of(self, other: "Mount") -> bool:
        """Return whether it can be *other* by its ID, device and type."""
        return (self.id, self.connection, self.file_system) == (other.id, other.connection, other.file_system)

    @property
    def may_be_image(self) -> bool:
        """Whether it is a mount of an image, or of a type that images are mounted with, too."""
        return self.file_system in (FILE_SYSTEM, KERNEL_FILE_SYSTEM)

    def is_foreign(self, user: int) -> bool:
        """Return whether somebody answers for it who is neither *user* nor root."""
        return self.is_fuse and self.owner not in (0, user)


def mounts() -> Iterator[Mount]:
    """Yield all mounts, the earliest first.  MountError without a /proc to read them from."""
    with opened_table() as file:
        table = file.read()
    return parsed(table)


def opened_table() -> BinaryIO:
    """Open the table.  A change of it, from now on, is an "exceptional condition" for poll(2); MountError."""
    try:
        return open(_TABLE, "rb")
    except OSError as error:
        raise limit_reached(error) or MountError(f"cannot read {_TABLE}: {error.strerror}; mount /proc first") from None


def identified(found: Iterable[Mount]) -> list[Mount]:
    """Return mounts of the table with their unique IDs, as far as the kernel tells them."""
    listed = list(found)
    unique = unique_ids({mount.id for mount in listed})
    return [mount._replace(unique=unique.get(mount.id, 0)) for mount in listed]


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
    there = is_there(mount.unique) if mount.unique else None
    return any(map(mount.has_numbers_of, mounts())) if there is None else there


def mount_of(descriptor: int) -> Mount | None:
    """Return the mount that an open file lies in, if the table lists it.  Nothing is asked of the mount itself."""
    number = mount_id(descriptor)
    found = next((mount for mount in mounts() if mount.id == number), None)
    return found and found._replace(unique=unique_id(descriptor))


def lies_in(descriptor: int, mount: Mount) -> bool:
    """Return whether an open file lies in *mount*.  Nothing is asked of the mount itself."""
    return mount_id(descriptor) == mount.id and (not mount.unique or unique_id(descriptor) in (0, mount.unique))


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
        if lies_in(root, mount):
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
