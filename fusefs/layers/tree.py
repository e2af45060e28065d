"""A layer's index as a tree: nodes made per request from its records."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from fusefs.content.file import Sparse
from fusefs.content.protocol import Content
from fusefs.layers.index import LayerIndex
from fusefs.layers.record import LOWER_LINK, MAX_NAME, SPARSE, Entry
from fusefs.tree.listing import LARGE, LongListing
from fusefs.tree.node import (
    BLOCK,
    Attributes,
    Directory,
    Node,
    RegularFile,
    Special,
    Stat,
    Symlink,
    Xattrs,
    present,
    stat_of,
)

_LISTINGS = 16
"""Listings that are kept: a directory is listed in many pieces."""


class LayerFiles:
    """The nodes that a layer's records stand for."""

    def __init__(self, index: LayerIndex, tar: Content) -> None:
        """Read files from the plain *tar* that was indexed."""
        self.index = index
        self._tar = tar

    def node(self, entry: Entry) -> Node:
        """Return the node of a record."""
        attributes = attributes_of(entry)
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFREG:
            return RegularFile(attributes, self._content(entry))
        if kind == stat.S_IFDIR:
            return Directory(attributes)
        if kind == stat.S_IFLNK:
            return Symlink(attributes, self.index.text(entry))
        return Special(attributes, kind, os.makedev(entry.major, entry.minor))

    def _content(self, entry: Entry) -> Content:
        if not entry.flags & SPARSE:
            return self._tar.slice(entry.offset, entry.size)

        def runs() -> list[tuple[int, Content]]:
            return [(offset, self._tar.slice(at, size)) for offset, at, size in self.index.runs(entry)]

        return Sparse(entry.size, entry.blocks * BLOCK, runs)


def attributes_of(entry: Entry) -> Attributes:
    """Return the attributes in a record."""
    nlink = 1 if stat.S_ISDIR(entry.mode) else entry.nlink
    mtime_ns = entry.mtime * 10**9 + entry.mtime_ns
    return Attributes(entry.mode & 0o7777, entry.uid, entry.gid, mtime_ns, nlink)


def stat_of_entry(entry: Entry) -> Stat:
    """Return what stat(2) says of the node of a record."""
    mode = entry.mode
    mtime_ns = entry.mtime * 10**9 + entry.mtime_ns
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFREG:
        size = entry.size
        blocks = entry.blocks if entry.flags & SPARSE else -(-size // BLOCK)
        return Stat(mode, entry.nlink, entry.uid, entry.gid, mtime_ns, size, blocks)
    if kind == stat.S_IFDIR:
        return Stat(mode, 1, entry.uid, entry.gid, mtime_ns)
    if kind == stat.S_IFLNK:
        return Stat(mode, entry.nlink, entry.uid, entry.gid, mtime_ns, entry.text_length)
    rdev = os.makedev(entry.major, entry.minor)
    return Stat(mode, entry.nlink, entry.uid, entry.gid, mtime_ns, rdev=rdev)


def relative(target: bytes, depth: int) -> bytes:
    """Return the *target* of a symbolic link *depth* directories below a root so that it stays below that root.

    It climbs at its beginning alone, and not above the root: behind a name, which may be another link's, ``..``
    could lead anywhere, so it takes that name away.  What is safe as it is stays so.
    """
    absolute = target.startswith(b"/")
    climbed = depth if absolute else 0
    names: list[bytes] = []
    safe = not absolute
    parts = target.split(b"/")
    for part in parts:
        if part == b"..":
            safe = safe and not names and climbed < depth
            if names:
                names.pop()
            elif climbed < depth:
                climbed += 1
        elif part not in (b"", b"."):
            names.append(part)
    if safe:
        return target
    if names and parts[-1] in (b"", b".", b".."):  # only a directory will do
        names.append(b"")
    return b"../" * climbed + b"/".join(names) or b"."


def inside(link: Symlink, depth: int) -> Symlink:
    """Return a *link* that stays below the root *depth* directories above; each name of it is a link of its own."""
    return Symlink(link.attributes._replace(nlink=1), relative(link.target, depth))


class LayerTree:
    """The files of one layer, whiteout files as they are.  A number is that of a record."""

    has_lazy = False

    def __init__(self, files: LayerFiles, *, transform_symlinks: bool, xattrs: Xattrs = ()) -> None:
        """Show *files*; the root has *xattrs* besides its own."""
        self._files = files
        self._index = files.index
        self._transform = transform_symlinks
        self._xattrs = xattrs
        self._short_listing = lru_cache(_LISTINGS)(self._list)

    def node(self, number: int) -> Node:
        """Return a node."""
        entry = self._index.entry(number)
        node = self._files.node(entry)
        if self._transform and isinstance(node, Symlink):
            return inside(node, self._depth(entry))
        return node

    def stat(self, number: int) -> Stat:
        """Return what stat(2) says of a node."""
        entry = self._index.entry(number)
        if self._transform and stat.S_ISLNK(entry.mode):
            return stat_of(self.node(number))
        return stat_of_entry(entry)

    def _depth(self, entry: Entry) -> int:
        depth = 0
        while entry.parent:
            entry = self._index.entry(entry.parent)
            depth += 1
        return depth

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        own = self._index.xattrs(self._index.entry(number))
        # Ours win: what they say of the layer must not be what the layer says of itself.
        return own if number else {**dict(own), **dict(present(self._xattrs))}.items()

    def parent(self, number: int) -> int:
        """Return the directory that a node is in."""
        return self._index.entry(number).parent

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the entry called *name*; a link to a lower layer leads to nothing here."""
        record = self._index.find(directory, name)
        return None if record is None else self._shown(record)

    def size(self, directory: int) -> int:
        """Return how many entries there are."""
        return self._index.entry(directory).entries

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return the entries to list, in the order of their names."""
        if self.size(directory) < LARGE:
            return self._short_listing(directory)
        return LongListing(self._entries(directory), self._index.name)

    def _list(self, directory: int) -> Sequence[tuple[bytes, int]]:
        return [(name, number) for name, _, number in self._entries(directory)]

    def _entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, record and number of the entries."""
        for name, record, inode, mode, flags in self._index.listed(directory):
            if _is_shown(len(name), flags):
                yield name, record, self._number(record, inode, mode)

    def _shown(self, record: int) -> int | None:
        entry = self._index.entry(record)
        shown = _is_shown(entry.name_length, entry.flags)
        return self._number(record, entry.inode, entry.mode) if shown else None

    def _number(self, record: int, inode: int, mode: int) -> int:
        # Where a link leads depends on how deep it is, so its names are no longer one file.
        return record if self._transform and stat.S_ISLNK(mode) else inode


def _is_shown(name_length: int, flags: int) -> bool:
    """Return whether a layer has the file itself, under a name that a file can have."""
    return not flags & LOWER_LINK and name_length <= MAX_NAME
