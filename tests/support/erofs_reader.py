"""A reader of EROFS, written from the kernel's documentation and nothing of imgfs: what a mount would show.

Sources: ``Documentation/filesystems/erofs.rst`` and ``fs/erofs/erofs_fs.h``; where these leave something open, what
``fs/erofs/{super,inode,data,dir,xattr}.c`` do.  It is strict: all that a kernel might take amiss is an assertion.
"""

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

_ZERO = bytes(1 << 16)
_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}


_INODE = struct.Struct("<HHHHQIIIIqIIQQ")
"""Format, words of xattrs, mode, 0, size, union, number for 32 bits, uid, gid, seconds, nanoseconds, links, unused."""


def _number(data: bytes, offset: int, size: int) -> int:
    assert offset + size <= len(data), "beyond the end"
    return int.from_bytes(data[offset : offset + size], "little")


class Slot(NamedTuple):
    """An entry of the device table."""

    blocks: int
    start: int


@dataclass(frozen=True)
class ReadInode:
    """An inode as it is stored."""

    nid: int
    layout: int
    mode: int
    size: int
    union: int
    uid: int
    gid: int
    mtime_ns: int
    nlink: int
    xattr_at: int
    xattr_size: int

    @property
    def type(self) -> int:
        """The type bits of the mode."""
        return stat.S_IFMT(self.mode)

    @property
    def rdev(self) -> int:
        """The number of a device file, as new_decode_dev() has it."""
        if self.type not in (stat.S_IFCHR, stat.S_IFBLK):
            return 0
        major, minor = self.union >> 8 & 0xFFF, self.union & 0xFF | self.union >> 12 & 0xFFF00
        return os.makedev(major, minor)


