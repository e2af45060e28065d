"""The files of a layer that have one name: an inode for each, which all trees of the layer share.

Nearly all of them are plain: regular, and their data are whole blocks of the tar.  Their inodes are packed from the
layer index without an object for each; all others are made as those of any other tree.
"""

from array import array
from stat import S_IFDIR, S_IFLNK, S_IFREG

from fusefs.erofs.inodes import Inodes
from fusefs.erofs.limits import MAX_SECONDS, SECOND
from fusefs.erofs.ondisk import (
    BLOCK,
    BLOCK_BITS,
    CHUNK_BASED,
    CHUNK_INDEX_SIZE,
    CHUNK_INDEXES,
    FLAT_PLAIN,
    INODE_SIZE,
    SLOT,
    inode_format,
    pack_chunk_index,
    pack_inode,
)
from fusefs.erofs.stream import Cursor
from fusefs.erofs.trees import Nids
from fusefs.layers.record import LOWER_LINK
from fusefs.layers.tree import LayerFiles, LayerTree
from fusefs.tree.node import Stat

_FORMAT = 0o170000
_PLAIN, _CHUNKS = inode_format(FLAT_PLAIN), inode_format(CHUNK_BASED)
_SLOTS = INODE_SIZE // SLOT
_REST = bytes(SLOT - CHUNK_INDEX_SIZE)
"""What is between an inode with one chunk and the next one."""
_BATCH = 1024
"""Inodes that are put into the stream together."""


def write_files(files: LayerFiles, inodes: Inodes, cursor: Cursor, *, symlinks: bool) -> "Nids[int]":
    """Write the inodes of *files* with one name from *cursor* on, and return the nids by record, 0 for others.

    Without *symlinks*, symbolic links are among the others.
    """
    nids = array("I", [0]) * files.index.count
    tree = LayerTree(files, transform_symlinks=False)
    plain = _PlainFiles(files, inodes, cursor)
    add, end = plain.add, plain.end
    for number, (nlink, offset, size, mtime, ns, mode, uid, gid, xattrs, flags) in enumerate(files.index.files()):
        kind = mode & _FORMAT
        if nlink != 1 or kind == S_IFDIR or flags & LOWER_LINK or (kind == S_IFLNK and not symlinks):
            continue
        # What is beyond the limits is not plain, so that it is refused with all others.
        if (
            kind == S_IFREG
            and not (xattrs or flags or offset % BLOCK)
            and offset + size <= end
            and ns < SECOND
            and -MAX_SECONDS <= mtime <= MAX_SECONDS
        ):
            nids[number] = add(offset, size, mtime, ns, mode, uid, gid)
        else:
            plain.flush()
            nids[number] = inodes.write(tree, number, cursor)
    plain.flush()
    return nids


class _PlainFiles:
    """Packs and writes the inodes of plain files, many at a time."""

    def __init__(self, files: LayerFiles, inodes: Inodes, cursor: Cursor) -> None:
        self._cursor = cursor
        self._stream = inodes.stream
        self._overrides = inodes.overrides
        self._modes: dict[int, int] = {}
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

    def add(self, offset: int, size: int, mtime: int, ns: int, mode: int, uid: int, gid: int) -> int:  # noqa: PLR0913, PLR0917 - a record
        """Add the inode of a file and return its nid."""
        batch, nid = self._batch, self._nid
        if not batch:
            nid = self._cursor.next_nid
        overrides = self._overrides
        if overrides.uid is not None:
            uid = overrides.uid
        if overrides.gid is not None:
            gid = overrides.gid
        shown = self._modes.get(mode)
        if shown is None:
            shown = self._modes[mode] = overrides.mode(Stat(mode, 1, uid, gid, 0))
        block = self._first + (offset >> BLOCK_BITS) if size else 0
        if not self._indexed:
            batch.append(pack_inode(_PLAIN, 0, shown, 0, size, block, nid, uid, gid, mtime, ns, 1))
            self._nid = nid + _SLOTS
        else:
            chunks = (max(size, 1) - 1 >> BLOCK_BITS).bit_length() | CHUNK_INDEXES
            inode = pack_inode(_CHUNKS, 0, shown, 0, size, chunks, nid, uid, gid, mtime, ns, 1)
            batch.append(inode + pack_chunk_index(self._device, block) + _REST)
            self._nid = nid + _SLOTS + 1
        if len(batch) >= _BATCH:
            self.flush()
        return nid

    def flush(self) -> None:
        """Write the inodes that were added."""
        if self._batch:
            position = self._cursor.next_nid * SLOT
            self._stream.put(position, b"".join(self._batch))
            self._cursor.advance(self._nid * SLOT, len(self._batch))
            self._batch.clear()
