"""Inode numbers: which node of which tree a number stands for.

The view's nodes have small numbers.  A tree below one of its lazy directories has that directory's
number above bit 48 and its own numbers below; its root is the directory.  So a number depends on the
image alone, and nothing is stored for one.
"""

from dataclasses import dataclass

from fusefs.tree.node import KnownTree, LazyDirectory, Node, Stat, Tree, stat_of

ROOT = 1
"""The root's number, which FUSE fixes."""

_SHIFT = 48
_MASK = (1 << _SHIFT) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """A node of a tree."""

    tree: Tree
    base: int
    """What the tree's numbers are added to."""
    number: int
    """The node's number in the tree."""

    def inode(self, number: int) -> int:
        """Return the inode number of another node of the same tree."""
        return self.base + number


class Inodes:
    """Places by inode number.  Used by one thread: `add` puts in the trees that others have made."""

    def __init__(self, view: KnownTree) -> None:
        """Start with the *view* alone."""
        self._view = view
        self._trees: dict[int, Tree] = {}

    def node(self, inode: int) -> Node | None:
        """Return the node with this inode number, None if it is nobody's."""
        if inode >> _SHIFT == 0 and inode in self._trees:
            lazy = self._view.node(inode - ROOT)
            assert isinstance(lazy, LazyDirectory)
            return lazy if lazy.settled else self._trees[inode].node(0)
        place = self._place(inode)
        return None if place is None else place.tree.node(place.number)

    def stat(self, inode: int) -> Stat | None:
        """Return what stat(2) says of the node with this inode number, None if it is nobody's."""
        tree = self._trees.get(inode >> _SHIFT)
        if tree is not None:
            return tree.stat(inode & _MASK)
        node = self.node(inode)
        return None if node is None else stat_of(node)

    def unmade(self, inode: int) -> LazyDirectory | None:
        """Return the directory with this inode number if its tree is still to be made."""
        if inode >> _SHIFT or inode in self._trees or not ROOT <= inode < ROOT + len(self._view):
            return None
        node = self._view.node(inode - ROOT)
        return node if isinstance(node, LazyDirectory) else None

    def add(self, inode: int, tree: Tree) -> None:
        """Put in the *tree* that was made for a lazy directory."""
        self._trees[inode] = tree

    def place(self, inode: int) -> Place | None:
        """Return where a node's entries and extended attributes are found, None if it is nobody's."""
        if inode in self._trees:
            return Place(self._trees[inode], inode << _SHIFT, 0)
        return self._place(inode)

    def parent(self, inode: int) -> int:
        """Return the inode number of the directory that a directory is in."""
        place = self._place(inode)
        assert place is not None
        above = place.tree.parent(place.number)
        return inode >> _SHIFT if inode >> _SHIFT and above == 0 else place.inode(above)

    def _place(self, inode: int) -> Place | None:
        top = inode >> _SHIFT
        if top:
            tree = self._trees.get(top)
            return None if tree is None else Place(tree, top << _SHIFT, inode & _MASK)
        known = ROOT <= inode < ROOT + len(self._view)
        return Place(self._view, ROOT, inode - ROOT) if known else None
