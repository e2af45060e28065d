"""Files whose bytes stay as they are, which is what the kernel can be given."""

import fcntl
import os

from fusefs.content.file import OpenFile
from fusefs.content.watched import WatchedFile
from fusefs.mount.kernel.support import KernelUnable
from fusefs.text import printable

_FICLONE = 0x40049409
"""ioctl_ficlone(2): _IOW(0x94, 9, int)."""


def stable_file(file: OpenFile) -> int:
    """Return a new descriptor of the bytes of *file* as they are now, which nobody changes later.

    Nobody writes to files of imgfs's own (spool, cache).  Of a user's file, this is a snapshot: a file without a name
    in its directory, which shares its blocks and is gone with its last descriptor or mount.  Only xfs and btrfs make
    snapshots, at once for any size.

    Raises KernelUnable if there can be no snapshot, and Unavailable if the user's file has been written to since it
    was opened: what was read before may then not belong to this copy.
    """
    if not isinstance(file, WatchedFile):
        return os.dup(file.descriptor)
    copy = _snapshot(file)
    try:
        file.check()
    except BaseException:
        os.close(copy)
        raise
    return copy


def _snapshot(file: OpenFile) -> int:
    folder = os.path.dirname(os.readlink(f"/proc/self/fd/{file.descriptor}"))
    copy = -1
    try:
        copy = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.ioctl(copy, _FICLONE, file.descriptor)
    except OSError as error:
        if copy >= 0:
            os.close(copy)
        why = f"no snapshot of it can be made in {printable(folder)}: {error.strerror}"
        hint = "pipe it into imgfs, or let FUSE mount it"
        raise KernelUnable(f"{file.name} may be written to, and {why}; {hint}") from None
    return copy
