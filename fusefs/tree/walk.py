"""Paths in a tree as the kernel walks them (path_resolution(7)), with the tree's root for every root."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from fusefs.tree.node import Symlink, Tree

_MAX_LINKS = 40
"""Symbolic links that are followed for one path, as many as Linux follows."""


class Found(NamedTuple):
    """A node and where it is."""

    number: int
    """In its tree."""
    parts: tuple[bytes, ...]
    """The names on the way from the root, without links, ``.`` and ``..``."""

    @property
    def path(self) -> bytes:
        """The path from the root on: ``/etc/motd``."""
        return b"/" + b"/".join(self.parts)


ROOT = Found(0, ())


def resolve(tree: Tree, path: bytes, start: Found = ROOT, *, follow: bool = True) -> Found:
    """Return what is at *path*, from the directory *start* on; a link at its end is followed if *follow* says so.

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
        if not is_directory(tree, way[-1].number):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(path))
        if part in (b"", b"."):
            continue
        if part == b"..":
            del way[max(1, len(way) - 1) :]
            continue
        number = tree.find(way[-1].number, part)
        if number is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        if stat.S_ISLNK(tree.stat(number).mode) and (parts or must_follow):
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
            node = tree.node(number)
            assert isinstance(node, Symlink)
            if node.target.startswith(b"/"):
                del way[1:]
            parts.extendleft(reversed(node.target.split(b"/")))
            continue
        way.append(Found(number, (*way[-1].parts, part)))
    return way[-1]


def _way(tree: Tree, start: Found) -> list[Found]:
    """Return the directories on the way to *start*, and that itself."""
    way = [ROOT]
    for count, part in enumerate(start.parts, 1):
        number = tree.find(way[-1].number, part)
        assert number is not None
        way.append(Found(number, start.parts[:count]))
    return way


def is_directory(tree: Tree, number: int) -> bool:
    """Return whether a node is a directory."""
    return stat.S_ISDIR(tree.stat(number).mode)


def children(tree: Tree, directory: Found) -> list[Found]:
    """Return the entries of a *directory* in the order of their names."""
    entries = sorted(tree.listing(directory.number))
    return [Found(number, (*directory.parts, name)) for name, number in entries]


def walk(tree: Tree, directory: Found, *, hidden: bool = True) -> Iterator[tuple[Found, list[Found]]]:
    """Yield *directory* and each one below it with its entries, a directory before those in it; follow no link.

    Without *hidden* what is below it is not entered where its name begins with a dot.
    """
    waiting = [directory]
    while waiting:
        here = waiting.pop()
        entries = children(tree, here)
        yield here, entries
        waiting.extend(
            entry
            for entry in reversed(entries)
            if (hidden or not entry.parts[-1].startswith(b".")) and is_directory(tree, entry.number)
        )
