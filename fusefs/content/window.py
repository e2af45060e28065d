"""Reads many small pieces of a file with few calls."""

from typing import Protocol

from fusefs.content.protocol import Bytes

_SMALLEST, _LARGEST = 1 << 12, 1 << 16
"""Bytes of a window.  A call costs as much as reading 4 KiB; a larger window pays only if the pieces are close."""


class Readable(Protocol):
    """Anything that can be read at an offset."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return *size* bytes, fewer only at the end."""


class Window:
    """A part of a file in memory, moved ahead by the reader; its size grows while the pieces are close together.

    For use by one thread.
    """

    def __init__(self, file: Readable) -> None:
        """Read from *file*."""
        self.data = b""
        self.start = 0
        """Offset of `data` in the file, in bytes."""
        self._file = file
        self._size = _SMALLEST // 2

    def reach(self, offset: int, least: int) -> bool:
        """Move to *offset*, if necessary; return whether the window has *least* bytes from there on.

        It has fewer if the file ends before, or cannot be read.  The caller then reads only the bytes that it
        needs: that may succeed, or it raises the error.
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
