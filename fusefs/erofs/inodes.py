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


class Place(NamedTuple):
    """Where an inode is."""

    nid: int
    block: int
    """The first of the blocks of its body."""
    shared: int
    """The block of the first of its shared extended attributes."""


class Data(NamedTuple):
    """What an inode states of its data."""

    layout: int
    size: int
    union: int


class Inode(NamedTuple):
    """An inode before it has a place."""

    stat: Stat
    """The size is that of `body`."""
    xattrs: InodeXattrs
    body: Body

    @property
    def head(self) -> int:
        """Bytes before the inline data: structure, extended attributes, chunk table."""
        head = INODE_SIZE + self.xattrs.size
        table = self.body.table
        return head if table is None else -(-head // table.unit) * table.unit + table.unit * table.count

    def place(self, cursor: Cursor) -> Place:
        """Place the inode at *cursor*."""
        shared, block = cursor.blocks(self.xattrs.block_count), cursor.blocks(self.body.block_count)
        return Place(cursor.inode(self.head, self.body.tail_size), block, shared)


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

    def write(self, tree: Tree, number: int, cursor: Cursor) -> int:
        """Place the inode of a node at *cursor*, write it, and return its nid.

        Raises the exceptions of `of`, and OSError if the inode or its data cannot be written or read.
        """
        inode = self.of(tree, number)
        place = inode.place(cursor)
        self._put(inode, place)
        return place.nid

    def _put(self, inode: Inode, place: Place) -> None:
        stat, xattrs, body = inode
        places = self.put_shared(xattrs, place.shared)
        position = place.block * BLOCK
        for piece in body.blocks:
            self._put_piece(position, piece)
            position += -(-piece.size // BLOCK) * BLOCK
        union = place.block if body.blocks and body.table is None else body.union
        structure = self.structure(stat, xattrs, Data(body.layout, body.size, union), place.nid)
        self.stream.put(place.nid * SLOT, structure + xattrs.packed(places))
        end = place.nid * SLOT + inode.head
        table = body.table
        if table is not None:
            self._copied += table.cost
            if self._copied > MAX_COPIED:
                raise Unfit("its files with holes need too much room")
            self.stream.put(end - table.unit * table.count, table.packed(place.block))
        if body.tail:
            self._put_piece(end, body.tail)

    def put_shared(self, xattrs: InodeXattrs, block: int) -> list[int]:
        """Write the shared extended attributes from *block* on, and return their offsets."""
        places = []
        for entry in xattrs.shared:
            places.append(block * BLOCK)
            self.stream.put(block * BLOCK, entry)
            block += -(-len(entry) // BLOCK)
        return places

    def _put_piece(self, position: int, piece: Piece) -> None:
        for data in piece.chunks():
            self.stream.put(position, data)
            position += len(data)

    def structure(self, stat: Stat, xattrs: InodeXattrs, data: Data, nid: int, permissions: int | None = None) -> bytes:
        """Return the structure of an inode; with *permissions*, overrides do not apply: its own owner has these."""
        if permissions is None:
            mode, (uid, gid) = self.overrides.mode(stat), self.overrides.owner(stat)
        else:
            mode, uid, gid = S_IFMT(stat.mode) | permissions, stat.uid, stat.gid
        seconds, nanoseconds = divmod(stat.mtime_ns, SECOND)
        check_inode(mode, stat.nlink, uid, gid, data.size)
        check_time(seconds, nanoseconds)
        return pack_inode(
            *(inode_format(data.layout), xattrs.words, mode, 0, data.size, data.union, nid),
            *(uid, gid, seconds, nanoseconds, stat.nlink),
        )


def _device_number(rdev: int) -> int:
    major, minor = os.major(rdev), os.minor(rdev)
    check_device_number(major, minor)
    return new_encode_dev(major, minor)
