"""The structures of the format, byte for byte as in the kernel's fs/erofs/erofs_fs.h."""

import os

import pytest

from fusefs.erofs.ondisk import (
    CHUNK_BASED,
    CHUNK_INDEX_SIZE,
    DEVICE_SIZE,
    DIRENT_SIZE,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODE_SIZE,
    XATTR_HEADER_SIZE,
    inode_format,
    new_encode_dev,
    pack_chunk_index,
    pack_device,
    pack_dirent,
    pack_inode,
    pack_superblock,
    pack_xattr,
    pack_xattr_header,
)


def test_structures_have_the_sizes_that_the_kernel_asserts() -> None:
    superblock, device = pack_superblock(40, 3, 8, 2), pack_device(1, 2)
    sizes = (INODE_SIZE, XATTR_HEADER_SIZE, DIRENT_SIZE, CHUNK_INDEX_SIZE, DEVICE_SIZE)
    assert (len(superblock), len(device), *sizes) == (128, 128, 64, 12, 12, 8, 128)


def test_the_superblock_has_its_fields_where_the_kernel_looks() -> None:
    fields = {0: b"\xe2\xe1\xf5\xe0", 8: b"\2", 12: b"\x09", 14: b"\x34\x12", 16: b"\3", 36: b"\x07\5", 80: b"\x0c"}
    fields |= {86: b"\2", 88: b"\x09"}
    expected = bytearray(128)
    for offset, data in fields.items():
        expected[offset : offset + len(data)] = data
    assert pack_superblock(0x1234, 3, 0x507, 2) == bytes(expected)


def test_without_devices_there_is_no_device_table() -> None:
    assert (pack_superblock(40, 1, 4, 0)[80], pack_superblock(40, 1, 4, 0)[86:90]) == (0x4, bytes(4))


def test_a_device_is_its_blocks_and_its_first_block() -> None:
    assert pack_device(0x01020304, 0x05060708) == bytes(64) + b"\4\3\2\1\x08\7\6\5" + bytes(56)


def test_an_inode_has_its_fields_where_the_kernel_looks() -> None:
    inode = pack_inode(
        inode_format(CHUNK_BASED), 0x0102, 0o100644, 0, 1 << 62, 0x05060708, 0x1A, 70_000, 80_000, -1, 999_999_999, 3
    )
    expected = b"\x09\0\2\1\xa4\x81\0\0" + (1 << 62).to_bytes(8, "little") + b"\x08\7\6\5\x1a\0\0\0"
    expected += (70_000).to_bytes(4, "little") + (80_000).to_bytes(4, "little") + b"\xff" * 8
    assert inode == expected + (999_999_999).to_bytes(4, "little") + b"\3\0\0\0" + bytes(16)
    assert [inode_format(layout) for layout in (FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED)] == [1, 5, 9]


def test_a_directory_entry_a_chunk_and_an_xattr() -> None:
    assert pack_dirent(0x0102, 0x24, 7) == b"\2\1\0\0\0\0\0\0\x24\0\7\0"
    assert pack_chunk_index(3, 0x01020304) == b"\0\0\3\0\4\3\2\1"
    assert pack_xattr_header(7) == b"\0\0\0\0\7" + bytes(7)
    assert pack_xattr(1, b"name", b"value") == b"\4\1\5\0namevalue" + bytes(3)
    assert pack_xattr(6, b"n", b"val") == b"\1\6\3\0nval"


@pytest.mark.parametrize(("major", "minor"), [(0, 0), (1, 3), (8, 255), (8, 256), (4095, (1 << 20) - 1)])
def test_device_numbers_are_those_of_the_kernel(major: int, minor: int) -> None:
    encoded = new_encode_dev(major, minor)
    decoded = encoded >> 8 & 0xFFF, encoded & 0xFF | encoded >> 12 & 0xFFF00
    assert decoded == (major, minor)
    assert encoded < 1 << 32
    assert os.makedev(*decoded) == os.makedev(major, minor)
