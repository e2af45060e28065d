"""The file format of a layer index: the one module that knows fields, their order and their offsets.

A layer index is a header, the records, the heap, and three tables: of each member of the tar the offset of its last
header block (8 bytes), then of each that block's CRC-32 (4), then the numbers of the records that are hard links into
lower layers (4).  All numbers are little-endian.  A change of the format takes a new `MAGIC`.
"""

import stat
import struct
from typing import NamedTuple

MAGIC = b"imgfs layer 3\n\0\0"
ROOT = 0
"""The record of the layer's root directory."""
WHITEOUT = b".wh."
"""Prefix of a whiteout's name (OCI image specification, "Whiteouts")."""
OPAQUE = b".wh..wh..opq"
"""Name of the marker that makes its directory opaque (the same, "Opaque Whiteout")."""
IMPLICIT = 1
"""Flag of an implicit directory: the layer has files below it, but does not list it."""
LOWER_LINK = 2
"""Flag of a hard link to a path that this layer does not have."""
SPARSE = 4
"""Flag of a file whose data are runs in the heap."""
MAX_NAME = 255
MAX_TARGET = 4095
"""Bytes of a name and of a symbolic link's target that the kernel takes."""


class Record(NamedTuple):
    """One record: a name in a directory and the file it names.  A tuple, since one is made for every request."""

    number: int
    """Its own: records are numbered from 0.  Not stored."""
    name_offset: int
    name_length: int
    parent: int
    """Record of the directory."""
    first_child: int
    children: int
    """Number of records whose parent is this one; they follow each other."""
    inode: int
    """Record that stands for the file: the first of its names."""
    nlink: int
    offset: int
    """Offset of the file's bytes in the layer's tar."""
    size: int
    mtime: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    major: int
    minor: int
    xattr_length: int
    flags: int
    """`IMPLICIT`, `LOWER_LINK`, `SPARSE`: numbers, since every request tests them."""
    text_length: int
    blocks: int
    """Blocks of 512 bytes that a sparse file has stored."""
    text_offset: int
    xattr_offset: int


_PLACE = "QHIIIII"
"""Fields from `name_offset` to `nlink`: the record's place in the tree."""
_OWNED = "qIIII"
"""Fields from `mtime` to `gid`."""
_FILE = "QQ" + _OWNED + "IIIHIIQQ"
"""Fields from `offset` on: the file."""
_RECORD = struct.Struct("<" + _PLACE + _FILE)
RECORD_SIZE = _RECORD.size
record_fields = _RECORD.unpack_from
"""Returns the fields of `Record` but its number: (data, position of the record)."""

pack_place = struct.Struct("<" + _PLACE).pack
"""Packs the first part of a record: all fields of `_PLACE`."""
_FILE_PART = struct.Struct("<" + _FILE)
pack_file = _FILE_PART.pack
"""Packs the second part of a record: all fields of `_FILE`."""
pack_time = struct.Struct("<qI").pack
pack_owner = struct.Struct("<III").pack
"""These two pack mtime and mtime_ns, then mode, uid and gid, for `pack_plain_file`."""
TIME_SIZE = struct.calcsize("<qI")
unpack_attributes = struct.Struct("<qIIII").unpack
"""Unpacks a packed time and the packed owner after it."""
pack_plain_file = struct.Struct("<QQ24s14xI4xQ8x").pack
"""Packs the second part of a plain record: offset, size, packed time and owner, length and offset of the text."""


class FilePart(NamedTuple):
    """The second part of a record: the file, without its place in the tree.  Fields as in `Record`."""

    offset: int
    size: int
    mtime: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    major: int
    minor: int
    xattr_length: int
    flags: int
    text_length: int
    blocks: int
    text_offset: int
    xattr_offset: int

    @classmethod
    def unpacked(cls, packed: bytes) -> "FilePart":
        """Return the fields in the second part of a record."""
        return cls(*_FILE_PART.unpack(packed))


def without_flags(packed: bytes) -> bytes:
    """Return the second part of a record with no flags set."""
    return pack_file(*FilePart.unpacked(packed)._replace(flags=0))


