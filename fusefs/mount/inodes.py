"""Maps inode numbers to nodes of trees.

Inode numbers are stable while a mount lives, and small: 32-bit programs fail for a file whose number is not below
2^32 (EOVERFLOW).  The nodes of a tree have numbers of up to 48 bits.  So a tree is divided into pages of 4,096 numbers,
and each page gets the next 4,096 inode numbers when one of its nodes is looked at for the first time.  The view comes
first; its inode numbers begin at 1.  Each lazy directory has its own tree.

A lazy directory keeps the inode number under which its parent lists it.  Memory use grows with the number of trees and
pages, not with the number of visited nodes.
"""

from typing import NamedTuple

from fusefs.tree.node import KnownTree, LazyDirectory, Node, Stat, Tree, stat_of

ROOT = 1
"""The inode number of the root, fixed by FUSE."""
_PAGE = 12
"""Bits of a number within its page."""


class _Page(NamedTuple):
    """The numbers of one page."""

    tree: "NumberedTree"
    offset: int
    """The number to add to a node's number for its inode number."""


class NumberedTree:
    """A tree whose nodes get inode numbers when they are looked at."""

    def __init__(self, tree: Tree, pages: list[_Page], directory: LazyDirectory | None, number: int) -> None:
        """Take numbers at the end of *pages*.  *directory* has the tree, and the inode number *number*."""
        self.tree = tree
        self.directory = directory
        self.number = number
        self._pages = pages
        self._offsets: dict[int, int] = {}
        """By page of the tree."""

    def inode(self, number: int) -> int:
        """Return the inode number of a node."""
        offset = self._offsets.get(number >> _PAGE)
        return number + (self._new_page(number >> _PAGE) if offset is None else offset)

    def _new_page(self, page: int) -> int:
        offset = self._offsets[page] = (len(self._pages) - page) << _PAGE
        self._pages.append(_Page(self, offset))
        return offset


class _NumberedView(NumberedTree):
    """The view: its nodes are numbered from `ROOT` on."""

    def __init__(self, view: KnownTree, pages: list[_Page]) -> None:
        super().__init__(view, pages, None, ROOT)
        pages += [_Page(self, ROOT)] * ((ROOT + len(view) - 1 >> _PAGE) + 1)
        self.count = len(view)

    def inode(self, number: int) -> int:
        """Return the inode number of a node."""
        return ROOT + number


class Place(NamedTuple):
    """A node of a tree."""

    numbered: NumberedTree
    number: int
    """The node's number in the tree."""

    @property
    def tree(self) -> Tree:
        """The tree of the node."""
        return self.numbered.tree


class Inodes:
    """Places by inode number.  For use by one thread; other threads make the trees that `add` registers."""

    def __init__(self, view: KnownTree) -> None:
        """Start with the *view* alone."""
        self._pages: list[_Page] = []
        self._view = _NumberedView(view, self._pages)
        self._made: dict[int, NumberedTree] = {}
        """By the inode number of the lazy directory."""

    def node(self, inode: int) -> Node | None:
        """Return the node with this inode number, None if there is none."""
        made = self._made.get(inode)
        if made is not None and made.directory is not None:
            return made.directory if made.directory.settled else made.tree.node(0)
        place = self._place(inode)
        return None if place is None else place.tree.node(place.number)

    def stat(self, inode: int) -> Stat | None:
        """Return the `stat` of the node with this inode number, None if there is none."""
        if inode not in self._made:
            page = self._page(inode)
            if page is not None and page.tree is not self._view:
                return page.tree.tree.stat(inode - page.offset)
        node = self.node(inode)
        return None if node is None else stat_of(node)

    def unmade(self, inode: int) -> LazyDirectory | None:
        """Return the lazy directory with this inode number if it has no tree yet, else None."""
        if inode in self._made:
            return None
        page = self._page(inode)
        if page is None or not page.tree.tree.has_lazy:  # nearly all nodes: create no objects
            return None
        place = self._place(inode)
        node = None if place is None else place.tree.node(place.number)
        return node if isinstance(node, LazyDirectory) else None

    def is_unsettled(self, inode: int) -> bool:
        """Return whether this is a lazy directory whose attributes are not known yet."""
        made = self._made.get(inode)
        if made is not None:
            settled = made.directory is None or made.directory.settled
            return not settled and made.tree.settling(0, None) is not None
        lazy = self.unmade(inode)
        return lazy is not None and not lazy.settled

    def add(self, inode: int, tree: Tree) -> None:
        """Register the *tree* of a lazy directory; a second call for the directory has no effect."""
        if inode not in self._made:
            directory = self.node(inode)
            assert isinstance(directory, LazyDirectory)
            self._made[inode] = NumberedTree(tree, self._pages, directory, inode)

    def place(self, inode: int) -> Place | None:
        """Return the place of a node's directory entries and extended attributes, None if there is no such node."""
        made = self._made.get(inode)
        return self._place(inode) if made is None else Place(made, 0)

    def parent(self, inode: int) -> int:
        """Return the inode number of a directory's parent."""
        place = self._place(inode)
        assert place is not None
        numbered, number = place
        above = numbered.tree.parent(number)
        return numbered.number if above == 0 else numbered.inode(above)

    def _page(self, inode: int) -> _Page | None:
        at = inode >> _PAGE
        return self._pages[at] if 0 <= at < len(self._pages) else None

    def _place(self, inode: int) -> Place | None:
        """Return the place of a node in the tree that lists it."""
        page = self._page(inode)
        if page is None:
            return None
        number = inode - page.offset
        known = page.tree is not self._view or 0 <= number < self._view.count
        return Place(page.tree, number) if known else None
