"""Maps inode numbers to nodes of trees.

Inode numbers are stable while a mount lives, and small: 32-bit programs fail for a file whose number is not below
2^32 (EOVERFLOW).  The nodes of a tree have numbers of up to 48 bits.  So a tree is divided into pages of 4,096 numbers,
and each page gets the next 4,096 inode numbers when one of its nodes is looked at for the first time.  The view comes
first; its inode numbers begin at 1.  Each lazy directory has its own tree.

A lazy directory keeps the inode number under which its parent lists it.  Memory use grows with the number of trees and
pages, not with the number of visited nodes.

In a mount of many images, all trees of one image directory have an `Owner`.  They can be released, and are made again
at the next access, with the same numbers; and forgotten, when the kernel has forgotten all their inodes.
"""

from collections.abc import Callable, Hashable
from stat import S_ISDIR
from typing import Any, NamedTuple

from fusefs.tree.node import KnownTree, LazyDirectory, Node, Stat, Tree, stat_of

ROOT = 1
"""The inode number of the root, fixed by FUSE."""
_PAGE = 12
"""Bits of a number within its page."""


class Unready(Exception):
    """The answer needs something that is not here (now): call `work` in a thread, give `done` its result, try again."""

    def __init__(
        self,
        key: Hashable,
        work: Callable[[], Any],
        done: Callable[[Any], None] = lambda _: None,
        owner: "Owner | None" = None,
    ) -> None:
        """*key*: calls of *work* with equal keys are one call.  *owner*: whose trees it makes."""
        super().__init__(str(key))
        self.key = key
        self.work = work
        self.done = done
        self.owner = owner


class Owner:
    """What owns trees that are released and forgotten together.  Used by the event loop's thread alone."""

    def __init__(self) -> None:
        self.lookups = 0
        """How many references the kernel has to the inodes of the trees."""
        self.used = 0.0
        """When one of them was last asked for, in seconds of the monotonic clock."""
        self.busy = 0
        """Requests that wait for work on the trees: nothing is released meanwhile."""
        self.opened = 0
        """Files and directories of the trees that are open."""
        self.forgotten = 0
        """References to the directory with the first of the trees that are gone before the last of `lookups`."""
        self.trees: list[NumberedTree] = []


class _Page(NamedTuple):
    """The numbers of one page."""

    tree: "NumberedTree"
    offset: int
    """The number to add to a node's number for its inode number."""


class _Pages:
    """All pages by the upper bits of the inode numbers.  The numbers of a page that was dropped are not used again."""

    def __init__(self) -> None:
        self._pages: dict[int, _Page] = {}
        self._next = 0
        self.get = self._pages.get

    def add(self, tree: "NumberedTree", page: int) -> int:
        """Give the next inode numbers to a *page* of *tree*, and return its offset."""
        at = self._next
        self._next += 1
        self._pages[at] = _Page(tree, (at - page) << _PAGE)
        return self._pages[at].offset

    def add_view(self, tree: "NumberedTree", count: int) -> None:
        """Give the first *count* inode numbers from `ROOT` on to *tree*."""
        for at in range((ROOT + count - 1 >> _PAGE) + 1):
            self._pages[at] = _Page(tree, ROOT)
            self._next = at + 1

    def drop(self, page: int, offset: int) -> None:
        """Drop a page of a tree that has this *offset*."""
        del self._pages[page + (offset >> _PAGE)]


class NumberedTree:
    """A tree whose nodes get inode numbers when they are looked at."""

    def __init__(self, tree: Tree, pages: _Pages, number: int, place: "Place | None" = None) -> None:
        """Take numbers from *pages*.  The root has the inode number *number*, and is the lazy directory at *place*."""
        self._tree: Tree | None = tree
        self._place = place
        self.number = number
        self._pages = pages
        self._offsets: dict[int, int] = {}
        """By page of the tree."""
        self.owner: Owner | None = tree if isinstance(tree, Owner) else place.numbered.owner if place else None
        self._is_owner = isinstance(tree, Owner)
        self.settled = False
        self._root = stat_of(tree.node(0))
        if place is not None:
            directory = place.tree.node(place.number)
            assert isinstance(directory, LazyDirectory)
            self.settled = directory.settled

    @property
    def tree(self) -> Tree:
        """The tree; Unready if it was released."""
        if self._tree is None:
            self._raise_unready()
        assert self._tree is not None
        return self._tree

    @property
    def root(self) -> Stat:
        """The attributes of the root; of a tree that was released, the last ones."""
        if self._tree is not None:
            self._root = stat_of(self._tree.node(0))
        return self._root

    @property
    def is_settling(self) -> bool:
        """Whether names of the root, and its attributes, may still change."""
        return self._tree is not None and self._tree.settling(0, None) is not None

    def _raise_unready(self) -> None:
        assert self._place is not None
        directory = self._place.tree.node(self._place.number)
        assert isinstance(directory, LazyDirectory)
        raise Unready(self.number, directory.fill, self._restore, self.owner)

    def _restore(self, tree: Tree) -> None:
        self._tree = tree

    def release(self) -> None:
        """Let go of the tree, which is made again when it is needed, with the same numbers; not of the owner itself."""
        if not self._is_owner:
            self._tree = None

    def drop_pages(self) -> None:
        """Give the numbers back: the kernel knows none of them."""
        for page, offset in self._offsets.items():
            self._pages.drop(page, offset)
        self._offsets.clear()

    def inode(self, number: int) -> int:
        """Return the inode number of a node."""
        offset = self._offsets.get(number >> _PAGE)
        return number + (self._new_page(number >> _PAGE) if offset is None else offset)

    def _new_page(self, page: int) -> int:
        offset = self._offsets[page] = self._pages.add(self, page)
        return offset


