"""A file on another machine that is read by ranges: a sparse local file that fills as it is read."""

import threading
import time
from collections.abc import Callable

from fusefs.content.file import Extent, OpenFile
from fusefs.content.pieces import FetchFailed, Pieces
from fusefs.content.protocol import Buffer, clipped

_SMALLEST, _LARGEST = 16 << 10, 4 << 20
"""Bytes that are fetched at once: few for a header or a document, many for a reader that goes on."""
_NEAR = 1 << 20
"""Bytes that a reader may skip and still count as going on: about as many as arrive in the time of a request."""
_LONG = 1.0
"""Seconds after which bytes that failed with others are not asked for alone: their reader has waited."""
_READERS = 8
"""Readers whose positions are remembered."""


class RemoteFile(OpenFile):
    """The file.  Its bytes are as the other machine sent them: nothing is verified, as with a file of the user.

    A miss fetches a window, which doubles while a reader goes on.  So a scan of many small members takes few requests,
    and one of large members a small request for each.

    Safe under concurrency: `_lock` guards `_readers`; see `Pieces` for the bytes.
    """

    def __init__(self, pieces: Pieces, check: Callable[[], None]) -> None:
        """*check* raises Unavailable if the file is known to have changed."""
        super().__init__(pieces.file.descriptor, pieces.file.name)
        self._pieces = pieces
        self._check = check
        self._lock = threading.Lock()
        self._readers: list[tuple[int, int]] = []
        """The end of the last window of each reader, and its size; the most recent one is the last."""

    def length(self) -> int:
        """Return the size of the file in bytes."""
        return self._pieces.size

    def slice(self, offset: int, size: int) -> "RemoteExtent":
        """Return a run of bytes, without reading them."""
        return RemoteExtent(self, offset, size)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* on, fewer only at the end; fetches missing ones.  Raises FetchFailed."""
        size = clipped(self._pieces.size, offset, size)
        if size and not self._pieces.has(offset, offset + size):
            self._fetch(offset, offset + size)
        return super().read_at(offset, size)

    def _fetch(self, offset: int, end: int) -> None:
        """Fetch the bytes from *offset* up to *end*, and more for a reader that goes on."""
        ahead = self._ahead(offset, end)
        began = time.monotonic()
        try:
            self._pieces.ensure(offset, ahead)
        except FetchFailed:
            if ahead == end:
                raise
            with self._lock:
                self._readers = [*(each for each in self._readers if each[0] != ahead), (end, end - offset)]
            if time.monotonic() > began + _LONG and not self._pieces.has(offset, end):
                raise
            self._pieces.ensure(offset, end)  # at once, if they are here

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the bytes if they are here, and in the page cache, else None."""
        return super().read_cached(offset, size, buffer) if self._pieces.has(offset, offset + size) else None

    def has(self, offset: int, size: int) -> bool:
        """Return whether the bytes are here."""
        return self._pieces.has(offset, offset + clipped(self._pieces.size, offset, size))

    def fetch(self, offset: int, size: int) -> None:
        """Fetch the missing ones of *size* bytes, and no others.  Raises FetchFailed."""
        self._pieces.ensure(offset, offset + clipped(self._pieces.size, offset, size))

    def check(self) -> None:
        """Raise Unavailable if the file is known to have changed; does not ask."""
        self._check()

    def close(self) -> None:
        """Close the local file."""
        self._pieces.close()

    def _ahead(self, offset: int, end: int) -> int:
        """Return up to where to fetch for a reader of the bytes from *offset* up to *end*."""
        with self._lock:
            last = next((each for each in self._readers if -each[1] <= offset - each[0] < _NEAR), None)
            if last is not None:
                self._readers.remove(last)
            window = _SMALLEST if last is None else min(2 * last[1], _LARGEST)
            end = min(max(end, offset + window), self._pieces.size)
            self._readers = [*self._readers, (end, end - offset)][-_READERS:]
        return end


class RemoteExtent(Extent):
    """A run of bytes in a remote file."""

    __slots__ = ()
    file: RemoteFile

    def slice(self, offset: int, size: int) -> "RemoteExtent":
        """Return a run of bytes in the same file."""
        return RemoteExtent(self.file, self.offset + offset, size)

    @property
    def is_here(self) -> bool:
        """Whether all bytes were fetched."""
        return self.file.has(self.offset, self.size)

    def file_place(self) -> None:  # type: ignore[override]  # a file has a place, a file elsewhere has not
        """Return None: the local file has holes, and what is in it is not verified."""

    def fetch(self) -> None:
        """Fetch the missing bytes.  Raises FetchFailed."""
        self.file.fetch(self.offset, self.size)
