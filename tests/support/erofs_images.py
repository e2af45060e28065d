"""Small EROFS images for tests of kernel mounts (erofs_fs.h): a root directory of files, each in a block of its own."""

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 512
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_DEVICE = struct.Struct("<64sII56x")
_DIRENT = struct.Struct("<QHBx")
_FIRST = 3
"""The block of the root's inode, after superblock and device table."""
_INLINE, _PLAIN = 0b101, 0b001
"""Formats of extended inodes: the end of the data behind the inode, or all data in blocks."""


@dataclass
class ErofsImage:
    """The metadata of an image: inline files, and files that lie in a device."""

    inline: Mapping[bytes, bytes] = field(default_factory=dict)
    """Contents of less than 400 bytes."""
    stored: Mapping[bytes, tuple[int, int]] = field(default_factory=dict)
    """First block in the device, and size in bytes."""
    blocks: int = 0
    """Blocks of the device; 0: there is none."""
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    """Of the root, in the namespace ``user.``; names without it."""
    mode: int = 0o40755

    def metadata(self) -> bytes:
        """Return the image."""
        names = sorted([*self.inline, *self.stored])
        nids = {name: (_FIRST + 1 + number) * BLOCK // 32 for number, name in enumerate(names)}
        root = _FIRST * BLOCK // 32
        blocks = [self._inode(self.mode, _INLINE, _directory(root, nids), self.xattrs, nlink=2)]
        for name in names:
            if name in self.inline:
                blocks.append(self._inode(0o100644, _INLINE, self.inline[name]))
            else:
                start, size = self.stored[name]
                blocks.append(self._inode(0o100644, _PLAIN, b"", size=size, block=self._base(len(names)) + start))
        head = b"".join([bytes(1024), self._superblock(root, len(names)), self._devices(len(names))])
        return head.ljust(_FIRST * BLOCK, b"\0") + b"".join(blocks)

    def _base(self, count: int) -> int:
        """Return the address of the device: it begins where the metadata end."""
        return _FIRST + 1 + count

    def _superblock(self, root: int, count: int) -> bytes:
        devices, total = int(self.blocks > 0), self._base(count)
        incompatible = 8 * devices
        slot = (1024 + 128) // 128
        numbers = (0xE0F5E1E2, 0, 0, 9, 0, root, count + 1, 0, 0, total, 0, 0, bytes(16), b"tests", incompatible, 0)
        return _SUPERBLOCK.pack(*numbers, devices, slot, 0, 0, 0, 0, 0)

    def _devices(self, count: int) -> bytes:
        return _DEVICE.pack(b"", self.blocks, self._base(count)) if self.blocks else b""

    def _inode(
        self,
        mode: int,
        form: int,
        tail: bytes,
        xattrs: Mapping[bytes, bytes] | None = None,
        *,
        nlink: int = 1,
        size: int | None = None,
        block: int = 0,
    ) -> bytes:
        body = _xattr_body(xattrs or {})
        count = (len(body) - 12) // 4 + 1 if body else 0
        size = len(tail) if size is None else size
        data = _INODE.pack(form, count, mode, 0, size, block, 1, 0, 0, 0, 0, nlink) + body + tail
        assert len(data) <= BLOCK
        return data.ljust(BLOCK, b"\0")


def _directory(root: int, nids: Mapping[bytes, int]) -> bytes:
    entries = sorted([(b".", root, 2), (b"..", root, 2), *((name, nid, 1) for name, nid in nids.items())])
    offset = _DIRENT.size * len(entries)
    table = b""
    for name, nid, kind in entries:
        table += _DIRENT.pack(nid, offset, kind)
        offset += len(name)
    return table + b"".join(name for name, _, _ in entries)


def _xattr_body(xattrs: Mapping[bytes, bytes]) -> bytes:
    body = bytes(12) if xattrs else b""
    for name, value in xattrs.items():
        entry = struct.pack("<BBH", len(name), 1, len(value)) + name + value
        body += entry.ljust(-(-len(entry) // 4) * 4, b"\0")
    return body


@contextmanager
def open_files(folder: Path, *contents: bytes) -> Iterator[list[int]]:
    """Give a descriptor of a file without a name in *folder* for each of *contents*."""
    files = []
    try:
        for data in contents:
            files.append(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600))
            assert os.write(files[-1], data) == len(data)
        yield files
    finally:
        for file in files:
            os.close(file)


def bound_loop_devices(folder: Path) -> list[str]:
    """Return the names of the loop devices whose files lie in *folder*."""
    found = []
    for entry in Path("/sys/block").glob("loop*"):
        with suppress(OSError):  # free, or freed meanwhile
            if (entry / "loop" / "backing_file").read_text().startswith(f"{folder}/"):
                found.append(entry.name)
    return sorted(found)
