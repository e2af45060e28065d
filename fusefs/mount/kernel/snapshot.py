"""Snapshots of users' files, whose bytes stay as they are: the kernel reads without looking for changes."""

import errno
import fcntl
import os

from fusefs.content.watched import WatchedFile
from fusefs.mount.kernel.support import KernelUnable
from fusefs.text import printable

_FICLONE = 0x40049409
"""ioctl_ficlone(2): _IOW(0x94, 9, int)."""


class Snapshot:
    """A snapshot of a user's file that can be taken at any later time, whatever rights the process has by then.

    It is a file without a name in the directory of the user's file, which shares its blocks and is gone with its
    last descriptor or mount.  Only xfs and btrfs make snapshots.  For use by one thread at a time.
    """

    def __init__(self, file: WatchedFile) -> None:
        """Make sure that the file system of *file* makes snapshots; KernelUnable if it does not.

        To take one is fast, except that it first writes to the disk what is not written yet, and so does a snapshot
        of one block.  So the copy, which is empty, is copied onto itself: that succeeds where others do.
        """
        self._file = file
        self._taken = False
        self._copy = -1
        folder = os.path.dirname(os.readlink(f"/proc/self/fd/{file.descriptor}"))
        try:
            self._copy = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.ioctl(self._copy, _FICLONE, self._copy)
            if os.fstat(self._copy).st_dev != os.fstat(file.descriptor).st_dev:  # a file that is mounted there
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        except OSError as error:
            self.close()
            why = f"no snapshot of it can be made in {printable(folder)}: {error.strerror}"
            hint = "pipe it into imgfs, or let FUSE mount it"
            raise KernelUnable(f"{file.name} may be written to, and {why}; {hint}") from None

    def take(self) -> int:
        """Return the descriptor of the snapshot, which `close` closes; it is taken at the first call.

        Raises KernelUnable if the file system refuses, and Unavailable if the user's file has been written to since it
        was opened: what was read of it may then not belong to the snapshot.
        """
        if not self._taken:
            try:
                fcntl.ioctl(self._copy, _FICLONE, self._file.descriptor)
            except OSError as error:
                raise KernelUnable(f"no snapshot of {self._file.name} can be made: {error.strerror}") from None
            self._taken = True
        self._file.compare()
        return self._copy

    def close(self) -> None:
        """Close the snapshot; mounts hold it open.  Closing twice is allowed."""
        if self._copy >= 0:
            os.close(self._copy)
            self._copy = -1
