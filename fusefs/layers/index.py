"""A layer index: the tree in a layer's tar as fixed-width records and a heap, written once and read whole.

Records of one directory lie next to each other, ordered by name, so that a listing is a run of records and a lookup a
binary search; the root is record 0.  No object is held for a record: a `Record` is made for each request.  The file is
not mapped: a mapped file that somebody cuts, or a disk that fails, would end the process with SIGBUS.
"""

import stat
from array import array
from collections.abc import Iterator
from functools import cached_property
from zlib import crc32

from fusefs.content.file import OpenFile
from fusefs.content.window import Readable, Window
from fusefs.layers.record import (
    IMPLICIT,
    LOWER_LINK,
    MAX_NAME,
    RECORD_SIZE,
    RECORDS,
    WHITEOUT,
    IndexHeader,
    Record,
    children_span,
    iter_files,
    iter_listed,
    iter_runs,
    name_place,
    record_fields,
    record_mode,
    unpack_xattrs,
)

_BLOCK = 512
_record = tuple.__new__
"""Makes a `Record` in half the time of calling it."""


class BrokenIndex(ValueError):
    """The file is not a layer index, one of another version, or not complete."""


class LayerIndex:
    """A layer index in memory.  Safe under concurrency: it never changes."""

    def __init__(self, descriptor: int) -> None:
        """Read the layer index in the open file *descriptor*, which may be closed afterwards.

        Raises BrokenIndex if the file is not a layer index, or not as long as its header says; all other bytes are
        trusted.  OSError if it cannot be read.
        """
        file = OpenFile(descriptor, "a layer index")
        self._data = file.read_at(0, file.length())
        if not self._data:
            raise BrokenIndex("the layer index is empty")
        header = IndexHeader.unpacked(self._data)
        if header is None:
            raise BrokenIndex("the file is not a layer index of this version")
        if header.size != len(self._data) or not header.is_consistent():
            raise BrokenIndex(f"the layer index has {len(self._data)} bytes, which its parts do not add up to")
        self._header = header
        self._heap = header.heap
        self.count = header.records
        self._marked = self._data.find(WHITEOUT, header.heap, header.tables) >= 0
        """Whether there may be whiteouts: most layers have none, and need no search for them."""

    def record(self, number: int) -> Record:
        """Return a record; IndexError for the number of none, as in a file handle that is made up."""
        if number >= self.count:
            raise IndexError(number)
        return _record(Record, (number, *record_fields(self._data, RECORDS + number * RECORD_SIZE)))

    def files(self) -> Iterator[tuple[int, ...]]:
        """Yield the `FileFields` of each record, as plain tuples, the first record's first."""
        return iter_files(memoryview(self._data)[RECORDS : self._heap])

    def listed(self, directory: int) -> Iterator[tuple[bytes, int, int, int, int]]:
        """Yield name, number, inode, mode and flags of a directory's records, in order: all that a listing needs."""
        data, heap = self._data, self._heap
        first, children = children_span(data, RECORDS + directory * RECORD_SIZE)
        start = RECORDS + first * RECORD_SIZE
        records = memoryview(data)[start : start + children * RECORD_SIZE]
        for number, (at, length, inode, mode, flags) in enumerate(iter_listed(records), first):
            yield data[heap + at : heap + at + length], number, inode, mode, flags

    def entries(self, directory: int, base: int = 0) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, inode plus *base*, and mode of a directory's records, without hard links into lower layers.

        Left out are also names that are longer than the kernel takes.
        """
        data, heap = self._data, self._heap
        first, children = children_span(data, RECORDS + directory * RECORD_SIZE)
        start = RECORDS + first * RECORD_SIZE
        records = memoryview(data)[start : start + children * RECORD_SIZE]
        for at, length, inode, mode, flags in iter_listed(records):
            if not flags & LOWER_LINK and length <= MAX_NAME:
                yield data[heap + at : heap + at + length], base + inode, mode

    def lower_links(self) -> list[int]:
        """Return the numbers of the records that are hard links into lower layers."""
        return list(self._table("I", self._header.links, self._header.lower_links))

    def headers_match(self, tar: Readable) -> bool:
        """Return whether the last header block of each member is unchanged, at its offset in *tar*.

        OSError if one cannot be read.
        """
        header = self._header
        offsets = self._table("Q", header.tables, header.members)
        sums = self._table("I", header.sums, header.members)
        window = Window(tar)
        for offset, expected in zip(offsets, sums, strict=True):
            if window.reach(offset, _BLOCK):
                at = offset - window.start
                block = window.data[at : at + _BLOCK]
            else:
                block = bytes(tar.read_at(offset, _BLOCK))  # bytes that cannot be read may follow the block
            if crc32(block) != expected:
                return False
        return True

    def _table(self, code: str, start: int, length: int) -> "array[int]":
        table = array(code)
        table.frombytes(self._data[start : start + length * table.itemsize])
        return table

    def name(self, number: int) -> bytes:
        """Return a record's name."""
        return self.bytes_at(*name_place(self._data, RECORDS + number * RECORD_SIZE))

    def is_directory(self, number: int) -> bool:
        """Return whether a record is that of a directory."""
        (mode,) = record_mode(self._data, RECORDS + number * RECORD_SIZE)
        return stat.S_ISDIR(mode)

    def text(self, record: Record) -> bytes:
        """Return the target of a symbolic link, or the path of a hard link into a lower layer."""
        return self.bytes_at(record.text_offset, record.text_length)

    def runs(self, record: Record) -> list[tuple[int, int, int]]:
        """Return the runs of a sparse file: offset in the file, offset in the tar, size."""
        return list(iter_runs(self.text(record)))

    def xattrs(self, record: Record) -> list[tuple[bytes, bytes]]:
        """Return the extended attributes of a file."""
        return unpack_xattrs(self.bytes_at(record.xattr_offset, record.xattr_length))

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the number of the record called *name* in *directory*, None if there is no such record."""
        number, end = self._reach(directory, name)
        return number if number < end and self.name(number) == name else None

    def whiteouts(self, directory: int) -> Iterator[bytes]:
        """Yield the names of a directory's whiteouts without their prefix, in order."""
        number, end = self._reach(directory, WHITEOUT)
        while number < end and (name := self.name(number)).startswith(WHITEOUT):
            if not self.record(number).flags & IMPLICIT:
                yield name[len(WHITEOUT) :]
            number += 1

    @cached_property
    def may_have_whiteouts(self) -> bool:
        """Whether a name may begin as those of whiteouts do: whether the heap has that anywhere."""
        return self._data.find(WHITEOUT, self._heap) >= 0

    def has_marker(self, directory: int, name: bytes) -> bool:
        """Return whether *directory* has the whiteout or opaque marker *name*; an implicit directory is none."""
        number = self.find(directory, name) if self._marked else None
        return number is not None and not self.record(number).flags & IMPLICIT

    def is_shown(self, number: int, name: bytes) -> bool:
        """Return whether the record called *name* is a file of the merged layers.

        A whiteout is none, but engines make a directory of its name where a member lies below it, unless the name
        is longer than the kernel takes.
        """
        return not name.startswith(WHITEOUT) or (self.record(number).children > 0 and len(name) <= MAX_NAME)

    def _reach(self, directory: int, name: bytes) -> tuple[int, int]:
        """Return the number of the first record that does not precede *name*, and the end of the directory's run."""
        data, heap = self._data, self._heap
        low, children = children_span(data, RECORDS + directory * RECORD_SIZE)
        high = end = low + children
        while low < high:
            middle: int = (low + high) // 2
            offset, length = name_place(data, RECORDS + middle * RECORD_SIZE)
            if data[heap + offset : heap + offset + length] < name:
                low = middle + 1
            else:
                high = middle
        return low, end

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Return a piece of the heap."""
        start = self._heap + offset
        return self._data[start : start + length]
