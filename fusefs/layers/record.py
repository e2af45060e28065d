"""The records of a layer index: their layout in the file and what they say."""

import struct
from typing import NamedTuple

MAGIC = b"imgfs layer 2\n\0\0"
HEADER = struct.Struct("<16sQQQQQQ")
"""Magic; size of the file; number of records; offsets of the heap and of the tables behind it; lengths of these.

The tables: of each member of the tar the offset of its last header block (8 bytes), then of each that block's
CRC-32 (4), then the records of hard links into lower layers (4).
"""
PLACE = struct.Struct("<QHIIIII")
FILE = struct.Struct("<QQqIIIIIIIHIIQQ")
RECORD = struct.Struct("<" + PLACE.format[1:] + FILE.format[1:])
"""The fields of `Entry` after the first, in order: what its place in the tree says, then what the file is."""
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
    name_length: int
    parent: int
    """Record of the directory."""
    first: int
    """Record of a directory's first entry."""
    entries: int
    """Number of a directory's entries."""
    inode: int
    """Record that stands for the file: the first of its names."""
    nlink: int
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
    xattr_length: int
    flags: int
    """`IMPLICIT`, `LOWER_LINK`, `SPARSE`: numbers, since every request tests them."""
    text_length: int
    blocks: int
    """Blocks of 512 bytes that a sparse file has stored."""
    text_offset: int
    xattr_offset: int
