"""Nodes (files, directories, links) and the protocol of trees, independent of FUSE."""

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from fusefs.content.protocol import Content
from fusefs.tree.once import Once

BLOCK = 512
"""Bytes per block in st_blocks."""

Xattrs = tuple[tuple[bytes, bytes | Callable[[], bytes]], ...]
"""Extended attributes of nodes that imgfs generates.  A value may be a function that returns the current value."""


_NOTHING: "Mapping[bytes, Node]" = MappingProxyType({})


class Attributes(NamedTuple):
    """The attributes of a node besides its type and size."""

    permissions: int
    """The low 12 bits of st_mode."""
    uid: int
    gid: int
    mtime_ns: int
    """Nanoseconds since 1970; also shown as atime and ctime."""
    nlink: int = 1


class RegularFile(NamedTuple):
    """A file with bytes."""

    attributes: Attributes
    content: Content
    xattrs: Xattrs = ()


class Symlink(NamedTuple):
    """A symbolic link."""

    attributes: Attributes
    target: bytes


class Special(NamedTuple):
    """A device, a fifo or a socket."""

    attributes: Attributes
    type: int
    """The type bits of st_mode."""
    rdev: int


class Directory(NamedTuple):
    """A directory.  `entries` is only for generated directories; a tree lists those of layers."""

    attributes: Attributes
    entries: "Mapping[bytes, Node]" = _NOTHING
    unlisted: "Mapping[bytes, Node]" = _NOTHING
    """Directory entries that can be looked up but are not listed."""
    xattrs: Xattrs = ()


class Stat(NamedTuple):
    """The result of stat(2) for a node.  A tuple, because each entry of a listing needs one."""

    mode: int
    """Type and permissions."""
    nlink: int
    """Always 1 ("unknown") for a directory, as on btrfs: find(1) then does not count subdirectories."""
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    blocks: int = 0
    """In units of 512 bytes."""
    rdev: int = 0


class Tree(Protocol):
    """Nodes by number, created on access; the root is 0.

    Safe under concurrency.  All methods are fast except the listing of a `LARGE` directory.
    """

    @property
    def has_lazy(self) -> bool:
        """Whether the tree may contain lazy directories."""

    def settling(self, directory: int, name: bytes | None) -> Callable[[], None] | None:
        """Return work after which `find` of *name* in *directory* may be right; with None, its listings.

        It may take long, and fail.  None if they are right.
        """

    def node(self, number: int) -> "Node":
        """Return a node."""

    def stat(self, number: int) -> Stat:
        """Return the same as `stat_of` for the node, without creating the node."""

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""

    def parent(self, number: int) -> int:
        """Return the parent of a directory."""

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the number of the entry *name*, None if there is no such entry."""

    def size(self, directory: int) -> int:
        """Return the approximate number of entries, which tells how long a listing takes."""

    def listing(self, directory: int) -> "Sequence[tuple[bytes, int]]":
        """Return name and number of the listed entries, always in the same order."""

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, number and st_mode of all entries, listed or not, sorted by name.

        Of the mode only the type is right for a directory.
        """


class LazyDirectory:
    """A directory whose tree is made on first access."""

    def __init__(
        self, attributes: Attributes, make: Callable[[], Tree], *, settled: bool = True, xattrs: Xattrs = ()
    ) -> None:
        """Make the tree with *make* on first access, as `Once` does.

        *settled*: the attributes stay when the tree is made; otherwise those of the tree's root replace them.
        *xattrs* are valid until then; afterwards the tree's root has its own.
        """
        self.attributes = attributes
        self.xattrs = xattrs
        self.settled = settled
        self.fill = Once(make).get


Node = Directory | LazyDirectory | RegularFile | Symlink | Special


def stat_of(node: Node) -> Stat:
    """Return the result of stat(2) for *node*."""
    permissions, uid, gid, mtime_ns, nlink = node.attributes
    match node:
        case Directory() | LazyDirectory():
            return Stat(stat.S_IFDIR | permissions, nlink, uid, gid, mtime_ns)
        case RegularFile():
            content = node.content
            mode = stat.S_IFREG | permissions
            return Stat(mode, nlink, uid, gid, mtime_ns, content.size, -(-content.stored // BLOCK))
        case Symlink():
            return Stat(stat.S_IFLNK | permissions, nlink, uid, gid, mtime_ns, len(node.target))
        case Special():
            return Stat(node.type | permissions, nlink, uid, gid, mtime_ns, rdev=node.rdev)


def present(xattrs: Xattrs) -> Iterator[tuple[bytes, bytes]]:
    """Yield extended attributes with their current values."""
    for name, value in xattrs:
        yield name, value if isinstance(value, bytes) else value()


class KnownTree:
    """An immutable tree of nodes that are known from the start, numbered breadth first."""

    def __init__(self, root: "Directory | LazyDirectory") -> None:
        """Assign numbers to *root* and all nodes below it, but those of lazy directories."""
        self._nodes: list[Node] = [root]
        self.has_lazy = False
        self._parents = [0]
        self._entries: list[dict[bytes, int]] = []
        self._listings: list[list[tuple[bytes, int]]] = []
        for number, node in enumerate(self._nodes):  # the loop appends to the list
            self.has_lazy = self.has_lazy or isinstance(node, LazyDirectory)
            entries: dict[bytes, int] = {}
            listed = 0
            if isinstance(node, Directory):
                for name, child in (*node.entries.items(), *node.unlisted.items()):
                    entries[name] = len(self._nodes)
                    self._nodes.append(child)
                    self._parents.append(number)
                listed = len(node.entries)
            self._entries.append(entries)
            self._listings.append(list(entries.items())[:listed])

    def __len__(self) -> int:
        return len(self._nodes)

    def settling(self, directory: int, name: bytes | None) -> None:
        """Return None: all nodes are known."""

    def node(self, number: int) -> Node:
        """Return a node."""
        return self._nodes[number]

    def stat(self, number: int) -> Stat:
        """Return the result of stat(2) for a node."""
        return stat_of(self._nodes[number])

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        node = self._nodes[number]
        return () if isinstance(node, Symlink | Special) else present(node.xattrs)

    def parent(self, number: int) -> int:
        """Return the parent of a node."""
        return self._parents[number]

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the number of the entry *name*, None if there is no such entry."""
        return self._entries[directory].get(name)

    def size(self, directory: int) -> int:
        """Return the number of entries."""
        return len(self._entries[directory])

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return name and number of the listed entries."""
        return self._listings[directory]

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, number and mode of all entries, sorted by name."""
        for name, number in sorted(self._entries[directory].items()):
            yield name, number, self.stat(number).mode
