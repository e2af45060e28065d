"""A layer's index: the tree in its tar as fixed-width records and a heap, written once and mapped.

A record is an entry of a directory.  Entries of one directory lie next to each other, ordered by
name, so that a listing is a run of records and a lookup a binary search; the root is record 0.
Nothing is stored in memory for a record: an `Entry` is made for each request.
"""

import mmap
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"imgfs layer 1\n\0\0"
HEADER = struct.Struct("<16sQQQ")
"""Magic, number of records, offset of the heap in bytes, number of hard links into lower layers."""
RECORD = struct.Struct("<QQQqIIIIIIIIIIIIHHIIQQ")
"""The fields of `Entry` after the first, in order."""
RUN = struct.Struct("<QQQ")
"""A run of a sparse file in the heap: offset in the file, offset in the tar, size."""
XATTR = struct.Struct("<HI")
"""Lengths of an extended attribute's name and value, which follow it in the heap."""

ROOT = 0

WHITEOUT = b".wh."
"""Begins the name of a whiteout (OCI image specification, "Whiteouts")."""
OPAQUE = b".wh..wh..opq"
"""Makes its directory opaque."""


IMPLICIT = 1
"""Flag of a directory that the layer does not list, but has entries of."""
LOWER_LINK = 2
"""Flag of a hard link to a path that this layer does not have."""
SPARSE = 4
"""Flag of a file whose data are runs in the heap."""
ONLY_WHITEOUTS = 8
"""Flag of an implicit directory with nothing but whiteouts below: it makes no directory of the merge."""

MAX_NAME = 255
MAX_TARGET = 4095
"""Bytes of a name and of a symbolic link's target that the kernel takes."""


class Entry(NamedTuple):
    """One record.  A tuple, since one is made for every request."""

    record: int
    name_offset: int
    offset: int
    """Of the file's bytes in the layer's tar."""
    size: int
    mtime: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    major: int
    minor: int
    parent: int
    """Record of the directory."""
    first: int
    """Record of a directory's first entry."""
    entries: int
    """Number of a directory's entries."""
    inode: int
    """Record that stands for the file: the first of its names."""
    nlink: int
    xattr_length: int
    flags: int
    """`IMPLICIT`, `LOWER_LINK`, `SPARSE`: numbers, since every request tests them."""
    name_length: int
    text_length: int
    blocks: int
    """Blocks of 512 bytes that a sparse file has stored."""
    text_offset: int
    xattr_offset: int


class LayerIndex:
    """A mapped index.  Safe under concurrency: it never changes."""

    def __init__(self, descriptor: int) -> None:
        """Map the index in the open file *descriptor*, which may be closed afterwards."""
        self._map = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        magic, self.count, self._heap, self._lower_links = HEADER.unpack_from(self._map)
        assert magic == MAGIC

    def entry(self, record: int) -> Entry:
        """Return a record."""
        return Entry(record, *RECORD.unpack_from(self._map, HEADER.size + record * RECORD.size))

    def children(self, directory: int) -> list[tuple[bytes, Entry]]:
        """Return the entries of a directory by name, in order."""
        entry = self.entry(directory)
        start = HEADER.size + entry.first * RECORD.size
        data = self._map[start : start + entry.entries * RECORD.size]
        entries = [Entry(record, *fields) for record, fields in enumerate(RECORD.iter_unpack(data), entry.first)]
        return [(self._bytes(child.name_offset, child.name_length), child) for child in entries]

    def names(self, directory: int) -> list[tuple[bytes, int, int]]:
        """Return name, inode and flags of a directory's entries, in order: what a listing needs."""
        entry = self.entry(directory)
        start = HEADER.size + entry.first * RECORD.size
        data = self._map[start : start + entry.entries * RECORD.size]
        return [
            (self._bytes(offset, length), inode, flags) for offset, inode, flags, length in _NAME.iter_unpack(data)
        ]

    def lower_links(self) -> list[int]:
        """Return the records of hard links into lower layers."""
        if not self._lower_links:
            return []
        return [record for record in range(self.count) if self.entry(record).flags & LOWER_LINK]

    def name(self, record: int) -> bytes:
        """Return a record's name."""
        at = HEADER.size + record * RECORD.size
        (offset,) = _NAME_OFFSET.unpack_from(self._map, at)
        (length,) = _NAME_LENGTH.unpack_from(self._map, at + _NAME_LENGTH_AT)
        return self._bytes(offset, length)

    def is_directory(self, record: int) -> bool:
        """Return whether a record is that of a directory."""
        (mode,) = _MODE.unpack_from(self._map, HEADER.size + record * RECORD.size + _MODE_AT)
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
        record = self._first_from(directory, name)
        entry = self.entry(directory)
        return record if record < entry.first + entry.entries and self.name(record) == name else None

    def _first_from(self, directory: int, name: bytes) -> int:
        entry = self.entry(directory)
        low, high = entry.first, entry.first + entry.entries
        while low < high:
            middle = (low + high) // 2
            if self.name(middle) < name:
                low = middle + 1
            else:
                high = middle
        return low

    def _bytes(self, offset: int, length: int) -> bytes:
        start = self._heap + offset
        return self._map[start : start + length]


_NAME_OFFSET = struct.Struct("<Q")
_NAME_LENGTH = struct.Struct("<H")
_NAME_LENGTH_AT = struct.calcsize("<QQQqIIIIIIIIIIIIH")
_NAME = struct.Struct(f"<Q{struct.calcsize('<QQqIIIIIIIII')}xI8xHH{struct.calcsize('<IIQQ')}x")
_MODE = struct.Struct("<I")
_MODE_AT = struct.calcsize("<QQQqI")
