"""How many bytes the files of a tree have, directory by directory, and in which layers they are."""

import stat
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.tree.walk import PathNode, children


class Amount(NamedTuple):
    """Files, and bytes in them."""

    size: int
    """Bytes of regular files; a file with several names counts once."""
    files: int
    """Regular files, links, devices, fifos and sockets."""


class Usage(NamedTuple):
    """A directory or a file, with everything below it."""

    path: PathNode
    depth: int
    """Directories between it and the top; 0 is the top itself."""
    is_directory: bool
    layers: dict[int, Amount]
    """What of it is in each layer that has some."""

    @property
    def total(self) -> Amount:
        """The amount of all layers."""
        sizes, files = zip(*self.layers.values(), strict=True) if self.layers else ((), ())
        return Amount(sum(sizes), sum(files))


def usage(tree: RootfsTree | LayerTree, tops: Iterable[PathNode]) -> Iterator[Usage]:
    """Yield each of *tops* and everything below it, what is in a directory before the directory, as du(1) does.

    What was counted below one of them, or under another name, is left out.  Takes memory for the directories on one
    path, and for the files with several names.
    """
    seen: set[int] = set()
    counted: list[PathNode] = []
    for top in tops:
        if not any(top.parts[: len(before.parts)] == before.parts for before in counted):
            counted.append(top)
            yield from _below(tree, top, seen, {before.number for before in counted})


def _below(tree: RootfsTree | LayerTree, top: PathNode, seen: set[int], counted: Collection[int]) -> Iterator[Usage]:
    if not stat.S_ISDIR(tree.stat(top.number).mode):
        yield Usage(top, 0, is_directory=False, layers=_file(tree, top, seen))
        return
    open_ones: list[tuple[PathNode, Iterator[PathNode], dict[int, Amount]]]
    open_ones = [(top, iter(children(tree, top)), {})]
    while open_ones:
        directory, rest, amounts = open_ones[-1]
        entry = next(rest, None)
        if entry is None:
            open_ones.pop()
            yield Usage(directory, len(open_ones), is_directory=True, layers=amounts)
            if open_ones:
                _add(open_ones[-1][2], amounts)
        elif entry.number in counted:
            continue
        elif stat.S_ISDIR(tree.stat(entry.number).mode):
            open_ones.append((entry, iter(children(tree, entry)), {}))
        else:
            found = _file(tree, entry, seen)
            yield Usage(entry, len(open_ones), is_directory=False, layers=found)
            _add(amounts, found)


def _file(tree: RootfsTree | LayerTree, file: PathNode, seen: set[int]) -> dict[int, Amount]:
    status = tree.stat(file.number)
    size = status.size if stat.S_ISREG(status.mode) else 0
    if status.nlink > 1:
        if file.number in seen:
            return {}
        seen.add(file.number)
    layer = tree.layer(file.number) if isinstance(tree, RootfsTree) else 0
    return {layer: Amount(size, 1)}


def _add(amounts: dict[int, Amount], more: dict[int, Amount]) -> None:
    for layer, amount in more.items():
        before = amounts.get(layer, Amount(0, 0))
        amounts[layer] = Amount(before.size + amount.size, before.files + amount.files)
