"""The layers that add, change or remove a path of the root file system."""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from fusefs.layers.index import LayerIndex
from fusefs.layers.record import IMPLICIT, OPAQUE, ROOT, WHITEOUT, Record


class Deed(Enum):
    """The effect of a layer on a path."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


class Touch(NamedTuple):
    """One layer's change to a path."""

    layer: int
    deed: Deed
    record: Record | None
    """The layer's record of the path, None if the layer removes it."""


def touches(layers: Sequence[LayerIndex], path: Sequence[bytes]) -> Iterator[Touch]:
    """Yield the changes that *layers* make to *path*, the base first.  No directory in *path* may be a symbolic link.

    An implicit directory is not a change.
    """
    there = False
    known = {id(index): _look_up(index, path) for index in {id(index): index for index in layers}.values()}
    for number, index in enumerate(layers):
        record, removes = known[id(index)]
        if record is not None and not record.flags & IMPLICIT:
            yield Touch(number, Deed.CHANGED if there else Deed.ADDED, record)
            there = True
        elif removes and there and record is None:
            yield Touch(number, Deed.REMOVED, None)
            there = False


def _look_up(index: LayerIndex, path: Sequence[bytes]) -> tuple[Record | None, bool]:
    """Return a layer's record of *path*, and whether the layer removes the path of lower layers."""
    number, removes = ROOT, False
    for name in path:
        if not index.is_directory(number):
            return None, True
        removes = removes or any(index.has_marker(number, mark) for mark in (WHITEOUT + name, OPAQUE))
        below = index.find(number, name)
        if below is None:
            return None, removes
        number = below
    return index.record(number), removes
