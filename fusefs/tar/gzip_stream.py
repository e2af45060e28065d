"""The plain bytes of a gzip stream: members, one after the other, with zeros between and behind them (RFC 1952).

What is accepted is what Python's gzip accepts.  ISA-L inflates, more than twice as fast as zlib; zlib
stands in where isal cannot be imported, as on an architecture without wheels.
"""

import importlib
import io
from contextlib import suppress
from gzip import BadGzipFile
from typing import Any

_MAGIC = b"\x1f\x8b"
_DEFLATE = 8
_HEADER_SUM, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
"""Flags of a header: parts that follow it."""
_READ = 1 << 18
_SMALLEST_FEED = 1 << 14
"""Bytes that a member's inflater gets first.  Twice as many each time: it copies all that follows a small member."""


def _library() -> Any:
    with suppress(ImportError):
        return importlib.import_module("isal.isal_zlib")
    return importlib.import_module("zlib")


LIBRARY = _library()
"""Imported with this module: a serving process opens as few files as possible."""


class GzipStream:
    """The plain bytes of *file*.  Raises BadGzipFile, and EOFError if it is truncated."""

    def __init__(self, file: io.BufferedReader, library: Any = LIBRARY) -> None:
        """*library* has the functions of `zlib`."""
        self._file = file
        self._library = library
        self._data = b""
        self._at = 0
        """The position in `_data`, bytes of *file* that are in use."""
        self._inflater: Any = None
        self._feed = _SMALLEST_FEED
        self._sum = self._length = 0

    def read1(self, size: int) -> bytes:
        """Return some of the plain bytes, at most *size*; empty at the end."""
        plain = b""
        while not plain:
            if self._inflater is not None and self._inflater.eof:
                self._end_member()
            if self._inflater is None and not self._begin_member():
                return b""
            plain = self._inflated(size)
        return plain

    def close(self) -> None:
        """Give up the memory of the inflater."""
        self._inflater = None

    def _inflated(self, size: int) -> bytes:
        fed = memoryview(self._data)[self._at : self._at + self._feed] if self._fill(1) else memoryview(b"")
        self._feed = min(2 * self._feed, _READ)
        try:
            plain: bytes = self._inflater.decompress(fed, size)
        except self._library.error:
            raise BadGzipFile("invalid deflate data") from None  # the words of the libraries differ
        if not fed and not plain and not self._inflater.eof:
            raise EOFError
        self._sum = self._library.crc32(plain, self._sum)
        self._length += len(plain)
        rest = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
        end = self._at + len(fed)
        self._at = end - len(rest)
        if self._at < 0:  # ISA-L gives back bytes of the feed before, too
            self._data, self._at = rest + self._data[end:], 0
        return plain

    def _begin_member(self) -> bool:
        """Read the header of a member; return False at the end of the stream."""
        if not self._fill(1):
            return False
        self._fill(2)
        magic = self._data[self._at : self._at + 2]
        if magic != _MAGIC:
            raise BadGzipFile(f"Not a gzipped file ({magic!r})")
        method, flags = self._exactly(10)[2:4]
        if method != _DEFLATE:
            raise BadGzipFile("Unknown compression method")
        if flags & _EXTRA:
            self._exactly(int.from_bytes(self._exactly(2), "little"))
        for text in (_NAME, _COMMENT):
            if flags & text:
                self._skip_text()
        if flags & _HEADER_SUM:
            self._exactly(2)
        self._inflater = self._library.decompressobj(-15)
        self._feed, self._sum, self._length = _SMALLEST_FEED, 0, 0
        return True

    def _end_member(self) -> None:
        """Compare the trailer of a member, and skip zeros."""
        trailer = self._exactly(8)
        stated = int.from_bytes(trailer[:4], "little")
        if stated != self._sum:
            raise BadGzipFile(f"CRC check failed {hex(stated)} != {hex(self._sum)}")
        if int.from_bytes(trailer[4:], "little") != self._length & 0xFFFFFFFF:
            raise BadGzipFile("Incorrect length of data produced")
        self._inflater = None
        while self._fill(1) and not self._data[self._at]:
            behind = self._data[self._at :].lstrip(b"\0")
            self._at = len(self._data) - len(behind)

    def _skip_text(self) -> None:
        while self._fill(1):
            end = self._data.find(b"\0", self._at)
            self._at = len(self._data) if end < 0 else end + 1
            if end >= 0:
                return

    def _exactly(self, count: int) -> bytes:
        if not self._fill(count):
            raise EOFError
        self._at += count
        return self._data[self._at - count : self._at]

    def _fill(self, count: int) -> bool:
        """Read until *count* bytes are there; return False if the stream ends before."""
        while len(self._data) - self._at < count:
            more = self._file.read1(_READ)
            if not more:
                return False
            self._data, self._at = self._data[self._at :] + more, 0
        return True
