"""Python file objects that read a content."""

import io
import os

from fusefs.content.protocol import Content


class ContentFile(io.RawIOBase):
    """A raw file with its own position; several files may share the content."""

    def __init__(self, content: Content, name: str) -> None:
        """Read *content* from its beginning; *name* is the file's attribute `name`."""
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
        """Change the position and return it; ValueError for a negative position."""
        self._check_open()
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._content.size}[whence]
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # BufferedReader passes a memoryview
        """Read into *buffer* and return the number of bytes, 0 at the end."""
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
