"""Detects changes of a user's file while it is in use."""

import math
import os
import stat
import threading
import time

from fusefs.content.file import OpenFile
from fusefs.content.protocol import Buffer
from fusefs.errors import Unavailable

_INTERVAL = 1.0
"""Seconds between checks of the file by reads."""


class WatchedFile(OpenFile):
    """An open file whose reads fail permanently after somebody else has written to it.

    A write shows in the size, mtime and ctime of the file.  `check` compares them, and so does a read at least
    one second after the last comparison.  Unlinking, renaming or replacing the file is harmless, since the
    descriptor still reads the old bytes.  These operations, link, chmod and chown change the ctime and also the
    number of links, the mode, the owner or the path.  If only the ctime changes, somebody wrote and then
    restored the mtime, or set an extended attribute; the two cannot be distinguished.  A write through an old
    memory mapping that changes no time is not detected.

    The comparison follows the read, so bytes returned before it are right.  Files that are not regular (pipes)
    are not watched: they are read once, to their end.

    Safe under concurrency: `_lock` guards everything but `_due`, which is read without it.  A stale value of
    `_due` causes one more comparison, or delays one by one read.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, name)
        self._lock = threading.Lock()
        self._changed: Unavailable | None = None
        self._bytes, self._ctime_ns, self._about = self._state()
        self._due = math.inf
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._due = time.monotonic() + _INTERVAL
            super().read_cached(0, 1)  # sets `_nowait` to its final value

    def read_at(self, offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* on, fewer only at the end; Unavailable once the file has changed."""
        data = super().read_at(offset, size)
        if time.monotonic() >= self._due or (len(data) < size and self._due < math.inf):
            self.compare()
        return data

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the same bytes if they are in the page cache, else None; Unavailable once the file has changed."""
        data = super().read_cached(offset, size, buffer)
        # Where no read succeeds without waiting (network file systems), fstat may wait too; `read_at` calls it.
        if data is not None and time.monotonic() >= self._due:
            self.compare()
        return data

    def check(self) -> None:
        """Raise Unavailable if the file has changed; compares only where that does not wait."""
        if self._due < math.inf and (self._nowait or self._changed):
            self.compare()

    def compare(self) -> None:
        """Raise Unavailable if the file has changed; may wait for a network file system."""
        with self._lock:
            if self._changed is None and not self._is_same():
                self._changed = Unavailable(
                    f"{self.name} was changed while it is in use; unmount it and mount it again"
                )
            if self._changed is not None:
                self._due = 0.0
                # The same exception each time, so that it is logged once; without its traceback, which would grow.
                raise self._changed.with_traceback(None)
            self._due = time.monotonic() + _INTERVAL

    def _is_same(self) -> bool:
        status = os.fstat(self.descriptor)
        if (status.st_size, status.st_mtime_ns) != self._bytes:
            return False
        if status.st_ctime_ns == self._ctime_ns:
            return True
        before = self._about
        _, self._ctime_ns, self._about = self._state()
        return self._about != before

    def _state(self) -> tuple[tuple[int, int], int, tuple[int, int, int, int, str]]:
        """Return size and mtime, the ctime, and the other attributes whose changes change the ctime."""
        status = os.fstat(self.descriptor)
        path = os.readlink(f"/proc/self/fd/{self.descriptor}")
        about = (status.st_nlink, status.st_mode, status.st_uid, status.st_gid, path)
        return (status.st_size, status.st_mtime_ns), status.st_ctime_ns, about
