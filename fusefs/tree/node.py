"""Files and directories, without a word of FUSE."""

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fusefs.content.protocol import Content
from fusefs.tree.once import Once

BLOCK = 512
"""Bytes of a block in st_blocks."""

Xattrs = tuple[tuple[bytes, bytes | Callable[[], bytes]], ...]
"""Extended attributes of what imgfs itself shows.  A value may be a function: then it is what that returns now."""


class Attributes(NamedTuple):
    """What `stat` says of a node besides its type and size."""

    permissions: int
    """The low 12 bits of st_mode."""
    uid: int
    gid: int
    mtime_ns: int
    """Nanoseconds since 1970; atime and ctime are the same."""
    nlink: int = 1


@dataclass(frozen=True, slots=True)
class RegularFile:
    """A file with bytes."""

    attributes: Attributes
    content: Content
    xattrs: Xattrs = ()


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link."""

    attributes: Attributes
    target: bytes


@dataclass(frozen=True, slots=True)
class Special:
    """A device, a fifo or a socket."""

    attributes: Attributes
    type: int
    """The type bits of st_mode."""
    rdev: int


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory.  Entries are held here only where all are known from the start; others are a tree's."""

    attributes: Attributes
    entries: "Mapping[bytes, Node]" = field(default_factory=dict)
    unlisted: "Mapping[bytes, Node]" = field(default_factory=dict)
    """Entries that can be looked up and are not listed."""
    xattrs: Xattrs = ()


class Stat(NamedTuple):
    """What stat(2) says of a node.  A tuple, since one is made for every entry of a listing."""

    mode: int
    """Type and permissions."""
    nlink: int
    """Of a directory always 1, "unknown", as on btrfs: find(1) then counts no subdirectories."""
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    blocks: int = 0
    """Of 512 bytes."""
    rdev: int = 0


class Tree(Protocol):
    """Nodes by number, made when they are asked for; the root is 0.

    Safe under concurrency, and quick, but for the listing of a `LARGE` directory.
    """

    @property
    def has_lazy(self) -> bool:
        """Whether there may be lazy directories in it."""

    def node(self, number: int) -> "Node":
        """Return a node."""

    def stat(self, number: int) -> Stat:
        """Return what `stat_of` returns of the node, but without making one."""

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""

    def parent(self, number: int) -> int:
        """Return the directory that a directory is in."""

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the entry called *name*, None if it is not there."""

    def size(self, directory: int) -> int:
        """Return about how many entries there are: how long a listing takes."""

    def listing(self, directory: int) -> "Sequence[tuple[bytes, int]]":
        """Return the entries to list, always in the same order."""


class LazyDirectory:
    """A directory below which everything is made at the first look into it."""

    def __init__(
        self, attributes: Attributes, make: Callable[[], Tree], *, settled: bool = True, xattrs: Xattrs = ()
    ) -> None:
        """Make the tree with *make*, once.

        *settled*: the attributes are already those that the directory will have then.  *xattrs* are those
        before the first look; then they are those of the tree's root.
        """
        self.attributes = attributes
        self.xattrs = xattrs
        self.settled = settled
        self.fill = Once(make).get


Node = Directory | LazyDirectory | RegularFile | Symlink | Special


def stat_of(node: Node) -> Stat:
    """Return what stat(2) says of *node*."""
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
    """Yield extended attributes with the values that they have now."""
    for name, value in xattrs:
        yield name, value if isinstance(value, bytes) else value()


class KnownTree:
    """A tree that is known from the start.  Numbers go breadth first; it never changes."""

    def __init__(self, root: Directory) -> None:
        """Give numbers to all nodes below *root*."""
        self._nodes: list[Node] = [root]
        self.has_lazy = False
        self._parents = [0]
        self._entries: list[dict[bytes, int]] = []
        self._listings: list[list[tuple[bytes, int]]] = []
        for number, node in enumerate(self._nodes):  # grows while it is walked
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

    def node(self, number: int) -> Node:
        """Return a node."""
        return self._nodes[number]

    def stat(self, number: int) -> Stat:
        """Return what stat(2) says of a node."""
        return stat_of(self._nodes[number])

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        node = self._nodes[number]
        return () if isinstance(node, Symlink | Special) else present(node.xattrs)

    def parent(self, number: int) -> int:
        """Return the directory that a node is in."""
        return self._parents[number]

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the entry called *name*, None if it is not there."""
        return self._entries[directory].get(name)

    def size(self, directory: int) -> int:
        """Return how many entries there are."""
        return len(self._entries[directory])

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return the entries to list."""
        return self._listings[directory]
