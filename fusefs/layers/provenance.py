"""Which layers a path in the root file system comes from: who added it, who changed it, who removed it."""

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from fusefs.layers.index import LayerIndex
from fusefs.layers.record import IMPLICIT, OPAQUE, ROOT, WHITEOUT, Entry


class Deed(Enum):
    """What a layer does to a path."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Touch:
    """A layer that has to do with a path."""

    layer: int
    deed: Deed
    entry: Entry | None
    """Its record of the path, None if it removes it."""


def touches(layers: Sequence[LayerIndex], path: Sequence[bytes]) -> Iterator[Touch]:
    """Yield what each of *layers* does to *path*, whose directories are no links, the base first.

    A layer that only has files below a directory does nothing to the directory.
    """
    there = False
    for number, index in enumerate(layers):
        entry, removes = _look(index, path)
        if entry is not None and not entry.flags & IMPLICIT:
            yield Touch(number, Deed.CHANGED if there else Deed.ADDED, entry)
            there = True
        elif removes and there and entry is None:
            yield Touch(number, Deed.REMOVED, None)
            there = False


def _look(index: LayerIndex, path: Sequence[bytes]) -> tuple[Entry | None, bool]:
    """Return a layer's record of *path*, and whether it removes what lower layers have there."""
    record, removes = ROOT, False
    for name in path:
        entry = index.entry(record)
        if not stat.S_ISDIR(entry.mode):
            return None, True
        removes = removes or any(index.find(record, mark) is not None for mark in (WHITEOUT + name, OPAQUE))
        found = index.find(record, name)
        if found is None:
            return None, removes
        record = found
    return index.entry(record), removes
