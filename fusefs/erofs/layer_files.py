"""The files of a layer that have one name: an inode for each, which all trees of the layer share.

Nearly all of them are plain: their data are whole blocks of the tar, or the target of a symbolic link.  Their inodes
are packed from the layer index without an object for each; all others are made as those of any other tree.
"""

from array import array
from stat import S_IFDIR, S_IFLNK, S_IFREG

from fusefs.erofs.inodes import Inodes
from fusefs.erofs.limits import MAX_CHUNK_BITS, MAX_SECONDS, SECOND, check_target
from fusefs.erofs.ondisk import (
    BLOCK,
    BLOCK_BITS,
    CHUNK_BASED,
    CHUNK_INDEXES,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODE_SIZE,
    SLOT,
    inode_format,
    pack_chunk_index,
    pack_inode,
)
from fusefs.erofs.stream import MAX_INLINE, Cursor
from fusefs.erofs.trees import Nids
from fusefs.layers.record import LOWER_LINK
from fusefs.layers.tree import LayerFiles, LayerTree
from fusefs.tree.node import Stat

_FORMAT = 0o170000
_PLAIN, _INLINE, _CHUNKS = map(inode_format, (FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED))
_MAX_SIZE = BLOCK << MAX_CHUNK_BITS
"""Bytes of a file with one chunk."""
_BATCH = 1024
"""Inodes that are put into the stream together."""


def write_files(files: LayerFiles, inodes: Inodes, cursor: Cursor, *, symlinks: bool) -> "Nids[int]":
    """Write the inodes of *files* with one name from *cursor* on, and return the nids by record, 0 for others.

    Without *symlinks*, symbolic links are among the others.
    """
    nids = array("I", [0]) * files.index.count
    tree = LayerTree(files, transform_symlinks=False)
    plain = _PlainFiles(files, inodes, cursor)
    for number, fields in enumerate(files.index.files()):
        nlink, offset, size, mtime, ns, mode, uid, gid, xattrs, flags, length, text = fields
        kind = mode & _FORMAT
        if nlink != 1 or kind == S_IFDIR or flags & LOWER_LINK or (kind == S_IFLNK and not symlinks):
            continue
        nid = 0
        # What is beyond the limits is not plain, so that it is refused with all others.
        if not (xattrs or flags) and ns < SECOND and -MAX_SECONDS <= mtime <= MAX_SECONDS:
            if kind == S_IFREG and offset + size <= plain.end and not offset % BLOCK and size <= _MAX_SIZE:
                nid = plain.add(plain.data(offset, size), size, (mode, uid, gid), mtime, ns)
            elif kind == S_IFLNK and length <= MAX_INLINE:
                nid = plain.add(plain.target(text, length), length, (mode, uid, gid), mtime, ns)
        if not nid:
            plain.flush()
            nid = inodes.write(tree, number, cursor)
        nids[number] = nid
    plain.flush()
    return nids


class _PlainFiles:
    """Packs and writes the inodes of plain files, many at a time."""

    def __init__(self, files: LayerFiles, inodes: Inodes, cursor: Cursor) -> None:
        self._index = files.index
        self._cursor = cursor
        self._stream = inodes.stream
        self._overrides = inodes.overrides
        self._owned: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        """Mode, uid and gid to show, by those of the records: a layer has few of them."""
        self._batch: list[bytes] = []
        self._nid = 0
        """The nid of the next inode, if there is one in the batch."""
        self._indexed = inodes.devices.indexed
        self._device, self._first = 0, 0
        self.end = 0
        """The end of the tar's last whole block."""
        tar = files.tar.file_place()
        if tar is not None and tar.offset % BLOCK == 0:
            device = inodes.devices.of(tar, 0)
            self._device = device.number
            self._first = tar.offset // BLOCK + (0 if self._indexed else device.start)
            self.end = device.blocks * BLOCK - tar.offset

    def data(self, offset: int, size: int) -> tuple[int, int, bytes]:
        """Return format and union of a regular file's inode, and what follows it."""
        if not size:
            return _PLAIN, 0, b""
        block = self._first + (offset >> BLOCK_BITS)
        if not self._indexed:
            return _PLAIN, block, b""
        bits = (size - 1 >> BLOCK_BITS).bit_length()
        return _CHUNKS, bits | CHUNK_INDEXES, pack_chunk_index(self._device, block)

    def target(self, offset: int, length: int) -> tuple[int, int, bytes]:
        """Return the same of a symbolic link with this target in the heap."""
        target = self._index.bytes_at(offset, length)
        check_target(target)
        return _INLINE, 0, target

    def add(self, data: tuple[int, int, bytes], size: int, owned: tuple[int, int, int], mtime: int, ns: int) -> int:
        """Add an inode, and return its nid."""
        layout, union, tail = data
        shown = self._owned.get(owned)
        if shown is None:
            shown = self._owned[owned] = self._shown(*owned)
        mode, uid, gid = shown
        nid, gap = self._nid if self._batch else self._cursor.next_nid, 0
        if tail:
            begin = (nid * SLOT + INODE_SIZE) % BLOCK
            if begin + len(tail) > BLOCK:
                gap = (BLOCK - begin) // SLOT
            tail += bytes(-len(tail) % SLOT)
        inode = pack_inode(layout, 0, mode, 0, size, union, nid + gap, uid, gid, mtime, ns, 1)
        self._batch.append(bytes(gap * SLOT) + inode + tail if tail else inode)
        self._nid = nid + gap + (INODE_SIZE + len(tail)) // SLOT
        if len(self._batch) >= _BATCH:
            self.flush()
        return nid + gap

    def _shown(self, mode: int, uid: int, gid: int) -> tuple[int, int, int]:
        stat = Stat(mode, 1, uid, gid, 0)
        return self._overrides.mode(stat), *self._overrides.owner(stat)

    def flush(self) -> None:
        """Write the inodes that were added."""
        if self._batch:
            position = self._cursor.next_nid * SLOT
            self._stream.put(position, b"".join(self._batch))
            self._cursor.advance(self._nid * SLOT, len(self._batch))
            self._batch.clear()
