"""Inode numbers: the node of a tree that each number stands for.

Inode numbers are stable while a mount lives.  Bits 48 and up name a tree, the bits below are the node's number
in that tree (of a layer's tree the record, of the merged tree the layer in bits 32–47 and the record in bits
0–31).  The view is tree 0; its numbers begin at 1.  Each lazy directory has a tree of its own, numbered as follows:

- The tree of a lazy directory in the view has the directory's inode number, so these numbers depend on the image alone.
- The tree of a lazy directory further down gets the next number after those of the view, at its first access.

A lazy directory keeps the inode number under which its parent lists it.  Memory grows with the trees that were
made, not with the nodes that were visited.
"""

from dataclasses import dataclass

from fusefs.errors import Unavailable
from fusefs.tree.node import KnownTree, LazyDirectory, Node, Stat, Tree, stat_of

ROOT = 1
"""The root's number, which FUSE fixes."""

_SHIFT = 48
_MASK = (1 << _SHIFT) - 1
_MAX_TREES = 1 << (64 - _SHIFT)


@dataclass(frozen=True, slots=True)
class Place:
    """A node of a tree."""

    tree: Tree
    base: int
    """The inode number of the tree's node 0, as if that were no lazy directory's."""
    number: int
    """The node's number in the tree."""

    def inode(self, number: int) -> int:
        """Return the inode number of another node of the same tree."""
        return self.base + number


@dataclass(frozen=True, slots=True)
class _Made:
    """The tree that was made for a lazy directory."""

    tree: Tree
    base: int
    directory: LazyDirectory
    inode: int
    """Of the directory."""


class Inodes:
    """Places by inode number.  Used by one thread: `add` puts in the trees that others have made."""

    def __init__(self, view: KnownTree) -> None:
        """Start with the *view* alone."""
        self._view = view
        self._made: dict[int, _Made] = {}
        """By the inode number of the lazy directory."""
        self._trees: dict[int, _Made] = {}
        """By the number of the tree."""
        self._next_tree = ROOT + len(view)

    def node(self, inode: int) -> Node | None:
        """Return the node with this inode number, None if there is none."""
        made = self._made.get(inode)
        if made is not None:
            return made.directory if made.directory.settled else made.tree.node(0)
        place = self._place(inode)
        return None if place is None else place.tree.node(place.number)

    def stat(self, inode: int) -> Stat | None:
        """Return the `stat` of the node with this inode number, None if there is none."""
        if inode not in self._made:
            above = self._trees.get(inode >> _SHIFT)
            if above is not None:
                return above.tree.stat(inode & _MASK)
        node = self.node(inode)
        return None if node is None else stat_of(node)

    def unmade(self, inode: int) -> LazyDirectory | None:
        """Return the lazy directory with this inode number if its tree is still to be made."""
        if inode in self._made:
            return None
        above = self._trees.get(inode >> _SHIFT)
        if above is not None and not above.tree.has_lazy:  # nearly all nodes: make no place and no node for the answer
            return None
        place = self._place(inode)
        node = None if place is None else place.tree.node(place.number)
        return node if isinstance(node, LazyDirectory) else None

    def add(self, inode: int, tree: Tree) -> None:
        """Put in the *tree* that was made for a lazy directory; to repeat that changes nothing.

        Raises Unavailable when all numbers for trees are taken: some 65,000 lazy directories were visited.
        """
        if inode in self._made:
            return
        directory = self.node(inode)
        assert isinstance(directory, LazyDirectory)
        is_in_view = inode <= _MASK
        number = inode if is_in_view else self._next_tree
        if number >= _MAX_TREES:
            raise Unavailable(f"more than {_MAX_TREES} directories that are filled at first access")
        self._next_tree += not is_in_view
        self._made[inode] = self._trees[number] = _Made(tree, number << _SHIFT, directory, inode)

    def place(self, inode: int) -> Place | None:
        """Return where a node's entries and extended attributes are found, None if there is no such node."""
        made = self._made.get(inode)
        return self._place(inode) if made is None else Place(made.tree, made.base, 0)

    def parent(self, inode: int) -> int:
        """Return the inode number of the directory that a directory is in."""
        place = self._place(inode)
        assert place is not None
        above = place.tree.parent(place.number)
        made = self._trees.get(inode >> _SHIFT)
        return made.inode if made is not None and above == 0 else place.inode(above)

    def _place(self, inode: int) -> Place | None:
        """Return the place of a node in the tree that lists it."""
        if 0 <= inode <= _MASK:
            known = ROOT <= inode < ROOT + len(self._view)
            return Place(self._view, ROOT, inode - ROOT) if known else None
        made = self._trees.get(inode >> _SHIFT)
        return None if made is None else Place(made.tree, made.base, inode & _MASK)
