"""A file of many small pieces in few reads."""

from typing import Protocol

from fusefs.content.protocol import Bytes

_SMALLEST, _LARGEST = 1 << 12, 1 << 16
"""Bytes of a window.  A call costs as much as 4 KiB; larger ones only where the pieces lie close together."""


class Readable(Protocol):
    """What has bytes."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return *size* bytes, fewer only at the end."""


class Window:
    """A stretch of a file in memory, moved ahead by who reads: small where much is passed over, else larger.

    Of one thread.
    """

    def __init__(self, file: Readable) -> None:
        """Read from *file*."""
        self.data = b""
        self.start = 0
        """Where the data begins in the file."""
        self._file = file
        self._size = _SMALLEST // 2

    def reach(self, offset: int, least: int) -> bool:
        """Move to *offset*, if need be; return whether *least* bytes from there on are in the window.

        They are not where the file ends before, and where it cannot be read: whoever reads no more than
        he needs may be luckier, or gets the error.
        """
        at = offset - self.start
        if 0 <= at <= len(self.data) - least:
            return True
        near = 0 <= at < len(self.data) + self._size
        self._size = min(2 * self._size, _LARGEST) if near else _SMALLEST
        try:
            self.start, self.data = offset, bytes(self._file.read_at(offset, max(least, self._size)))
        except (OSError, OverflowError):
            self.data = b""
        return len(self.data) >= least
