"""Resolves paths in a tree as the kernel does (path_resolution(7)); the tree's root is the root directory."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from fusefs.errors import Unavailable
from fusefs.text import printable
from fusefs.tree.node import Symlink, Tree

MAX_LINKS = 40
"""Symbolic links that one path may follow, as on Linux."""


class PathNode(NamedTuple):
    """A node and its path from the root, without symbolic links, ``.`` and ``..``."""

    number: int
    """The number of the node in its tree."""
    name: bytes
    """Its name in the directory; empty for the root."""
    above: bytes
    """The path of the directory, empty for the root: an object that the nodes of one directory share."""

    @property
    def path(self) -> bytes:
        """The absolute path: ``/etc/motd``."""
        return b"%b/%b" % (self.above, self.name)

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The names from the root to the node."""
        return tuple(self.path.split(b"/")[1:]) if self.name else ()


ROOT = PathNode(0, b"", b"")


def resolve(tree: Tree, path: bytes, start: PathNode = ROOT, *, follow: bool = True) -> PathNode:
    """Return the node at *path*, relative to the directory *start*; *follow* a symbolic link in the last part.

    Raises FileNotFoundError, NotADirectoryError, or OSError with ELOOP for more than 40 links.
    """
    way = _way(tree, start)
    if path.startswith(b"/"):
        del way[1:]
    parts = deque(path.split(b"/"))
    must_follow = follow or path.endswith(b"/")
    links = 0
    while parts:
        part = parts.popleft()
        here, _ = way[-1]
        if not is_directory(tree, here):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(path))
        if part in (b"", b"."):
            continue
        if part == b"..":
            del way[max(1, len(way) - 1) :]
            continue
        number = tree.find(here, part)
        if number is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        if stat.S_ISLNK(tree.stat(number).mode) and (parts or must_follow):
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
            node = tree.node(number)
            assert isinstance(node, Symlink)
            if node.target.startswith(b"/"):
                del way[1:]
            parts.extendleft(reversed(node.target.split(b"/")))
            continue
        way.append((number, part))
    number, name = way[-1]
    return PathNode(number, name, b"/".join(name for _, name in way[:-1]))


def found_at(tree: Tree, path: bytes, image: str, *, follow: bool) -> PathNode:
    """Return the file at *path* in the tree of *image*; raise Unavailable, with the reason, if it cannot be found."""
    try:
        return resolve(tree, path, follow=follow)
    except OSError as error:
        raise Unavailable(f"{printable(image)} has no {printable(path)}: {error.strerror}") from None


def _way(tree: Tree, start: PathNode) -> list[tuple[int, bytes]]:
    """Return number and name of the directories from the root to *start*, both included."""
    way = [(0, b"")]
    for part in start.parts:
        number = tree.find(way[-1][0], part)
        assert number is not None
        way.append((number, part))
    return way


def is_directory(tree: Tree, number: int) -> bool:
    """Return whether a node is a directory."""
    return stat.S_ISDIR(tree.stat(number).mode)


def children(tree: Tree, directory: PathNode) -> list[PathNode]:
    """Return the entries of a *directory*, sorted by name."""
    above = directory.path if directory.name else b""
    return [PathNode(number, name, above) for name, number in sorted(tree.listing(directory.number))]


def walk(tree: Tree, directory: PathNode, *, hidden: bool = True) -> Iterator[tuple[PathNode, list[PathNode]]]:
    """Yield *directory* and each directory below it, with its entries; parents first, symbolic links not followed.

    Without *hidden*, directories below *directory* whose name begins with a dot are not entered.
    """
    names = [b"", *directory.parts]
    """The names from the root to the directory entered last."""
    waiting = [(len(names) - 1, directory.number, names[-1])]
    while waiting:
        depth, number, name = waiting.pop()
        names[depth:] = [name]
        here = PathNode(number, name, b"/".join(names[:-1]))
        entries = children(tree, here)
        yield here, entries
        waiting.extend(
            (depth + 1, entry.number, entry.name)
            for entry in reversed(entries)
            if (hidden or not entry.name.startswith(b".")) and is_directory(tree, entry.number)
        )
