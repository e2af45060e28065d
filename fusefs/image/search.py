"""Files of an image by name, size and type, and the layers that have or had them, as find(1) finds files."""

import fnmatch
import operator
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from fusefs.errors import Unavailable
from fusefs.image.opened import Opened
from fusefs.layers.fates import End, Fate, layer_files
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.text import printable
from fusefs.tree.node import Stat
from fusefs.tree.walk import PathNode, found_at, walk

TYPES = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
}
"""Letters of find(1)."""
_SIZE = re.compile(r"([+-]?)([0-9]{1,15})([bcwkMG]?)")
_UNITS = {"": 512, "b": 512, "c": 1, "w": 2, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
"""Bytes of each unit of find(1)."""


class Size(NamedTuple):
    """A size as find(1) tests it: in whole units, the last one begun."""

    sign: str
    """``+``: more, ``-``: less, empty: exactly."""
    units: int
    unit: int
    """In bytes."""


def size_of(text: str) -> Size:
    """Return the size that *text* means: ``+10M``, ``-4k``, ``100c``; ValueError if it is none."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{printable(text)}' is not a size; use one such as +10M, -4k or 100c")
    return Size(match[1], int(match[2]), _UNITS[match[3]])


def types_of(text: str) -> list[str]:
    """Return the letters in *text*: ``f,l``; ValueError if one is no type."""
    letters = text.split(",")
    if any(letter not in TYPES for letter in letters):
        raise ValueError(f"'{printable(text)}' has unknown types; use f, d, l, b, c, p, s, as in f,l")
    return letters


Test = Callable[[bytes, Stat], bool]
"""Tells whether a file with a name and attributes is wanted."""


def all_of(name: str | None = None, types: Collection[str] | None = None, size: Size | None = None) -> Test:
    """Return the test for a *name* (a pattern of the shell), one of *types* (letters of find(1)) and a *size*."""
    tests: list[Test] = []
    if name is not None:
        pattern = re.compile(fnmatch.translate(_plain_glob(name)))
        tests.append(lambda name, _: pattern.match(os.fsdecode(name)) is not None)
    if types is not None:
        kinds = {TYPES[letter] for letter in types}
        tests.append(lambda _, status: stat.S_IFMT(status.mode) in kinds)
    if size is not None:
        sign, units, unit = size
        fits = {"+": operator.gt, "-": operator.lt, "": operator.eq}[sign]
        tests.append(lambda _, status: bool(fits(-(-status.size // unit), units)))
    return lambda name, status: all(test(name, status) for test in tests)


def _plain_glob(pattern: str) -> str:
    r"""Return a *pattern* of find(1) as `fnmatch` spells it, which knows neither ``\*`` nor ``[^a]``."""

    def plain(match: re.Match[str]) -> str:
        char = match[1]
        if char is None:
            return "[!"
        return f"[{char}]" if char in "*?[" else char

    return re.sub(r"\\(.)|\[\^", plain, pattern, flags=re.DOTALL)


class Found(NamedTuple):
    """A file."""

    tree: RootfsTree | LayerTree
    node: PathNode
    layer: int | None
    """None: no layer lists it."""
    fate: Fate | None = None


class Where(NamedTuple):
    """Where files are searched: in the root file system, unless one of these is set."""

    layer: int | None = None
    """Only in this layer."""
    all_layers: bool = False
    deleted: bool = False
    """Files of layers that an upper layer deletes."""


def search(opened: Opened, paths: Sequence[bytes], where: Where, wanted: Test) -> Iterator[Found]:
    """Yield the files at *paths* and below that are wanted; Unavailable if there is no such path, or no such layer."""
    for found in _all(opened, paths, where):
        if wanted(found.node.name, found.tree.stat(found.node.number)):
            yield found


def _all(opened: Opened, paths: Sequence[bytes], where: Where) -> Iterator[Found]:
    if where != Where():
        if where.layer is not None:
            opened.layer(where.layer)  # raises, with the reason, if there is none
        for path in paths:
            yield from _in_layers(opened, path, where)
        return
    tree = opened.rootfs()
    for path in paths:
        top = found_at(tree, path, opened.image.name, follow=True)
        yield Found(tree, top, _layer(tree, top))
        if stat.S_ISDIR(tree.stat(top.number).mode):
            for _, entries in walk(tree, top):
                yield from (Found(tree, entry, _layer(tree, entry)) for entry in entries)


def _layer(tree: RootfsTree, node: PathNode) -> int | None:
    is_directory = stat.S_ISDIR(tree.stat(node.number).mode)
    return None if is_directory and tree.is_implicit(node.number) else tree.layer(node.number)


def _in_layers(opened: Opened, path: bytes, where: Where) -> Iterator[Found]:
    tree = opened.rootfs()
    top = b"/" + b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))
    below = b"/" if top == b"/" else top + b"/"
    numbers = range(len(tree.files)) if where.layer is None else [where.layer]
    missing = True
    for number in numbers:
        shown = LayerTree(tree.files[number], transform_symlinks=False)
        for file in layer_files(tree.indexes, number):
            if file.path != top and not file.path.startswith(below):
                continue
            missing = False
            if not where.deleted or (file.fate is not None and file.fate.end is End.DELETED):
                above, _, name = file.path.rpartition(b"/")
                yield Found(shown, PathNode(file.record.number, name, above), number, file.fate)
    if missing and top != b"/":
        raise Unavailable(
            f"no layer of {opened.shown} has {printable(path)}"
            if where.layer is None
            else f"layer {where.layer} of {opened.shown} has no {printable(path)}"
        )
