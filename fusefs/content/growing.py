"""A file that grows in another process, which reports how far it has come."""

import os
import threading

from fusefs.content.file import Extent, OpenFile
from fusefs.content.protocol import Bytes

_COMPLETE = 1 << 63
_REPORT = 8
"""Bytes of a report."""


def report(written: int, *, complete: bool) -> bytes:
    """Return the message that *written* bytes of a file are there, and whether these are all."""
    return (written | (_COMPLETE if complete else 0)).to_bytes(_REPORT, "little")


class GrowingFile:
    """A file that another process writes.  Reads of bytes that are not there yet wait for them.

    `_grown` guards `_written` and `_complete`.
    """

    def __init__(self, file: OpenFile, start: int) -> None:
        """Read *file* from the offset *start* on."""
        self._file = file
        self._start = start
        self._written = 0
        self._complete = False
        self._grown = threading.Condition()

    @property
    def name(self) -> str:
        """The name for messages."""
        return self._file.name

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes, fewer at the end; OSError (EIO) if the file ends before."""
        with self._grown:
            self._grown.wait_for(lambda: self._complete or self._written >= offset + size)
        return Extent(self._file, self._start, self._written).read_at(offset, size)

    def length(self) -> int:
        """Return the size; waits for the end."""
        with self._grown:
            self._grown.wait_for(lambda: self._complete)
        return self._written

    def follow(self, reports: int) -> None:
        """Take reports from the file descriptor *reports* until it ends."""
        data = b""
        while more := os.read(reports, 1 << 16):
            data += more
            whole = len(data) // _REPORT * _REPORT
            if whole:
                number = int.from_bytes(data[whole - _REPORT : whole], "little")
                data = data[whole:]
                with self._grown:
                    self._written, self._complete = number & ~_COMPLETE, number >= _COMPLETE
                    self._grown.notify_all()
