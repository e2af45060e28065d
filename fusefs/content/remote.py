"""A blob that another machine has: a local file from its first access on."""

import errno
import threading
from collections.abc import Callable

from fusefs.content.file import Extent, OpenFile
from fusefs.content.protocol import Buffer, Bytes, Content, FilePlace, Slice
from fusefs.errors import ImgfsError, NoSpace


class FetchFailed(OSError):
    """A blob cannot be fetched now; the next access tries again."""

    def __init__(self, error: ImgfsError) -> None:
        super().__init__(errno.ENOSPC if isinstance(error, NoSpace) else errno.EIO, str(error))
        self.error = error
        """The reason, for users."""


def _not_cached() -> None:
    """Find nothing."""


class RemoteBlob:
    """A blob that is fetched whole at the first access, and shown only when it is verified.

    Safe under concurrency: `_lock` guards the fetch.  Threads that wait for a fetch share its error; the next access
    tries again.
    """

    def __init__(
        self, size: int, fetch: Callable[[], OpenFile], cached: Callable[[], OpenFile | None] = _not_cached
    ) -> None:
        """*fetch* returns the file of the *size* bytes, verified; it raises an ImgfsError.

        *cached* returns the same file without a request, None if it is not here.
        """
        self.size = size
        self._fetch = fetch
        self._cached = cached
        self._extent: Extent | None = None
        self._failed: ImgfsError | None = None
        self._failures = 0
        self._lock = threading.Lock()

    @property
    def stored(self) -> int:
        """All bytes count as stored."""
        return self.size

    @property
    def identity(self) -> str:
        """Always the same: the digest alone distinguishes the bytes."""
        return "0"

    def slice(self, offset: int, size: int) -> Content:
        """Return a part of the bytes."""
        return Slice(self, offset, size)

    def fetch(self) -> None:
        """Fetch the bytes, unless they are here.  Raises FetchFailed."""
        self._fetched()

    def file_place(self) -> FilePlace | None:
        """Return the position of the bytes, None if they are neither fetched nor cached; waits for no fetch."""
        if self._extent is None and self._lock.acquire(blocking=False):
            try:
                if self._extent is None and (file := self._cached()) is not None:
                    self._extent = Extent(file, 0, self.size)
            finally:
                self._lock.release()
        return None if self._extent is None else self._extent.file_place()

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes; fetches the blob first.  Raises FetchFailed."""
        return self._fetched().read_at(offset, size)

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the bytes if they are here and in the page cache, else None."""
        return None if self._extent is None else self._extent.read_cached(offset, size, buffer)

    def check(self) -> None:
        """Do nothing: nobody but imgfs writes to the file."""

    def close(self) -> None:
        """Close the file."""
        if self._extent is not None:
            self._extent.close()

    def _fetched(self) -> Extent:
        if self._extent is not None:
            return self._extent
        failures = self._failures
        with self._lock:
            if self._extent is None and self._failed is not None and self._failures != failures:
                raise FetchFailed(self._failed)
            if self._extent is None:
                try:
                    self._extent = Extent(self._fetch(), 0, self.size)
                except ImgfsError as error:
                    self._failed = error.with_traceback(None)
                    self._failures += 1
                    raise FetchFailed(error) from None
            return self._extent
