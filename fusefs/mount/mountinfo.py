"""The kernel's table of mounts (proc_pid_mountinfo(5))."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FILE_SYSTEM = "fuse.imgfs"
"""The file system type of imgfs mounts."""

_OCTAL = re.compile(rb"\\([0-7]{3})")
_OWNER = re.compile(rb"(?:^|,)user_id=([0-9]+)")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table."""

    mountpoint: str
    file_system: str
    connection: int
    """The minor device number, by which the kernel names a FUSE connection."""
    source: str = field(default="", compare=False)
    """The device; any text for FUSE."""
    owner: int | None = field(default=None, compare=False)
    """The numeric ID of the user who mounted it, None if the file system does not report it (FUSE does)."""


def mounts() -> Iterator[Mount]:
    """Yield all mounts, the oldest first."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, about = line.partition(b" - ")
        _, _, device, _, path, *_ = fields.split(b" ")
        file_system, source, *options = about.split(b" ")
        owner = _OWNER.search(options[0]) if options else None
        yield Mount(
            mountpoint=_unescaped(path),
            file_system=file_system.decode(),
            connection=int(device.partition(b":")[2]),
            source=_unescaped(source),
            owner=int(owner[1]) if owner else None,
        )


def mount_at(mountpoint: str) -> Mount | None:
    """Return the topmost mount on *mountpoint*, an absolute path without symbolic links; None if nothing is mounted."""
    found = None
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            found = mount
    return found


def _unescaped(word: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(_octal, word))


def _octal(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
