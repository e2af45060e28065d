"""A file that belongs to the user, who may change it while it is mounted."""

import math
import os
import stat
import threading
import time

from fusefs.content.file import OpenFile
from fusefs.content.protocol import Buffer
from fusefs.errors import Unavailable

_INTERVAL = 1.0
"""Seconds for which one look at the file is good enough for reads."""


class WatchedFile(OpenFile):
    """An open file that gives an error, for good, once somebody else has written to it.

    That shows in its size, mtime and ctime: `check` looks at them, and so does a read that comes a second or
    more after the last look.  To unlink the file, to rename it or to put another in its place does no harm,
    since the descriptor keeps the old bytes.  That, a link, chmod and chown move the ctime alone, and are told
    by what else they change: links, mode, owner or path.  A ctime that moves and nothing else means bytes that
    were written and an mtime that was put back (or an extended attribute: that is not told apart).  A writer
    who moves none of them, through an old mapping, is not seen.

    The look comes after the read, so that no byte older than it is wrong.  What is no regular file (a pipe) is
    not watched: it is read once, to its end.

    Safe under concurrency: `_lock` guards all but `_due`, which is read without it; an old value of that costs
    one look more, or makes a look one read later.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, name)
        self._lock = threading.Lock()
        self._changed: Unavailable | None = None
        self._bytes, self._ctime_ns, self._about = self._state()
        self._due = math.inf
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._due = time.monotonic() + _INTERVAL
            super().read_cached(0, 1)  # so that `_nowait` is known from the beginning

    def read_at(self, offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* on, fewer only at the end; Unavailable once the file has changed."""
        data = super().read_at(offset, size)
        if time.monotonic() >= self._due or (len(data) < size and self._due < math.inf):
            self._look()
        return data

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the same if it is in the page cache, else None; Unavailable once the file has changed."""
        data = super().read_cached(offset, size, buffer)
        # Where no read is without waiting, as over a network, a look may wait too: it is left to `read_at`.
        if data is not None and time.monotonic() >= self._due:
            self._look()
        return data

    def check(self) -> None:
        """Raise Unavailable if the file has changed; looks only where that does not wait."""
        if self._due < math.inf and (self._nowait or self._changed):
            self._look()

    def _look(self) -> None:
        with self._lock:
            if self._changed is None and not self._is_same():
                msg = f"{self.name} was changed while it is in use; unmount it and mount it again"
                self._changed = Unavailable(msg)
            if self._changed is not None:
                self._due = 0.0
                # The same each time, so that the log has it once; without the traceback, which would grow.
                raise self._changed.with_traceback(None)
            self._due = time.monotonic() + _INTERVAL

    def _is_same(self) -> bool:
        found = os.fstat(self.descriptor)
        if (found.st_size, found.st_mtime_ns) != self._bytes:
            return False
        if found.st_ctime_ns == self._ctime_ns:
            return True
        before = self._about
        _, self._ctime_ns, self._about = self._state()
        return self._about != before

    def _state(self) -> tuple[tuple[int, int], int, tuple[int, int, int, int, str]]:
        """Return what stands for the bytes, the ctime, and what else of the inode moves that."""
        found = os.fstat(self.descriptor)
        path = os.readlink(f"/proc/self/fd/{self.descriptor}")
        about = (found.st_nlink, found.st_mode, found.st_uid, found.st_gid, path)
        return (found.st_size, found.st_mtime_ns), found.st_ctime_ns, about
