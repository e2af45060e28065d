"""The directory of a view that a mount shows at its mountpoint: the root, or one below it."""

import errno
import os
from typing import NamedTuple

from fusefs.errors import Unavailable
from fusefs.text import printable
from fusefs.tree.node import Attributes, Directory, KnownTree, LazyDirectory, Node, Tree, Xattrs
from fusefs.tree.subtree import Subtree
from fusefs.tree.walk import is_directory, resolve


class Top(NamedTuple):
    """A directory of a view."""

    view: Directory
    lazy: LazyDirectory | None = None
    """The lazy directory of the view that it is, or lies in; None: the view itself lists it."""
    number: int = 0
    """Its number in `tree`."""
    xattrs: Xattrs = ()
    """The extended attributes of the mountpoint, in addition to its own."""
    path: bytes = b""
    """The path in the view that led to it."""

    @property
    def is_view(self) -> bool:
        """Whether it is the root of the view."""
        return self.lazy is None and not self.number

    @property
    def tree(self) -> Tree:
        """The tree of `lazy`, which is made if it is not yet; without one, that of the view."""
        return KnownTree(self.view) if self.lazy is None else self.lazy.fill()

    def root(self) -> Directory | LazyDirectory:
        """Return the root of the mount.  Makes no tree."""
        if self.lazy is None:
            node = KnownTree(self.view).node(self.number)
            assert isinstance(node, Directory)
            return node if self.is_view else node._replace(xattrs=(*node.xattrs, *self.xattrs))
        lazy, number, xattrs = self.lazy, self.number, self.xattrs

        def make() -> Subtree:
            return Subtree(lazy.fill(), number, xattrs)

        if not number:
            return LazyDirectory(lazy.attributes, make, settled=lazy.settled, xattrs=(*lazy.xattrs, *xattrs))
        tree, ours = lazy.fill(), dict(xattrs)  # the tree is made already
        stat = tree.stat(number)
        attributes = Attributes(stat.mode & 0o7777, stat.uid, stat.gid, stat.mtime_ns, stat.nlink)
        own = (pair for pair in tree.xattrs(number) if pair[0] not in ours)
        return LazyDirectory(attributes, make, xattrs=(*own, *xattrs))


def find_top(view: Directory, path: bytes, name: str) -> Top:
    """Return the directory at *path* of the *view* of the image *name*; makes the tree that it lies in.

    Symbolic links of that tree are followed as in a container: its root is the root directory, and nothing leads out
    of it.  Raises Unavailable if the path leads to no directory.
    """
    tree, number, lazy = KnownTree(view), 0, None
    names = [part for part in path.split(b"/") if part not in (b"", b".")]
    while names and lazy is None:
        found = tree.find(number, names.pop(0))
        if found is None:
            raise _missing(path, name, os.strerror(errno.ENOENT))
        number = found
        lazy = _lazy(tree.node(number))
    if lazy is None:
        if not isinstance(tree.node(number), Directory):
            raise _missing(path, name, os.strerror(errno.ENOTDIR))
        return Top(view, None, number, view.xattrs, path)
    if not names:
        return Top(view, lazy, 0, view.xattrs, path)
    below = lazy.fill()
    while (work := below.settling(0, None)) is not None:
        work()
    try:
        number = resolve(below, b"/".join(names)).number
    except OSError as error:  # it does not exist, or its links are a loop
        raise _missing(path, name, str(error.strerror)) from None
    if not is_directory(below, number):
        raise _missing(path, name, os.strerror(errno.ENOTDIR))
    return Top(view, lazy, number, view.xattrs, path)


def _lazy(node: Node) -> LazyDirectory | None:
    return node if isinstance(node, LazyDirectory) else None


def _missing(path: bytes, name: str, why: str) -> Unavailable:
    return Unavailable(f"{printable(name)} has no directory {printable(os.fsdecode(path))}: {why}")
