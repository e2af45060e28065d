"""The tree of a layer index: nodes made per request from its records."""

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from fusefs.content.file import Sparse
from fusefs.content.protocol import Content
from fusefs.layers.index import LayerIndex
from fusefs.layers.record import LOWER_LINK, MAX_NAME, SPARSE, Record
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
"""Listings held in memory: a directory is listed in many pieces."""


class LayerFiles:
    """A layer's records as nodes, with the tar that has their bytes."""

    def __init__(self, index: LayerIndex, tar: Content) -> None:
        """Read files from *tar*, the plain tar that was indexed."""
        self.index = index
        self.tar = tar

    def node(self, record: Record) -> Node:
        """Return the node of a record."""
        attributes = attributes_of(record)
        kind = stat.S_IFMT(record.mode)
        if kind == stat.S_IFREG:
            return RegularFile(attributes, self._content(record))
        if kind == stat.S_IFDIR:
            return Directory(attributes)
        if kind == stat.S_IFLNK:
            return Symlink(attributes, self.index.text(record))
        return Special(attributes, kind, os.makedev(record.major, record.minor))

    def _content(self, record: Record) -> Content:
        if not record.flags & SPARSE:
            return self.tar.slice(record.offset, record.size)

        def runs() -> list[tuple[int, Content]]:
            return [(offset, self.tar.slice(at, size)) for offset, at, size in self.index.runs(record)]

        return Sparse(record.size, record.blocks * BLOCK, runs)


def attributes_of(record: Record) -> Attributes:
    """Return the attributes in a record."""
    nlink = 1 if stat.S_ISDIR(record.mode) else record.nlink
    mtime_ns = record.mtime * 10**9 + record.mtime_ns
    return Attributes(record.mode & 0o7777, record.uid, record.gid, mtime_ns, nlink)


def stat_of_record(record: Record) -> Stat:
    """Return the stat result of a record's node."""
    mode = record.mode
    mtime_ns = record.mtime * 10**9 + record.mtime_ns
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFREG:
        size = record.size
        blocks = record.blocks if record.flags & SPARSE else -(-size // BLOCK)
        return Stat(mode, record.nlink, record.uid, record.gid, mtime_ns, size, blocks)
    if kind == stat.S_IFDIR:
        return Stat(mode, 1, record.uid, record.gid, mtime_ns)
    if kind == stat.S_IFLNK:
        return Stat(mode, record.nlink, record.uid, record.gid, mtime_ns, record.text_length)
    rdev = os.makedev(record.major, record.minor)
    return Stat(mode, record.nlink, record.uid, record.gid, mtime_ns, rdev=rdev)


def relative(target: bytes, depth: int) -> bytes:
    """Return the *target* of a symbolic link *depth* directories below a root, changed to stay below that root.

    All ``..`` come first, at most *depth* of them: after a name, which may be another link's, ``..`` could lead
    anywhere, so it removes that name instead.  A safe target is returned as it is.
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
    if names and parts[-1] in (b"", b".", b".."):  # the target must be a directory
        names.append(b"")
    return b"../" * climbed + b"/".join(names) or b"."


def inside(link: Symlink, depth: int) -> Symlink:
    """Return *link*, *depth* directories below the root, changed to stay below it; each name is a link of its own."""
    return Symlink(link.attributes._replace(nlink=1), relative(link.target, depth))


class LayerTree:
    """The files of one layer, whiteout files included.  A node's number is its record's number."""

    has_lazy = False
    shared_names: Collection[int] = ()
    """Nodes whose number of links counts names in other layers: none."""

    def __init__(self, files: LayerFiles, *, transform_symlinks: bool, xattrs: Xattrs = ()) -> None:
        """Show *files*; the root has *xattrs* in addition to its own."""
        self._files = files
        self._index = files.index
        self.transform_symlinks = transform_symlinks
        self._xattrs = xattrs
        self._short_listing = lru_cache(_LISTINGS)(self._list)

    @property
    def files(self) -> Sequence[LayerFiles]:
        """The files that the tree shows: those of one layer."""
        return (self._files,)

    def settling(self, directory: int, name: bytes | None) -> None:
        """Return None: all nodes are known."""

    def node(self, number: int) -> Node:
        """Return a node."""
        record = self._index.record(number)
        node = self._files.node(record)
        if self.transform_symlinks and isinstance(node, Symlink):
            return inside(node, self._depth(record))
        return node

    def stat(self, number: int) -> Stat:
        """Return the stat result of a node."""
        record = self._index.record(number)
        if self.transform_symlinks and stat.S_ISLNK(record.mode):
            return stat_of(self.node(number))
        return stat_of_record(record)

    def _depth(self, record: Record) -> int:
        depth = 0
        while record.parent:
            record = self._index.record(record.parent)
            depth += 1
        return depth

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        own = self._index.xattrs(self._index.record(number))
        # Ours win: a layer must not forge what imgfs says about it.
        return own if number else {**dict(own), **dict(present(self._xattrs))}.items()

    def parent(self, number: int) -> int:
        """Return the parent directory of a node."""
        return self._index.record(number).parent

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the node called *name*, None if there is none to show; hard links into lower layers are not shown."""
        number = self._index.find(directory, name)
        return None if number is None else self._shown(number)

    def size(self, directory: int) -> int:
        """Return the number of names in a directory."""
        return self._index.record(directory).children

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return the names to list with their nodes, in the order of the names."""
        if self.size(directory) < LARGE:
            return self._short_listing(directory)
        return LongListing(self._named(directory), self._index.name)

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Return name, node and mode of all names to show, in their order."""
        if not self.transform_symlinks:
            return self._index.entries(directory)
        return (
            (name, self._node_number(number, inode, mode), mode)
            for name, number, inode, mode, flags in self._index.listed(directory)
            if _is_shown(len(name), flags)
        )

    def _list(self, directory: int) -> Sequence[tuple[bytes, int]]:
        return [(name, number) for name, _, number in self._named(directory)]

    def _named(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, record and node of each name."""
        for name, number, inode, mode, flags in self._index.listed(directory):
            if _is_shown(len(name), flags):
                yield name, number, self._node_number(number, inode, mode)

    def _shown(self, number: int) -> int | None:
        record = self._index.record(number)
        shown = _is_shown(record.name_length, record.flags)
        return self._node_number(number, record.inode, record.mode) if shown else None

    def _node_number(self, number: int, inode: int, mode: int) -> int:
        # A changed target depends on the depth of the link, so its names are no longer one file.
        return number if self.transform_symlinks and stat.S_ISLNK(mode) else inode


def _is_shown(name_length: int, flags: int) -> bool:
    """Return whether the layer itself has the file, under a name that the kernel takes."""
    return not flags & LOWER_LINK and name_length <= MAX_NAME
