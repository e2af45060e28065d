"""The on-disk format of EROFS: the one module that knows structures, their fields and their order.

As in the kernel's ``fs/erofs/erofs_fs.h`` (a structure's name there stands at its own here) and its
``Documentation/filesystems/erofs.rst``.  All numbers are little-endian.  Of the format only what every kernel since
Linux 6.1 reads is used: blocks of 512 bytes, extended inodes, uncompressed data.
"""

import stat
import struct

FORMAT = 2
"""Changes whenever imgfs writes other metadata for the same view: cached ones are then written again."""
BLOCK_BITS = 9
BLOCK = 1 << BLOCK_BITS
"""Bytes of a block: those of a tar, so that its files begin at whole blocks."""
SLOT = 32
"""An inode is at ``SLOT`` times its number, its *nid*, in bytes from the beginning."""

SUPERBLOCK = 1024
"""Offset of the superblock (EROFS_SUPER_OFFSET)."""
DEVICES = 1152
"""Offset of the device table, which follows the superblock."""
DEVICE_SIZE = 128
"""Bytes of one of its entries (struct erofs_deviceslot)."""

_MAGIC = 0xE0F5E1E2
_COMPAT_MTIME = 0x2
"""Times are those of the last modification."""
_INCOMPAT_CHUNKED_FILE, _INCOMPAT_DEVICE_TABLE = 0x4, 0x8

_SUPERBLOCK = struct.Struct("<III BBH QQI III 16s16s I HHH BBI QB23x")
"""struct erofs_super_block."""
_DEVICE = struct.Struct("<64x II 56x")
"""struct erofs_deviceslot: blocks, first block in the unified address space."""


def pack_superblock(root: int, inodes: int, blocks: int, devices: int) -> bytes:
    """Return the superblock: nid of the root, number of inodes, blocks of the metadata, number of devices.

    Without a checksum, which is optional.
    """
    incompatible = _INCOMPAT_CHUNKED_FILE | (_INCOMPAT_DEVICE_TABLE if devices else 0)
    slot = DEVICES // DEVICE_SIZE if devices else 0
    return _SUPERBLOCK.pack(
        *(_MAGIC, 0, _COMPAT_MTIME, BLOCK_BITS, 0, root, inodes, 0, 0, blocks, 0, 0, b"", b""),
        *(incompatible, 0, devices, slot, 0, 0, 0, 0, 0),
    )


pack_device = _DEVICE.pack
"""Packs an entry of the device table: number of blocks, first block in the unified address space."""

FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED = 0, 2, 4
"""Layouts of data: one run of blocks; the same, with the last bytes behind the inode; a table of chunks."""
_EXTENDED = 1
"""The version of an inode of 64 bytes, in the lowest bit of its format."""
_INODE = struct.Struct("<HHHH QII II qII 16x")
"""struct erofs_inode_extended."""
INODE_SIZE = _INODE.size
pack_inode = _INODE.pack
"""Packs an inode: format, size of the xattrs in words, mode, 0, size, union, nid, uid, gid, mtime, ns, nlink."""


def inode_format(layout: int) -> int:
    """Return the format of an inode with this *layout* of data (i_format)."""
    return _EXTENDED | layout << 1


CHUNK_INDEXES = 0x20
"""Bit of the union of an inode with chunks: entries of 8 bytes, else of 4; the low 5 bits say blocks of a chunk."""
HOLE = 0xFFFFFFFF
"""Block of a chunk without data (EROFS_NULL_ADDR)."""
CHUNK_BLOCK_SIZE, CHUNK_INDEX_SIZE = 4, 8
_CHUNK_INDEX = struct.Struct("<HHI")
"""struct erofs_inode_chunk_index."""


def pack_chunk_index(device: int, block: int) -> bytes:
    """Return the entry of a chunk that begins at *block* of *device*, 0 for the metadata."""
    return _CHUNK_INDEX.pack(0, device, block)


_DIRENT = struct.Struct("<QHBx")
"""struct erofs_dirent."""
DIRENT_SIZE = _DIRENT.size
pack_dirent = _DIRENT.pack
"""Packs a directory entry: nid, offset of the name in its block, type."""
FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
"""Types of directory entries by those of st_mode (FT_REG_FILE … FT_SYMLINK)."""

_XATTR_HEADER = struct.Struct("<IB7x")
"""struct erofs_xattr_ibody_header."""
XATTR_HEADER_SIZE = _XATTR_HEADER.size
WORD = 4
"""Extended attributes, and the units of their size, are aligned to this many bytes."""
_XATTR_ENTRY = struct.Struct("<BBH")
"""struct erofs_xattr_entry: length of the name, its prefix, length of the value."""
XATTR_PREFIXES = {
    b"user.": 1,
    b"system.posix_acl_access": 2,
    b"system.posix_acl_default": 3,
    b"trusted.": 4,
    b"security.": 6,
}
"""The beginnings that names can have, and their numbers (EROFS_XATTR_INDEX_…)."""


def pack_xattr_header(shared: int) -> bytes:
    """Return the header of an inode's extended attributes; *shared* of them are stored elsewhere."""
    return _XATTR_HEADER.pack(0, shared)


def pack_xattr(prefix: int, suffix: bytes, value: bytes) -> bytes:
    """Return an extended attribute: the number of its prefix, the rest of its name, its value."""
    data = _XATTR_ENTRY.pack(len(suffix), prefix, len(value)) + suffix + value
    return data + bytes(-len(data) % WORD)


def new_encode_dev(major: int, minor: int) -> int:
    """Return a device number as the kernel's new_encode_dev() does: 12 bits of *major*, 20 of *minor*."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
