"""The kernel's table of mounts (proc_pid_mountinfo(5))."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

FILE_SYSTEM = "fuse.imgfs"
"""The type of our mounts."""

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table."""

    mountpoint: str
    file_system: str
    connection: int
    """The minor device number, which is how FUSE names the connection."""


def mount_at(mountpoint: str) -> Mount | None:
    """Return the topmost mount on *mountpoint*, an absolute path without links, if there is one."""
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, source = line.partition(b" - ")
        _, _, device, _, path, *_ = fields.split(b" ")
        if os.fsdecode(_OCTAL.sub(_octal, path)) == mountpoint:
            minor = int(device.partition(b":")[2])
            found = Mount(mountpoint, source.split(b" ")[0].decode(), minor)
    return found


def _octal(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
