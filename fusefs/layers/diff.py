"""Two root file systems side by side: what was added, removed and changed."""

import stat
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from fusefs.content.protocol import Content
from fusefs.layers.rootfs import RootfsTree
from fusefs.tree.node import Node, RegularFile, Stat, Symlink
from fusefs.tree.walk import Found

_CHUNK = 1 << 20


class Change(Enum):
    """How a path differs.  The value is docker diff's letter for it."""

    ADDED = "A"
    CHANGED = "C"
    REMOVED = "D"


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not the same."""

    path: tuple[bytes, ...]
    change: Change
    before: Stat | None
    after: Stat | None
    what: tuple[str, ...] = ()
    """Of a changed one: ``type``, ``content``, ``mode``, ``owner``, ``target``, ``device``, ``xattrs``, ``time``."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    tree: RootfsTree
    layers: Sequence[Hashable]
    """What identifies each layer: two layers that are equal here have the same records and bytes."""
    top: Found
    """What is compared: a directory with all below it, or a file."""

    def identity(self, number: int) -> Hashable:
        """Return what is equal only for nodes that are the same, all below them included; None if that is unknown."""
        origins = self.tree.origins(number)
        return None if origins is None else tuple((self.layers[layer], record) for layer, record in origins)


def compare(old: Side, new: Side, *, times: bool = False) -> Iterator[Difference]:
    """Yield what differs, directories before what is in them; paths are those in *new*.

    What both have from the same layers is not looked at, and only files of one size are read.  Times
    count only if *times* says so: they differ whenever an image is built anew.
    """
    waiting: list[tuple[tuple[bytes, ...], int | None, int | None]]
    waiting = [(new.top.parts, old.top.number, new.top.number)]
    while waiting:
        path, before, after = waiting.pop()
        if before is not None and after is not None:
            identity = old.identity(before)
            if identity is not None and identity == new.identity(after):
                continue
        was = None if before is None else _Node.of(old.tree, before)
        now = None if after is None else _Node.of(new.tree, after)
        difference = _difference(path, was, now, times=times)
        if difference is not None:
            yield difference
        olds, news = _entries(was), _entries(now)
        names = sorted({*olds, *news}, reverse=True)
        waiting.extend(((*path, name), olds.get(name), news.get(name)) for name in names)


class _Node(NamedTuple):
    tree: RootfsTree
    number: int
    said: Stat

    @classmethod
    def of(cls, tree: RootfsTree, number: int) -> "_Node":
        return cls(tree, number, tree.stat(number))


def _entries(node: _Node | None) -> dict[bytes, int]:
    return dict(node.tree.listing(node.number)) if node is not None and stat.S_ISDIR(node.said.mode) else {}


def _difference(path: tuple[bytes, ...], was: _Node | None, now: _Node | None, *, times: bool) -> Difference | None:
    if was is None:
        return Difference(path, Change.ADDED, None, now.said if now else None)
    if now is None:
        return Difference(path, Change.REMOVED, was.said, None)
    what = tuple(_what(was, now, times=times))
    return Difference(path, Change.CHANGED, was.said, now.said, what) if what else None


def _what(old: _Node, new: _Node, *, times: bool) -> Iterator[str]:
    """Yield what of a node has changed."""
    was, now = old.said, new.said
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
    yield from (name for name, does in differ.items() if does)


def _data(old: Node, new: Node) -> Iterator[str]:
    match old, new:
        case RegularFile(), RegularFile() if not _same_bytes(old.content, new.content):
            yield "content"
        case Symlink(), Symlink() if old.target != new.target:
            yield "target"


def _same_bytes(one: Content, other: Content) -> bool:
    return one.size == other.size and all(
        one.read_at(offset, _CHUNK) == other.read_at(offset, _CHUNK) for offset in range(0, one.size, _CHUNK)
    )
