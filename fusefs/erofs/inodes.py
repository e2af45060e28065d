"""Inodes: from the nodes of a tree to bytes of the metadata."""

import os
from stat import S_IFMT
from typing import NamedTuple

from fusefs.content.protocol import Literal
from fusefs.erofs.bodies import EMPTY, Body, Piece, file_body, stored
from fusefs.erofs.devices import Devices
from fusefs.erofs.limits import (
    MAX_COPIED,
    SECOND,
    Unfit,
    check_device_number,
    check_inode,
    check_target,
    check_time,
)
from fusefs.erofs.ondisk import BLOCK, INODE_SIZE, SLOT, inode_format, new_encode_dev, pack_inode
from fusefs.erofs.stream import Cursor, Stream
from fusefs.erofs.xattrs import InodeXattrs, inode_xattrs
from fusefs.tree.node import Directory, LazyDirectory, RegularFile, Special, Stat, Symlink, Tree
from fusefs.tree.overrides import Overrides


class Inode(NamedTuple):
    """An inode before it has a place."""

    stat: Stat
    """The size is that of `body`."""
    xattrs: InodeXattrs
    body: Body
    permissions: int | None = None
    """The low 12 bits of the mode, in place of those of `stat` and of overrides."""

    @property
    def head(self) -> int:
        """Bytes before the inline data: structure, extended attributes, chunk table."""
        head = INODE_SIZE + self.xattrs.size
        table = self.body.table
        return head if table is None else -(-head // table.unit) * table.unit + table.unit * table.count

    def place(self, cursor: Cursor) -> tuple[int, int]:
        """Return the nid and the first block of the inode at *cursor*."""
        shared = sum(-(-len(entry) // BLOCK) for entry in self.xattrs.shared)
        return cursor.place(self.head, self.body.tail_size, self.body.block_count + shared)


class Inodes:
    """Makes the inodes of an image, and writes them one after the other."""

    def __init__(self, stream: Stream, devices: Devices, overrides: Overrides) -> None:
        """Write to *stream* inodes with data in *devices*, and with the owners and modes of *overrides*."""
        self.devices = devices
        self.overrides = overrides
        self.stream = stream
        self._copied = 0

    def xattrs(self, tree: Tree, number: int, mode: int) -> InodeXattrs:
        """Return the extended attributes of a node of a *tree*; *mode* has its type."""
        # Access to a file goes by its ACL, if it has one, and not by the mode that the user asks for.
        return inode_xattrs(tree.xattrs(number), mode, acls=self.overrides.umask is None)

    def of(self, tree: Tree, number: int) -> Inode:
        """Return the inode of a node that is no directory; Unfit, OSError, or Unavailable for a changed file."""
        node, stat = tree.node(number), tree.stat(number)
        xattrs = self.xattrs(tree, number, stat.mode)
        body = EMPTY
        match node:
            case RegularFile():
                body = file_body(node.content, INODE_SIZE + xattrs.size, self.devices)
            case Symlink():
                check_target(node.target)
                body = stored(Literal(node.target))
            case Special():
                body = Body(union=_device_number(stat.rdev))
            case Directory() | LazyDirectory():
                raise AssertionError
        return Inode(stat, xattrs, body)

    def put(self, inode: Inode, place: tuple[int, int]) -> None:
        """Write an *inode* at its *place*; OSError if it or its data cannot be written or read."""
        nid, block = place
        _, xattrs, body = inode[:3]
        position = block * BLOCK
        for piece in body.blocks:
            self._put_piece(position, piece)
            position += -(-piece.size // BLOCK) * BLOCK
        places = []
        for entry in xattrs.shared:
            places.append(position)
            self.stream.put(position, entry)
            position += -(-len(entry) // BLOCK) * BLOCK
        self._put_head(inode, nid, xattrs.packed(places), block)
        if body.tail:
            self._put_piece(nid * SLOT + inode.head, body.tail)

    def _put_piece(self, position: int, piece: Piece) -> None:
        for data in piece.chunks():
            self.stream.put(position, data)
            position += len(data)

    def _put_head(self, inode: Inode, nid: int, xattrs: bytes, block: int) -> None:
        body = inode.body
        union = block if body.blocks and body.table is None else body.union
        self.stream.put(nid * SLOT, self._structure(inode, nid, union) + xattrs)
        table = body.table
        if table is not None:
            self._copied += table.cost
            if self._copied > MAX_COPIED:
                raise Unfit("its files with holes need too much room")
            self.stream.put(nid * SLOT + inode.head - table.unit * table.count, table.packed(block))

    def _structure(self, inode: Inode, nid: int, union: int) -> bytes:
        stat, xattrs, body = inode[:3]
        uid, gid = self.overrides.owner(stat)
        mode = self.overrides.mode(stat)
        if inode.permissions is not None:
            mode = S_IFMT(mode) | inode.permissions
        seconds, nanoseconds = divmod(stat.mtime_ns, SECOND)
        check_inode(mode, stat.nlink, uid, gid, body.size)
        check_time(seconds, nanoseconds)
        return pack_inode(
            *(inode_format(body.layout), xattrs.words, mode, 0, body.size, union, nid & 0xFFFFFFFF),
            *(uid, gid, seconds, nanoseconds, stat.nlink),
        )


def _device_number(rdev: int) -> int:
    major, minor = os.major(rdev), os.minor(rdev)
    check_device_number(major, minor)
    return new_encode_dev(major, minor)