class _NumberedView(NumberedTree):
    """The view: its nodes are numbered from `ROOT` on."""

    def __init__(self, view: KnownTree, pages: _Pages) -> None:
        super().__init__(view, pages, ROOT)
        pages.add_view(self, len(view))
        self.count = len(view)

    def inode(self, number: int) -> int:
        """Return the inode number of a node."""
        return ROOT + number


class _NumberedRoot(NumberedTree):
    """A root tree whose nodes are not all known: its numbers begin at `ROOT`, which stands for its node 0."""

    def inode(self, number: int) -> int:
        """Return the inode number of a node."""
        return super().inode(number or ROOT)


class Place(NamedTuple):
    """A node of a tree."""

    numbered: NumberedTree
    number: int
    """The node's number in the tree."""

    @property
    def tree(self) -> Tree:
        """The tree of the node; Unready if it was released."""
        return self.numbered.tree


class Inodes:
    """Places by inode number.  For use by one thread; other threads make the trees that `add` registers."""

    def __init__(self, view: Tree) -> None:
        """Start with the *view* alone.

        In a view that is no `KnownTree`, no node has the number `ROOT`; that one means the root, as 0 does.
        """
        self._pages = _Pages()
        self._count: int | None = None
        """The number of nodes of the view, if they are known."""
        self._made: dict[int, NumberedTree] = {}
        """By the inode number of the lazy directory."""
        if isinstance(view, KnownTree):
            self._view: NumberedTree = _NumberedView(view, self._pages)
            self._count = len(view)
        else:
            self._view = _NumberedRoot(view, self._pages, ROOT)
            self._view.inode(0)

    def node(self, inode: int) -> Node | None:
        """Return the node with this inode number, None if there is none."""
        made = self._made.get(inode)
        if made is not None and not made.settled:
            return made.tree.node(0)
        place = self._place(inode)
        return None if place is None else place.tree.node(place.number)

    def stat(self, inode: int) -> Stat | None:
        """Return the `stat` of the node with this inode number, None if there is none."""
        made = self._made.get(inode)
        if made is not None and not made.settled:
            return made.root
        if made is None:
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
        if place is None or not S_ISDIR(place.tree.stat(place.number).mode):  # a file's node may need what is not here
            return None
        node = place.tree.node(place.number)
        return node if isinstance(node, LazyDirectory) else None

    def is_unsettled(self, inode: int) -> bool:
        """Return whether this is a lazy directory whose attributes are not known yet."""
        made = self._made.get(inode)
        if made is not None:
            return not made.settled and made.is_settling
        lazy = self.unmade(inode)
        return lazy is not None and not lazy.settled

    def add(self, inode: int, tree: Tree) -> None:
        """Register the *tree* of a lazy directory; a second call for the directory has no effect."""
        if inode not in self._made:
            place = self._place(inode)
            assert place is not None
            made = self._made[inode] = NumberedTree(tree, self._pages, inode, place)
            if made.owner is not None:
                made.owner.trees.append(made)

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

    def owner(self, inode: int) -> Owner | None:
        """Return the owner of the tree that lists this inode; None for those of the view."""
        page = self._page(inode)
        return None if page is None else page.tree.owner

    def tree_owner(self, inode: int) -> Owner | None:
        """Return the owner of the tree that a lazy directory has, None if it has none."""
        made = self._made.get(inode)
        return None if made is None else made.owner

    def root_number(self, inode: int) -> int | None:
        """Return the number of an inode of a view that is no `KnownTree`; None if the inode is not of the view."""
        page = self._page(inode)
        if page is None or page.tree is not self._view:
            return None
        return 0 if inode == ROOT else inode - page.offset

    def root_inode(self, number: int) -> int:
        """Return the inode number of a node of the view."""
        return self._view.inode(number)

    def forget(self, owner: Owner) -> None:
        """Give the inode numbers of all trees of *owner* back."""
        for made in owner.trees:
            made.drop_pages()
            self._made.pop(made.number, None)
        owner.trees.clear()

    def _page(self, inode: int) -> _Page | None:
        return self._pages.get(inode >> _PAGE)

    def _place(self, inode: int) -> Place | None:
        """Return the place of a node in the tree that lists it."""
        page = self._page(inode)
        if page is None:
            return None
        number = inode - page.offset
        known = page.tree is not self._view or self._count is None or 0 <= number < self._count
        return Place(page.tree, number) if known else None
