"""A copy of a file whose bytes stay as they are, whatever is written to the file later."""

import fcntl
import os
from typing import NamedTuple

from fusefs.mount.kernel.support import KernelUnable
from fusefs.text import printable

_FICLONE = 0x40049409
"""ioctl_ficlone(2): _IOW(0x94, 9, int)."""


class FileState(NamedTuple):
    """What changes when somebody writes to a file."""

    size: int
    mtime_ns: int
    ctime_ns: int


def file_state(file: int) -> FileState:
    """Return the state of an open file."""
    status = os.fstat(file)
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def snapshot(file: int, state: FileState) -> int:
    """Return a file without a name that shares the bytes of the open *file*: the copy of a moment, made at once.

    Only file systems that can share blocks make it (xfs, btrfs).  It lies in the directory of *file* until its last
    descriptor or mount is gone.  *state* is the state of the file when it was read before.  Raises KernelUnable if
    there can be no snapshot, or if the file has changed since.
    """
    path = os.readlink(f"/proc/self/fd/{file}")
    shown = printable(path)
    try:
        copy = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KernelUnable(f"{shown} could be written to, and no snapshot can be made: {error.strerror}") from None
    try:
        fcntl.ioctl(copy, _FICLONE, file)
    except OSError as error:
        os.close(copy)
        raise KernelUnable(f"{shown} could be written to, and no snapshot can be made: {error.strerror}") from None
    if file_state(file) != state or os.fstat(copy).st_size != state.size:
        os.close(copy)
        raise KernelUnable(f"{shown} was changed while it is in use")
    return copy
