"""Maps inode numbers to nodes of trees.

Inode numbers are stable while a mount lives.  Bits 48 and up are the number of a tree.  The bits below are the
number of the node in that tree: in the tree of a layer the record, in the merged tree the layer (bits 32–47) and
the record (bits 0–31).  The view is tree 0; its inode numbers begin at 1.  Each lazy directory has its own tree:

- The number of the tree of a lazy directory in the view is the directory's inode number: it depends only on the image.
- A lazy directory below another one gets the next free number for its tree, on first access.

A lazy directory keeps the inode number under which its parent lists it.  Memory use grows with the number of trees,
not with the number of visited nodes.
"""

from typing import NamedTuple

from fusefs.errors import Unavailable
from fusefs.tree.node import KnownTree, LazyDirectory, Node, Stat, Tree, stat_of

ROOT = 1
"""The inode number of the root, fixed by FUSE."""

_SHIFT = 48
_MASK = (1 << _SHIFT) - 1
_MAX_TREES = 1 << (64 - _SHIFT)


class Place(NamedTuple):
    """A node of a tree."""

    tree: Tree
    base: int
    """The number to add to a node's number for its inode number."""
    number: int
    """The node's number in the tree."""

    def inode(self, number: int) -> int:
        """Return the inode number of another node of the same tree."""
        return self.base + number


class _Made(NamedTuple):
    """A lazy directory and its tree."""

    tree: Tree
    base: int
    directory: LazyDirectory
    inode: int
    """The inode number of the directory."""


class Inodes:
    """Places by inode number.  For use by one thread; other threads make the trees that `add` registers."""

    def __init__(self, view: KnownTree) -> None:
        """Start with the *view* alone."""
        self._view = view
        self._made: dict[int, _Made] = {}
        """By the inode number of the lazy directory."""
        self._trees: dict[int, _Made] = {}
        """By tree number."""
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
        """Return the lazy directory with this inode number if it has no tree yet, else None."""
        if inode in self._made:
            return None
        above = self._trees.get(inode >> _SHIFT)
        if above is not None and not above.tree.has_lazy:  # nearly all nodes: create no objects
            return None
        place = self._place(inode)
        node = None if place is None else place.tree.node(place.number)
        return node if isinstance(node, LazyDirectory) else None

    def add(self, inode: int, tree: Tree) -> None:
        """Register the *tree* of a lazy directory; a second call for the directory has no effect.

        Raises Unavailable if no tree number is free, after about 65,000 visited lazy directories.
        """
        if inode in self._made:
            return
        directory = self.node(inode)
        assert isinstance(directory, LazyDirectory)
        is_in_view = inode <= _MASK
        number = inode if is_in_view else self._next_tree
        if number >= _MAX_TREES:
            raise Unavailable(f"more than {_MAX_TREES} lazy directories (filled on first access) were visited")
        self._next_tree += not is_in_view
        self._made[inode] = self._trees[number] = _Made(tree, number << _SHIFT, directory, inode)

    def place(self, inode: int) -> Place | None:
        """Return the place of a node's directory entries and extended attributes, None if there is no such node."""
        made = self._made.get(inode)
        return self._place(inode) if made is None else Place(made.tree, made.base, 0)

    def parent(self, inode: int) -> int:
        """Return the inode number of a directory's parent."""
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