class Erofs:
    """A file system: its metadata, and descriptors of its devices."""

    def __init__(self, data: bytes, devices: Sequence[int]) -> None:
        """Read the superblock and the device table."""
        assert _number(data, 1024, 4) == 0xE0F5E1E2
        self.data = data
        self.devices = devices
        self._inodes: dict[int, ReadInode] = {}
        features = _number(data, 1024 + 80, 4)
        assert features & ~0xC == 0
        assert _number(data, 1024 + 8, 4) & 1 == 0, "it says that it has a checksum"
        self.block = 1 << data[1024 + 12]
        assert self.block == 512
        assert data[1024 + 13] == 0, "more slots of the superblock"
        self.root = _number(data, 1024 + 14, 2)
        self.inodes = _number(data, 1024 + 16, 8)
        self.blocks = _number(data, 1024 + 36, 4)
        assert self.blocks * self.block == len(data)
        self._meta = _number(data, 1024 + 40, 4) * self.block
        self._shared = _number(data, 1024 + 44, 4) * self.block
        count = _number(data, 1024 + 86, 2)
        assert count == len(devices)
        assert bool(count) == bool(features & 8)
        table = _number(data, 1024 + 88, 2) * 128
        assert not any(data[1024 + 90 : 1024 + 128]), "fields of later versions"
        self.slots = [
            Slot(_number(data, table + 128 * number + 64, 4), _number(data, table + 128 * number + 68, 4))
            for number in range(count)
        ]
        self._check_slots()

    def _check_slots(self) -> None:
        end = self.blocks
        for slot, descriptor in zip(self.slots, self.devices, strict=True):
            assert slot.start >= end
            assert slot.blocks * self.block <= os.fstat(descriptor).st_size
            end = slot.start + slot.blocks
        assert end < 1 << 32

    def inode(self, nid: int) -> ReadInode:
        """Return an inode."""
        if nid not in self._inodes:
            self._inodes[nid] = self._inode(nid)
        return self._inodes[nid]

    def _inode(self, nid: int) -> ReadInode:
        at = self._meta + 32 * nid
        form, words, mode, zero, size, union, _, uid, gid, seconds, nanoseconds, nlink, *unused = _INODE.unpack_from(
            self.data, at
        )
        assert form & ~0xF == 0
        assert form & 1, "a compact inode"
        assert form >> 1 in (0, 2, 4)
        assert (zero, *unused) == (0, 0, 0)
        assert nanoseconds < 10**9
        xattr_size = 12 + 4 * (words - 1) if words else 0
        mtime_ns = seconds * 10**9 + nanoseconds
        found = ReadInode(nid, form >> 1, mode, size, union, uid, gid, mtime_ns, nlink, at + 64, xattr_size)
        assert found.type in _TYPES
        assert found.nlink > 0
        assert found.size < 1 << 63
        if found.type not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            assert (found.size, found.layout) == (0, 0)
        return found

    def xattrs(self, inode: ReadInode) -> dict[bytes, bytes]:
        """Return the extended attributes of an inode."""
        found: dict[bytes, bytes] = {}
        if not inode.xattr_size:
            return found
        assert inode.xattr_size > 12
        count = self.data[inode.xattr_at + 4]
        position, end = inode.xattr_at + 12, inode.xattr_at + inode.xattr_size
        assert position + 4 * count <= end <= len(self.data)
        for _ in range(count):
            self._xattr(self._shared + 4 * _number(self.data, position, 4), found)
            position += 4
        while position < end:
            position = self._xattr(position, found)
        assert position == end
        return found

    def _xattr(self, position: int, found: dict[bytes, bytes]) -> int:
        """Add the one at *position*, and return where the next one begins."""
        length, prefix, size = self.data[position], self.data[position + 1], _number(self.data, position + 2, 2)
        name = _PREFIXES[prefix] + self.data[position + 4 : position + 4 + length]
        assert len(name) <= 255
        assert name not in found
        begin = position + 4 + length
        found[name] = self.data[begin : begin + size]
        assert len(found[name]) == size
        return -(-(begin + size) // 4) * 4

    def read(self, inode: ReadInode, offset: int, size: int) -> bytes:
        """Return bytes of a file, a directory or a symbolic link."""
        end = min(offset + size, inode.size)
        parts = []
        while offset < end:
            data = self._run(inode, offset, end - offset)
            assert data
            parts.append(data)
            offset += len(data)
        return b"".join(parts)

    def _run(self, inode: ReadInode, offset: int, size: int) -> bytes:
        """Return at least one byte from *offset* on."""
        behind = inode.xattr_at + inode.xattr_size
        if inode.layout == 4:
            return self._chunk(inode, behind, offset, size)
        blocks = -(-inode.size // self.block) - (inode.layout == 2)
        if offset < blocks * self.block:
            size = min(size, blocks * self.block - offset)
            return self._at(inode.union * self.block + offset, size, blocks * self.block - offset)
        assert inode.layout == 2
        begin = behind + offset % self.block
        assert behind // self.block == (behind + inode.size - blocks * self.block - 1) // self.block, "crosses a block"
        return self._metadata(begin, size)

    def _chunk(self, inode: ReadInode, table: int, offset: int, size: int) -> bytes:
        assert inode.union & ~0x3F == 0
        bits, unit = 9 + (inode.union & 0x1F), 8 if inode.union & 0x20 else 4
        number = offset >> bits
        at = -(-table // unit) * unit + unit * number
        inside = offset - (number << bits)
        length = min(1 << bits, -(-(inode.size - (number << bits)) // self.block) * self.block)
        size = min(size, length - inside, len(_ZERO))
        block = _number(self.data, at + unit - 4, 4)
        device = _number(self.data, at + 2, 2) if unit == 8 else 0
        assert unit == 4 or _number(self.data, at, 2) == 0
        if block == 0xFFFFFFFF:
            return _ZERO[:size]
        if device:
            slot = self.slots[device - 1]
            assert block * self.block + length <= slot.blocks * self.block
            return os.pread(self.devices[device - 1], size, block * self.block + inside)
        return self._at(block * self.block + inside, size, length - inside)

    def _at(self, address: int, size: int, whole: int) -> bytes:
        """Return *size* bytes at an address of the unified space; *whole* bytes from there on are one run."""
        for slot, descriptor in zip(self.slots, self.devices, strict=True):
            start = address - slot.start * self.block
            if 0 <= start < slot.blocks * self.block:
                assert start + whole <= slot.blocks * self.block, "beyond the end of the device"
                data = os.pread(descriptor, size, start)
                assert len(data) == size
                return data
        return self._metadata(address, size)

    def _metadata(self, position: int, size: int) -> bytes:
        assert position + size <= len(self.data), "beyond the end of the metadata"
        return self.data[position : position + size]

    def entries(self, directory: ReadInode, parent: int) -> Iterator[tuple[bytes, int]]:
        """Yield name and nid of the entries of a directory without its dots, which must be right."""
        assert directory.type == stat.S_IFDIR
        found = []
        for begin in range(0, directory.size, self.block):
            data = self.read(directory, begin, self.block)
            found += list(self._block(data))
        names = [name for name, _, _ in found]
        assert names == sorted(set(names))
        dots = {name: nid for name, nid, _ in found if name in (b".", b"..")}
        assert dots == {b".": directory.nid, b"..": parent}
        for name, nid, kind in found:
            assert 0 < len(name) <= 255
            assert b"/" not in name
            assert b"\0" not in name
            assert _TYPES[self.inode(nid).type] == kind
            if name not in dots:
                yield name, nid

    def _block(self, data: bytes) -> Iterator[tuple[bytes, int, int]]:
        first = _number(data, 8, 2)
        assert first % 12 == 0
        assert 12 <= first < len(data)
        count = first // 12
        offsets = [_number(data, 12 * number + 8, 2) for number in range(count)] + [len(data)]
        for number in range(count):
            assert data[12 * number + 11] == 0
            name = data[offsets[number] : offsets[number + 1]]
            if number == count - 1:
                name = name.rstrip(b"\0")
            yield name, _number(data, 12 * number, 8), data[12 * number + 10]

    @cached_property
    def shown(self) -> dict[bytes, ReadInode]:
        """All inodes by path; that of the root is empty."""
        found = {b"": self.inode(self.root)}
        queue = [(b"", self.root, self.root)]
        directories = {self.root}
        for path, nid, parent in queue:  # grows while it is walked
            for name, below in self.entries(self.inode(nid), parent):
                there = path + b"/" + name if path else name
                found[there] = self.inode(below)
                if found[there].type == stat.S_IFDIR:
                    assert below not in directories, "a directory with two names"
                    directories.add(below)
                    queue.append((there, below, nid))
        return found
