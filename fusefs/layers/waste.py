"""The bytes of an image that no program sees: upper layers delete, overwrite or repeat them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fusefs.layers.diff import same_bytes
from fusefs.layers.fates import End, Fate, LayerFile, bytes_of, layer_files
from fusefs.layers.record import ROOT, WHITEOUT, Record
from fusefs.layers.rootfs import RootfsTree
from fusefs.tree.node import RegularFile

DELETED, OVERWRITTEN, REPEATED = "deleted", "overwritten", "repeated"


class WastedFile(NamedTuple):
    """A file whose bytes nobody sees."""

    path: bytes
    layer: int
    size: int
    by: int
    """The layer that hides it."""
    how: str
    """DELETED, OVERWRITTEN, or REPEATED: hidden by a file with the same bytes."""


class Waste(NamedTuple):
    """The waste of an image."""

    files: list[WastedFile]
    """The largest first."""
    total: int
    """Bytes of the files of all layers."""
    efficiency: float
    """As dive counts it, 0 to 1; docs/reference.md has the formula."""

    @property
    def size(self) -> int:
        """The bytes of all wasted files."""
        return sum(file.size for file in self.files)


def waste(tree: RootfsTree) -> Waste:
    """Return the waste of the image whose merged layers are *tree*."""
    files, hidden = [], set()
    total = 0
    for found in _all_files(tree):
        total += _size(found.record)
        if found.fate is not None:
            hidden.add(found.path)
    files = sorted(_wasted(tree), key=lambda file: (-file.size, file.path))
    return Waste(files, total, _efficiency(tree, hidden))


def _all_files(tree: RootfsTree) -> Iterator[LayerFile]:
    for number in range(len(tree.indexes)):
        yield from layer_files(tree.indexes, number)


def _size(record: Record) -> int:
    """Return the bytes that a name adds to its layer: a hard link adds none."""
    return bytes_of(record) if record.inode == record.number else 0


def _wasted(tree: RootfsTree) -> Iterator[WastedFile]:
    """Yield the files of which all names are hidden."""
    for number, index in enumerate(tree.indexes):
        names: Counter[int] = Counter()
        """Hidden names of files with several."""
        for found in layer_files(tree.indexes, number):
            record, fate = found.record, found.fate
            if fate is None or not bytes_of(record):
                continue
            names[record.inode] += 1
            # Hard links in upper layers need the bytes, too.
            if names[record.inode] == record.nlink and tree.node_number(number, record.inode) not in tree.shared_names:
                size = index.record(record.inode).size
                yield WastedFile(found.path, number, size, fate.layer, _how(tree, found, fate))


def _how(tree: RootfsTree, found: LayerFile, fate: Fate) -> str:
    if fate.end is End.DELETED:
        return DELETED
    below = tree.files[found.layer].node(found.record)
    above = tree.files[fate.layer].node(tree.indexes[fate.layer].record(fate.record))
    same = (
        isinstance(below, RegularFile) and isinstance(above, RegularFile) and same_bytes(below.content, above.content)
    )
    return REPEATED if same else OVERWRITTEN


def _efficiency(tree: RootfsTree, hidden: set[bytes]) -> float:
    """Return the least size of each path over its size in all layers together, of all paths, as dive does.

    Only files count, and whiteouts: one of a file has no size, one of a directory that of all files in it.
    """
    once = 0
    sizes: dict[bytes, list[int]] = {path: [] for path in hidden}
    for found in _all_files(tree):
        if found.record.children or found.record.first_child:
            continue
        if found.path in sizes:
            sizes[found.path].append(_size(found.record))
        else:
            once += _size(found.record)
    for path, removed in _removed(tree).items():
        sizes.setdefault(path, []).extend(removed.values())
    least = once + sum(min(known, default=0) for known in sizes.values())
    every = once + sum(map(sum, sizes.values()))
    return least / every if every else 1.0


def _removed(tree: RootfsTree) -> dict[bytes, dict[int, int]]:
    """Return the paths that whiteouts remove; of each, the bytes of the files below it, by the layer that removes them.

    One pass over all files: a layer may have a whiteout for each of them.
    """
    removed: dict[bytes, dict[int, int]] = {}
    for number in range(1, len(tree.indexes)):
        for path in _whiteouts(tree, number):
            removed.setdefault(path, {})[number] = 0
    for found in _all_files(tree) if removed else ():
        path, size = found.path, _size(found.record)
        while size and (path := path.rpartition(b"/")[0]):
            sizes = removed.get(path, {})
            for number in sizes:
                if found.layer < number and (found.fate is None or found.fate.layer >= number):
                    sizes[number] += size
    return removed


def _whiteouts(tree: RootfsTree, number: int) -> Iterator[bytes]:
    """Yield the paths that whiteouts of a layer remove."""
    index = tree.indexes[number]
    if not index.may_have_whiteouts:
        return
    waiting = [(ROOT, b"")]
    while waiting:
        directory, path = waiting.pop()
        yield from (b"%b/%b" % (path, name) for name in index.whiteouts(directory) if not name.startswith(WHITEOUT))
        waiting += (
            (at, b"%b/%b" % (path, name))
            for name, at, _, _, _ in index.listed(directory)
            if index.is_directory(at) and index.is_shown(at, name)
        )


def at_fault(files: Sequence[WastedFile], layers: int) -> list[tuple[int, int]]:
    """Return of each layer the bytes in it that are hidden, and the bytes of lower layers that it hides."""
    lost, hides = Counter[int](), Counter[int]()
    for file in files:
        lost[file.layer] += file.size
        hides[file.by] += file.size
    return [(lost[number], hides[number]) for number in range(layers)]
