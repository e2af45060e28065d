"""One tree of the view: its nodes get places in the metadata, and are written there."""

from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from stat import S_IFDIR, S_ISDIR

from fusefs.erofs.dirents import DOT, DOTS, packed, size_of
from fusefs.erofs.inodes import Data, Inodes
from fusefs.erofs.ondisk import BLOCK, FLAT_INLINE, FLAT_PLAIN, INODE_SIZE, SLOT
from fusefs.erofs.stream import MAX_INLINE, Cursor
from fusefs.erofs.xattrs import NO_XATTRS
from fusefs.tree.node import Stat, Tree

SHIFT = 32
"""A node's number: its layer above this bit, its record below; in a tree without layers just a number."""
RECORD = (1 << SHIFT) - 1
_WAITING = 1
"""Stands for the nid of an inode that has no place yet: that nid is none, since the superblock comes later."""

Nids = array
"""The nids of a layer's records, 0 for none; an ``array("I")``."""


class PlacedTree:
    """A tree whose nodes have nids.

    First all nodes get their places (`place`), then they are written (`write`), since a directory states the nids
    of what is in it, and of the directory above.
    """

    def __init__(
        self,
        tree: Tree,
        nids: "list[Nids[int]]",
        *,
        exclusive: Iterable[int] = (),
        elsewhere: Iterable[int] = (),
        root: Stat | None = None,
    ) -> None:
        """Place the nodes of *tree*.

        *nids* are those of files that are written already, for each layer, and take all others; *exclusive* are
        nodes that get nids of their own in any case; *elsewhere* are directories whose nids are set later.  *root*
        replaces the attributes of the root.
        """
        self._tree = tree
        self._nids = nids
        self._root = root
        self.parent = 0
        """The nid of the directory above the tree."""
        self.top: int | None = None
        """The directory that is the mount's root, if it is in this tree and its inode is written elsewhere."""
        self.top_data = Data(FLAT_PLAIN, 0, 0)
        """The data of that inode, once they are written."""
        self.root_permissions: int | None = None
        """The low 12 bits of the root's mode, in place of its own and of overrides."""
        self._directories, self._files = array("Q", [0]), array("Q")
        """The numbers of the nodes that get nids here, in this order."""
        self._above = array("I", [0])
        """For each directory, the one around it, by its place among these."""
        self._heads = array("I")
        """For each directory, the bytes of its inode with its extended attributes."""
        for number in exclusive:
            self.set_nid(number, 0)
        for number in elsewhere:
            self.set_nid(number, _WAITING)
        self.set_nid(0, _WAITING)

    def nid(self, number: int) -> int:
        """Return the nid of a node."""
        return self._nids[number >> SHIFT][number & RECORD]

    def set_nid(self, number: int, nid: int) -> None:
        """Set the nid of a node."""
        self._nids[number >> SHIFT][number & RECORD] = nid

    def place(self, cursor: Cursor, inodes: Inodes) -> None:
        """Give all nodes a place from *cursor* on."""
        for place, number in enumerate(self._directories):  # grows while directories are listed
            if number == self.top:
                self._heads.append(0)
                cursor.blocks(-(-size_of(self._lengths(place, number)) // BLOCK))
                continue
            xattrs = inodes.xattrs(self._tree, number, S_IFDIR)
            self._heads.append(INODE_SIZE + xattrs.size)
            cursor.blocks(xattrs.block_count)
            size = size_of(self._lengths(place, number))
            if size > MAX_INLINE:
                cursor.blocks(-(-size // BLOCK))
                size = 0
            self.set_nid(number, cursor.inode(INODE_SIZE + xattrs.size, size))
        for number in self._files:
            self.set_nid(number, inodes.of(self._tree, number).place(cursor).nid)

    def _lengths(self, place: int, directory: int) -> Iterator[int]:
        """Yield the lengths of a directory's names, and add the nodes that have no nid."""
        nids, dots = self._nids, [DOTS, DOT]
        for name, number, mode in self._tree.entries(directory):
            while dots and name > dots[-1]:
                yield len(dots.pop())
            yield len(name)
            if not nids[number >> SHIFT][number & RECORD] or number == self.top:
                if number != self.top:
                    self.set_nid(number, _WAITING)
                if S_ISDIR(mode):
                    self._directories.append(number)
                    self._above.append(place)
                else:
                    self._files.append(number)
        while dots:
            yield len(dots.pop())

    def write(self, cursor: Cursor, inodes: Inodes) -> None:
        """Write all nodes from *cursor* on, which is where `place` began."""
        for place, number in enumerate(self._directories):
            if number == self.top:
                self.top_data = self._put_blocks(packed(self._dirents(place, number)), cursor, inodes)
                inodes.stream.put(cursor.position, b"")  # nothing may follow, and the kernel reads whole blocks
                continue
            nid = self._write_directory(place, number, cursor, inodes)
            assert nid == self.nid(number)
        for number in self._files:
            nid = inodes.write(self._tree, number, cursor)
            assert nid == self.nid(number)

    def _write_directory(self, place: int, number: int, cursor: Cursor, inodes: Inodes) -> int:
        has_xattrs = self._heads[place] > INODE_SIZE
        xattrs = inodes.xattrs(self._tree, number, S_IFDIR) if has_xattrs else NO_XATTRS
        shared = inodes.put_shared(xattrs, cursor.blocks(xattrs.block_count)) if has_xattrs else []
        blocks = packed(self._dirents(place, number))
        first = next(blocks)
        second = next(blocks, b"")
        if second or len(first) > MAX_INLINE:
            data = self._put_blocks(chain((first, second), blocks), cursor, inodes)
            first = b""
        else:
            data = Data(FLAT_INLINE, len(first), 0)
        nid = cursor.inode(self._heads[place], len(first))
        permissions = None if number else self.root_permissions
        structure = inodes.structure(self.stat(number), xattrs, data, nid, permissions)
        inodes.stream.put(nid * SLOT, structure + xattrs.packed(shared) + first)
        return nid

    def stat(self, number: int) -> Stat:
        """Return the attributes of a node."""
        return self._root if self._root and not number else self._tree.stat(number)

    def _put_blocks(self, blocks: Iterable[bytes], cursor: Cursor, inodes: Inodes) -> Data:
        """Write the blocks of a directory."""
        start, size = cursor.blocks(0), 0
        for data in filter(None, blocks):
            inodes.stream.put(start * BLOCK + size + -size % BLOCK, data)
            size += -size % BLOCK + len(data)
        cursor.blocks(-(-size // BLOCK))
        return Data(FLAT_PLAIN, size, start)

    def _dirents(self, place: int, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, nid and mode of a directory's entries, sorted by name, ``.`` and ``..`` among them."""
        nids = self._nids
        parent = self.nid(self._directories[self._above[place]]) if directory else self.parent
        if directory == self.top:
            parent = self.nid(directory)
        dots = [(DOTS, parent, S_IFDIR), (DOT, self.nid(directory), S_IFDIR)]
        for name, number, mode in self._tree.entries(directory):
            while dots and name > dots[-1][0]:
                yield dots.pop()
            yield name, nids[number >> SHIFT][number & RECORD], mode
        while dots:
            yield dots.pop()