def symlink_text(packed: bytes) -> tuple[int, int] | None:
    """Return offset and length of a symbolic link's target, from the second part of its record; None for others."""
    part = FilePart.unpacked(packed)
    return (part.text_offset, part.text_length) if stat.S_ISLNK(part.mode) else None


def _projection(*names: str) -> struct.Struct:
    """Return a struct that unpacks the fields called *names* from a whole record."""
    fields = zip(Record._fields[1:], _PLACE + _FILE, strict=True)
    return struct.Struct("<" + "".join(code if name in names else f"{struct.calcsize(f'<{code}')}x"
                                       for name, code in fields))  # fmt: skip


name_place = _projection("name_offset", "name_length").unpack_from
children_span = _projection("first_child", "children").unpack_from
record_mode = _projection("mode").unpack_from
"""These three unpack the fields that they are called after: (data, position of the record)."""
iter_listed = _projection("name_offset", "name_length", "inode", "mode", "flags").iter_unpack
"""Unpacks these fields from each of several records."""


class FileFields(NamedTuple):
    """What a record says of a file alone; the fields of `Record` with these names."""

    nlink: int
    offset: int
    size: int
    mtime: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    xattr_length: int
    flags: int
    text_length: int
    text_offset: int


iter_files = _projection(*FileFields._fields).iter_unpack
"""Unpacks the fields of `FileFields`, as plain tuples, from each of several records."""

_RUN = struct.Struct("<QQQ")
pack_run, iter_runs = _RUN.pack, _RUN.iter_unpack
"""A run of a sparse file in the heap: offset in the file, offset in the tar, size."""
_XATTR = struct.Struct("<HI")
"""Lengths of an extended attribute's name and value, which follow it in the heap."""


def pack_xattr(name: bytes, value: bytes) -> bytes:
    """Return an extended attribute as it lies in the heap."""
    return _XATTR.pack(len(name), len(value)) + name + value


def unpack_xattrs(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the extended attributes in *data*, a piece of the heap."""
    xattrs = []
    position = 0
    while position < len(data):
        name_length, value_length = _XATTR.unpack_from(data, position)
        value = position + _XATTR.size + name_length
        xattrs.append((data[value - name_length : value], data[value : value + value_length]))
        position = value + value_length
    return xattrs


_HEADER = struct.Struct("<16sQQQQQQ")
"""Magic, then the fields of `IndexHeader`, the size of the file first."""
RECORDS = _HEADER.size
"""Offset of the first record."""
_OFFSET_SIZE, _SUM_SIZE, _LINK_SIZE = 8, 4, 4


class IndexHeader(NamedTuple):
    """Where the parts of a layer index lie, in bytes from its beginning, and how long they are."""

    size: int
    """Of the whole file."""
    records: int
    """How many there are."""
    heap: int
    tables: int
    """Offset of the tables."""
    members: int
    """Members of the tar."""
    lower_links: int
    """Hard links into lower layers."""

    @classmethod
    def of(cls, records: int, heap_size: int, members: int, lower_links: int) -> "IndexHeader":
        """Return the header over parts of these lengths."""
        heap = RECORDS + records * RECORD_SIZE
        tables = heap + heap_size
        size = tables + (_OFFSET_SIZE + _SUM_SIZE) * members + _LINK_SIZE * lower_links
        return cls(size, records, heap, tables, members, lower_links)

    @classmethod
    def unpacked(cls, data: bytes) -> "IndexHeader | None":
        """Return the header that *data* begins with, None if that is not one of this version."""
        if len(data) < RECORDS or not data.startswith(MAGIC):
            return None
        return cls(*_HEADER.unpack_from(data)[1:])

    def packed(self) -> bytes:
        """Return the header as it is stored."""
        return _HEADER.pack(MAGIC, *self)

    def is_consistent(self) -> bool:
        """Return whether the parts make up the whole file, and there is a root."""
        return self.records >= 1 and self == IndexHeader.of(
            self.records, max(self.tables - self.heap, 0), self.members, self.lower_links
        )

    @property
    def sums(self) -> int:
        """Offset of the table of CRC-32s."""
        return self.tables + _OFFSET_SIZE * self.members

    @property
    def links(self) -> int:
        """Offset of the table of hard links into lower layers."""
        return self.sums + _SUM_SIZE * self.members
