"""One directory of a tree as the root of a tree of its own."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from fusefs.tree.node import Node, Stat, Tree, Xattrs, present


class Subtree:
    """What is below one directory.  Safe under concurrency, as the tree is; nothing changes.

    The directory and the tree's root exchange their numbers; all other numbers, and all names, are those of the tree.
    """

    def __init__(self, tree: Tree, top: int, xattrs: Xattrs) -> None:
        """Make the directory *top* of *tree* the root, which has *xattrs* in addition to its own."""
        self._tree = tree
        self._top = top
        self._xattrs = xattrs
        self.has_lazy = tree.has_lazy

    def _exchanged(self, number: int) -> int:
        if number == 0:
            return self._top
        return 0 if number == self._top else number

    def settling(self, directory: int, name: bytes | None) -> Callable[[], None] | None:
        """Return the work after which names of a directory may be right."""
        return self._tree.settling(self._exchanged(directory), name)

    def node(self, number: int) -> Node:
        """Return a node."""
        return self._tree.node(self._exchanged(number))

    def stat(self, number: int) -> Stat:
        """Return the stat result of a node."""
        return self._tree.stat(self._exchanged(number))

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        own = self._tree.xattrs(self._exchanged(number))
        # Ours win: an image must not forge what imgfs says about its mount.
        return own if number else {**dict(own), **dict(present(self._xattrs))}.items()

    def parent(self, number: int) -> int:
        """Return the parent directory of a directory; that of the root is the root."""
        return self._exchanged(self._tree.parent(number)) if number else 0

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the number of the entry *name*, None if there is no such entry."""
        return self._tree.find(self._exchanged(directory), name)

    def size(self, directory: int) -> int:
        """Return the approximate number of entries."""
        return self._tree.size(self._exchanged(directory))

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return name and number of the listed entries."""
        return self._tree.listing(self._exchanged(directory))

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, number and mode of all entries, sorted by name."""
        return self._tree.entries(self._exchanged(directory))
