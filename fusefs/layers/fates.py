"""The files of each layer, with the layer above that hides them: one that deletes, replaces or repeats them."""

import stat
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from fusefs.layers.index import LayerIndex
from fusefs.layers.record import IMPLICIT, LOWER_LINK, OPAQUE, ROOT, WHITEOUT, Record


class End(Enum):
    """What hides a file."""

    DELETED = "deleted"
    REPLACED = "replaced"


class Fate(NamedTuple):
    """The first layer above that hides a file."""

    layer: int
    end: End
    record: int = ROOT
    """The record that replaces it."""


class LayerFile(NamedTuple):
    """A file of a layer."""

    layer: int
    record: Record
    path: bytes
    """Absolute, in the layer."""
    fate: Fate | None
    """None: the file is in the root file system."""


_Above = tuple[tuple[int, int], ...]
"""The layers above that have a directory, each with its record, the lowest first."""


class _Entered(NamedTuple):
    """A directory of the layer."""

    number: int
    path: bytes
    above: _Above
    gone: int | None
    """The layer above that removes it with all that is in it."""


def layer_files(layers: Sequence[LayerIndex], number: int) -> Iterator[LayerFile]:
    """Yield the files of the layer *number* of *layers*, the base first: all but whiteouts and implicit directories.

    A directory comes before what is in it, and its entries in their order.  Hard links into lower layers are files of
    the layer without bytes.
    """
    index = layers[number]
    waiting = [_Entered(ROOT, b"", tuple((above, ROOT) for above in range(number + 1, len(layers))), None)]
    while waiting:
        directory = waiting.pop()
        below = []
        for name, at, _, mode, flags in index.listed(directory.number):
            if not index.is_shown(at, name):
                continue
            path = b"%b/%b" % (directory.path, name)
            is_directory = stat.S_ISDIR(mode)
            above, fate = _fate(layers, directory, name, is_directory=is_directory)
            if not flags & IMPLICIT:
                yield LayerFile(number, index.record(at), path, fate)
            if is_directory:
                below.append(_Entered(at, path, above, None if fate is None else fate.layer))
        waiting.extend(reversed(below))


def _fate(
    layers: Sequence[LayerIndex], directory: _Entered, name: bytes, *, is_directory: bool
) -> tuple[_Above, Fate | None]:
    """Return the layers above that have the entry *name* as a directory, and what hides it first.

    A directory that is listed again is still there: only what is no directory replaces it, or one that hides the
    contents of those below.
    """
    merged: list[tuple[int, int]] = []
    fate = None
    for layer, at in directory.above:
        index = layers[layer]
        if fate is None and directory.gone is not None and layer > directory.gone:
            fate = Fate(directory.gone, End.DELETED)
        found = index.find(at, name)
        if found is not None and not index.is_shown(found, name):
            found = None
        merges = is_directory and found is not None and index.is_directory(found)
        if fate is None:
            removes = layer == directory.gone or any(index.has_marker(at, mark) for mark in (WHITEOUT + name, OPAQUE))
            if found is not None and (removes or not merges):
                fate = Fate(layer, End.REPLACED, found)
            elif removes and found is None:
                fate = Fate(layer, End.DELETED)
        if fate is not None and not is_directory:
            break
        if merges and found is not None:
            merged.append((layer, found))
    if fate is None and directory.gone is not None:
        fate = Fate(directory.gone, End.DELETED)
    return tuple(merged), fate


def bytes_of(record: Record) -> int:
    """Return the bytes that a file has in its layer."""
    return record.size if stat.S_ISREG(record.mode) and not record.flags & LOWER_LINK else 0
