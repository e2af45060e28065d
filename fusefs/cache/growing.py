"""The files of a cache that this process writes: what they take, and may take, and a survey does not find."""

import os
from typing import NamedTuple


class _Growing(NamedTuple):
    """A file that is being written, or has no name yet."""

    status: os.stat_result
    """Which file it was when it was reserved for."""
    most: int
    """Disk space in bytes that it may take."""


class GrowingFiles:
    """The files by descriptor, until they are closed.  Guarded by the lock of `Cache.deciding`."""

    def __init__(self) -> None:
        self.unseen = 0
        """Disk space in bytes that a survey does not find: that of files without a name, and what is unwritten."""
        self.unwritten = 0
        """Disk space in bytes that is reserved, but free."""
        self.any = False
        """Whether there ever was a file."""
        self._files: dict[int, _Growing] = {}

    def reserve(self, file: int, more: int) -> os.stat_result:
        """Let the open *file* take *more* bytes than now, instead of what was reserved before; return its status."""
        self.any = True
        status = os.fstat(file)
        self._files[file] = _Growing(status, status.st_blocks * 512 + more)
        self.look()
        return status

    def forget(self, file: int) -> None:
        """Let *file* count no more."""
        self._files.pop(file, None)
        self.look()

    def look(self) -> None:
        """Look at all files, and forget those that are closed, or complete and found by a survey."""
        self.unseen = self.unwritten = 0
        for file, (before, most) in [*self._files.items()]:
            try:
                status = os.fstat(file)
            except OSError:
                status = None
            present = status.st_blocks * 512 if status else 0
            if not status or not os.path.samestat(status, before) or (status.st_nlink and most <= present):
                del self._files[file]
                continue
            unwritten = max(0, most - present)
            self.unwritten += unwritten
            self.unseen += unwritten + (0 if status.st_nlink else present)
