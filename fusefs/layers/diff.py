"""Compares two root file systems: paths added, removed and changed."""

import stat
from collections.abc import Hashable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from fusefs.content.protocol import Content
from fusefs.layers.rootfs import RootfsTree
from fusefs.tree.node import Node, RegularFile, Stat, Symlink, Tree
from fusefs.tree.walk import PathNode

_CHUNK = 1 << 20


class Change(Enum):
    """How a path differs.  The value is the letter that docker diff prints."""

    ADDED = "A"
    CHANGED = "C"
    REMOVED = "D"


class Difference(NamedTuple):
    """One path that differs."""

    path: tuple[bytes, ...]
    change: Change
    before: Stat | None
    after: Stat | None
    what: tuple[str, ...] = ()
    """Changed properties: ``type``, ``content``, ``mode``, ``owner``, ``target``, ``device``, ``xattrs``, ``time``."""
    old: int | None = None
    """Its node in each tree."""
    new: int | None = None


class Side(NamedTuple):
    """One of the two root file systems."""

    tree: RootfsTree
    layers: Sequence[Hashable]
    """A key for each layer: layers with equal keys have the same bytes, and the same records but for `created_ns`."""
    created_ns: int
    """The time of implicit directories, nanoseconds since 1970."""
    top: PathNode | None
    """The file to compare, or the directory to compare with everything below it; None on an old side without it."""

    def identity(self, number: int, *, times: bool) -> Hashable:
        """Return a key; nodes with equal keys are equal, with everything below them.  None: no key, so compare them.

        *times*: equal in their times, too.
        """
        origins = self.tree.origins(number)
        if origins is None:
            return None
        # Only directories can be implicit.
        created_ns = self.created_ns if times and stat.S_ISDIR(self.tree.stat(number).mode) else None
        return created_ns, *((self.layers[layer], record) for layer, record in origins)


def compare(old: Side | None, new: Side, *, times: bool = False) -> Iterator[Difference]:
    """Yield the differences, a directory before the paths below it.  A path is that in *new*, also for a removed file.

    Nodes from the same layers are not compared, and only files of equal size are read.  Times are compared
    only if *times* is set, since they differ after every build of an image.  Without an *old* side, everything but the
    root directory is added.
    """
    assert new.top is not None
    way = [b"", *new.top.parts]
    """The names from the root to the path compared last."""
    waiting: list[tuple[int, bytes, int | None, int | None]]
    waiting = [(len(way) - 1, way[-1], old and old.top and old.top.number, new.top.number)]
    known: _Known = {}
    while waiting:
        depth, name, before, after = waiting.pop()
        way[depth:] = [name]
        if old is not None and before is not None and after is not None:
            identity = old.identity(before, times=times)
            if identity is not None and identity == new.identity(after, times=times):
                continue
        was = None if old is None or before is None else _Node.of(old.tree, before)
        now = None if after is None else _Node.of(new.tree, after)
        difference = _difference(way, was, now, known, times=times)
        if difference is not None and (old is not None or len(way) > 1):
            yield difference._replace(old=before, new=after)
        olds, news = _children(was), _children(now)
        names = sorted({*olds, *news}, reverse=True)
        waiting.extend((depth + 1, name, olds.get(name), news.get(name)) for name in names)


def changed_properties(before: tuple[Tree, int], after: tuple[Tree, int], *, times: bool = False) -> tuple[str, ...]:
    """Return the properties, as in `Difference`, that differ between two nodes, each a tree and its number."""
    return tuple(_changed_properties(_Node.of(*before), _Node.of(*after), times=times))


class _Node(NamedTuple):
    tree: Tree
    number: int
    stat: Stat

    @classmethod
    def of(cls, tree: Tree, number: int) -> "_Node":
        return cls(tree, number, tree.stat(number))


def _children(node: _Node | None) -> dict[bytes, int]:
    return dict(node.tree.listing(node.number)) if node is not None and stat.S_ISDIR(node.stat.mode) else {}


_Known = dict[tuple[int, int], tuple[str, ...]]
"""Changed properties of pairs of files that both have several names: they are read once."""


def _difference(
    way: Sequence[bytes], was: _Node | None, now: _Node | None, known: _Known, *, times: bool
) -> Difference | None:
    if was is None:
        return Difference(tuple(way[1:]), Change.ADDED, None, now.stat if now else None)
    if now is None:
        return Difference(tuple(way[1:]), Change.REMOVED, was.stat, None)
    pair = was.number, now.number
    what = known.get(pair)
    if what is None:
        what = tuple(_changed_properties(was, now, times=times))
        if min(was.stat.nlink, now.stat.nlink) > 1:
            known[pair] = what
    return Difference(tuple(way[1:]), Change.CHANGED, was.stat, now.stat, what) if what else None


def _changed_properties(old: _Node, new: _Node, *, times: bool) -> Iterator[str]:
    """Yield the properties of a node that changed."""
    was, now = old.stat, new.stat
    if stat.S_IFMT(was.mode) != stat.S_IFMT(now.mode):
        yield "type"
        return
    yield from _data(old.tree.node(old.number), new.tree.node(new.number))
    differ = {
        "device": was.rdev != now.rdev,
        "mode": was.mode != now.mode,
        "owner": (was.uid, was.gid) != (now.uid, now.gid),
        "xattrs": dict(old.tree.xattrs(old.number)) != dict(new.tree.xattrs(new.number)),
        "time": times and was.mtime_ns != now.mtime_ns,
    }
    yield from (name for name, differs in differ.items() if differs)


def _data(old: Node, new: Node) -> Iterator[str]:
    match old, new:
        case RegularFile(), RegularFile() if not same_bytes(old.content, new.content):
            yield "content"
        case Symlink(), Symlink() if old.target != new.target:
            yield "target"


def same_bytes(one: Content, other: Content) -> bool:
    """Return whether two files have the same bytes; those of another size are not read."""
    return one.size == other.size and all(
        one.read_at(offset, _CHUNK) == other.read_at(offset, _CHUNK) for offset in range(0, one.size, _CHUNK)
    )
