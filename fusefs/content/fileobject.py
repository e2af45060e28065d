"""A content as Python's file objects."""

import io
import os

from fusefs.content.protocol import Content


class ContentFile(io.RawIOBase):
    """A raw file that reads a content.  Each has a position of its own; the content is shared."""

    def __init__(self, content: Content, name: str) -> None:
        """Read *content* from its begin on; *name* is what the file is called."""
        super().__init__()
        self._content = content
        self._position = 0
        self.name = name
        self.mode = "rb"

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; ValueError for one before the file."""
        self._check_open()
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._content.size}[whence]
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer, as BufferedReader passes one
        """Read into *buffer* and return how many bytes, 0 at the end."""
        self._check_open()
        data = self._content.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def open_content(content: Content, name: str) -> io.BufferedReader:
    """Return a new buffered file that reads *content*."""
    return io.BufferedReader(ContentFile(content, name))
