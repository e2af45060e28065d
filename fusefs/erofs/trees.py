"""One tree of the view: its nodes get places in the metadata, and are written there."""

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from stat import S_ISDIR

from fusefs.content.protocol import Literal
from fusefs.erofs.bodies import Body, stored
from fusefs.erofs.dirents import DOT, DOTS, packed, size_of, with_dots
from fusefs.erofs.inodes import Inode, Inodes
from fusefs.erofs.ondisk import BLOCK, FLAT_PLAIN, INODE_SIZE
from fusefs.erofs.stream import MAX_INLINE, Cursor
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
        shared: "Sequence[Nids[int]]",
        *,
        exclusive: Collection[int] = (),
        elsewhere: Iterable[int] = (),
        root: Stat | None = None,
    ) -> None:
        """Place the nodes of *tree*.

        *shared* are the nids of files that are written already, of each layer; *exclusive* are nodes that get a nid
        of their own in any case; *elsewhere* are directories whose nids are set later.  *root* replaces the
        attributes of the root.
        """
        self._tree = tree
        self._shared = shared
        self._exclusive = exclusive
        self._root = root
        self.parent = 0
        """The nid of the directory above the tree."""
        self.root_permissions: int | None = None
        """The low 12 bits of the root's mode, in place of its own and of overrides."""
        self._own = [array("I", [0]) * len(nids) for nids in shared]
        self._order = array("Q")
        """The numbers of the nodes that get nids here, in this order."""
        self._add(0)
        for number in elsewhere:
            self.set_nid(number, _WAITING)

    def nid(self, number: int) -> int:
        """Return the nid of a node."""
        layer, record = number >> SHIFT, number & RECORD
        return self._own[layer][record] or self._shared[layer][record]

    def set_nid(self, number: int, nid: int) -> None:
        """Set the nid of a node."""
        self._own[number >> SHIFT][number & RECORD] = nid

    def _add(self, number: int) -> None:
        self.set_nid(number, _WAITING)
        self._order.append(number)

    def place(self, cursor: Cursor, inodes: Inodes) -> None:
        """Give all nodes a place from *cursor* on."""
        for number in self._order:  # grows while directories are listed
            stat = self._stat(number)
            if S_ISDIR(stat.mode):
                size = size_of(self._lengths(number))
                head = INODE_SIZE + inodes.xattrs(self._tree, number, stat.mode).size
                inline = size <= MAX_INLINE
                nid, _ = cursor.place(head, size if inline else 0, 0 if inline else -(-size // BLOCK))
            else:
                nid, _ = inodes.of(self._tree, number).place(cursor)
            self.set_nid(number, nid)

    def _stat(self, number: int) -> Stat:
        return self._root if self._root and not number else self._tree.stat(number)

    def _lengths(self, directory: int) -> Iterator[int]:
        """Yield the lengths of a directory's names, and add the nodes that have no nid."""
        own, shared, exclusive = self._own, self._shared, self._exclusive
        dots = [DOTS, DOT]
        for name, number, _ in self._tree.entries(directory):
            while dots and name > dots[-1]:
                yield len(dots.pop())
            yield len(name)
            layer, record = number >> SHIFT, number & RECORD
            if not own[layer][record] and (not shared[layer][record] or number in exclusive):
                self._add(number)
        while dots:
            yield len(dots.pop())

    def write(self, cursor: Cursor, inodes: Inodes) -> None:
        """Write all nodes from *cursor* on, which is where `place` began."""
        for number in self._order:
            stat = self._stat(number)
            if S_ISDIR(stat.mode):
                nid = self._write_directory(number, stat, cursor, inodes)
            else:
                inode = inodes.of(self._tree, number)
                place = nid, _ = inode.place(cursor)
                inodes.put(inode, place)
            assert nid == self.nid(number)

    def _write_directory(self, number: int, stat: Stat, cursor: Cursor, inodes: Inodes) -> int:
        parent = self.nid(self._tree.parent(number)) if number else self.parent
        blocks = packed(with_dots(self._dirents(number), self.nid(number), parent))
        first, second = next(blocks), next(blocks, b"")
        xattrs = inodes.xattrs(self._tree, number, stat.mode)
        permissions = None if number else self.root_permissions
        if not second and len(first) <= MAX_INLINE:
            inode = Inode(stat, xattrs, stored(Literal(first)), permissions)
            place = inode.place(cursor)
        else:
            start, size = -(-cursor.position // BLOCK), 0
            for data in chain((first, second), blocks) if second else (first,):
                size += -size % BLOCK
                inodes.stream.put(start * BLOCK + size, data)
                size += len(data)
            inode = Inode(stat, xattrs, Body(size, FLAT_PLAIN, start), permissions)
            place = cursor.place(inode.head, 0, -(-size // BLOCK))
        inodes.put(inode, place)
        return place[0]

    def _dirents(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        own, shared = self._own, self._shared
        for name, number, mode in self._tree.entries(directory):
            layer, record = number >> SHIFT, number & RECORD
            yield name, own[layer][record] or shared[layer][record], mode
