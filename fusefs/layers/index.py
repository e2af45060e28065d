"""A layer's index: the tree in its tar as fixed-width records and a heap, written once and read whole.

A record is an entry of a directory.  Entries of one directory lie next to each other, ordered by
name, so that a listing is a run of records and a lookup a binary search; the root is record 0.
No object is held for a record: an `Entry` is made for each request.  The file is not mapped: one that
somebody cuts, or a disk that fails, would end the process with SIGBUS.
"""

import stat
import struct
from array import array
from collections.abc import Iterator
from zlib import crc32

from fusefs.content.file import OpenFile
from fusefs.content.window import Readable, Window
from fusefs.layers.record import HEADER, MAGIC, PLACE, RECORD, RUN, WHITEOUT, XATTR, Entry


class BrokenIndex(ValueError):
    """The file is no index, one of another version, or not whole."""


class LayerIndex:
    """An index in memory.  Safe under concurrency: it never changes."""

    def __init__(self, descriptor: int) -> None:
        """Read the index in the open file *descriptor*, which may be closed afterwards.

        Raises BrokenIndex if it is none, or not as long as it says; all other bytes are trusted.  OSError if it cannot
        be read.
        """
        file = OpenFile(descriptor, "an index")
        self._data = file.read_at(0, file.length())
        if not self._data:
            raise BrokenIndex("the index is empty")
        if len(self._data) < HEADER.size or self._data[: len(MAGIC)] != MAGIC:
            raise BrokenIndex("the index is of another version, or none")
        _, size, self.count, self._heap, self._tables, self._headers, self._links = HEADER.unpack_from(self._data)
        if (
            size != len(self._data)
            or self.count < 1
            or self._heap != HEADER.size + self.count * RECORD.size
            or not self._heap <= self._tables <= size
            or self._tables + self._headers * (8 + 4) + self._links * 4 != size
        ):
            raise BrokenIndex(f"the index has {len(self._data)} bytes, and its parts do not make them up")

    def entry(self, record: int) -> Entry:
        """Return a record."""
        return _entry(Entry, (record, *RECORD.unpack_from(self._data, HEADER.size + record * RECORD.size)))

    def listed(self, directory: int) -> Iterator[tuple[bytes, int, int, int, int]]:
        """Yield name, record, inode, mode and flags of a directory's entries, in order: what a listing needs."""
        data, heap = self._data, self._heap
        first, entries = _SPAN.unpack_from(data, HEADER.size + directory * RECORD.size + _SPAN_AT)
        start = HEADER.size + first * RECORD.size
        records = memoryview(data)[start : start + entries * RECORD.size]
        for record, (at, length, inode, mode, flags) in enumerate(_LISTED.iter_unpack(records), first):
            yield data[heap + at : heap + at + length], record, inode, mode, flags

    def lower_links(self) -> list[int]:
        """Return the records of hard links into lower layers."""
        return list(self._table("I", self._tables + self._headers * (8 + 4), self._links))

    def headers_match(self, tar: Readable) -> bool:
        """Return whether the last header of each member is still in *tar* where it was, and as it was.

        OSError if one cannot be read.
        """
        offsets = self._table("Q", self._tables, self._headers)
        sums = self._table("I", self._tables + self._headers * 8, self._headers)
        window = Window(tar)
        for offset, expected in zip(offsets, sums, strict=True):
            if window.reach(offset, _BLOCK):
                at = offset - window.start
                block = window.data[at : at + _BLOCK]
            else:
                block = bytes(tar.read_at(offset, _BLOCK))  # what cannot be read may lie behind it
            if crc32(block) != expected:
                return False
        return True

    def _table(self, code: str, start: int, length: int) -> "array[int]":
        table = array(code)
        table.frombytes(self._data[start : start + length * table.itemsize])
        return table

    def name(self, record: int) -> bytes:
        """Return a record's name."""
        offset, length = _NAME.unpack_from(self._data, HEADER.size + record * RECORD.size)
        return self._bytes(offset, length)

    def is_directory(self, record: int) -> bool:
        """Return whether a record is that of a directory."""
        (mode,) = _MODE.unpack_from(self._data, HEADER.size + record * RECORD.size + _MODE_AT)
        return stat.S_ISDIR(mode)

    def text(self, entry: Entry) -> bytes:
        """Return the target of a symbolic link, or the path of a link into a lower layer."""
        return self._bytes(entry.text_offset, entry.text_length)

    def runs(self, entry: Entry) -> list[tuple[int, int, int]]:
        """Return the runs of a sparse file: offset in the file, offset in the tar, size."""
        return list(RUN.iter_unpack(self.text(entry)))

    def xattrs(self, entry: Entry) -> Iterator[tuple[bytes, bytes]]:
        """Yield the extended attributes of a file."""
        data = self._bytes(entry.xattr_offset, entry.xattr_length)
        position = 0
        while position < len(data):
            name_length, value_length = XATTR.unpack_from(data, position)
            position += XATTR.size
            name = data[position : position + name_length]
            position += name_length
            yield name, data[position : position + value_length]
            position += value_length

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the record of *name* in *directory*, None if it is not there."""
        record, end = self._reach(directory, name)
        return record if record < end and self.name(record) == name else None

    def whiteouts(self, directory: int) -> Iterator[bytes]:
        """Yield what follows the prefix in the names of a directory's whiteouts, in order."""
        record, end = self._reach(directory, WHITEOUT)
        while record < end and (name := self.name(record)).startswith(WHITEOUT):
            yield name[len(WHITEOUT) :]
            record += 1

    def _reach(self, directory: int, name: bytes) -> tuple[int, int]:
        """Return the record of the first entry that is not before *name*, and the one behind the last entry."""
        data, heap = self._data, self._heap
        low, entries = _SPAN.unpack_from(data, HEADER.size + directory * RECORD.size + _SPAN_AT)
        high = end = low + entries
        while low < high:
            middle: int = (low + high) // 2
            offset, length = _NAME.unpack_from(data, HEADER.size + middle * RECORD.size)
            if data[heap + offset : heap + offset + length] < name:
                low = middle + 1
            else:
                high = middle
        return low, end

    def _bytes(self, offset: int, length: int) -> bytes:
        start = self._heap + offset
        return self._data[start : start + length]


_BLOCK = 512
_entry = tuple.__new__
"""Makes an `Entry` in half the time of calling it."""
_NAME = struct.Struct("<QH")
_LISTED = struct.Struct("<QH 12x I 4x 28x I 20x H 24x")
"""Of `RECORD` the name, inode, mode and flags."""
_SPAN = struct.Struct("<II")
_SPAN_AT = struct.calcsize("<QHI")
_MODE = struct.Struct("<I")
_MODE_AT = PLACE.size + struct.calcsize("<QQqI")
