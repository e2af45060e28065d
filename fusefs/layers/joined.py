"""Directories of several layers at one path: lookups and listings across them.

Rules: OCI image specification, "Representing Changes" and "Applying Changesets".
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from fusefs.layers.index import LayerIndex
from fusefs.layers.record import OPAQUE, WHITEOUT

Place = tuple[int, int]
"""A layer and a record in it."""
Listed = tuple[bytes, int, int, int, int, int, int]
"""Of a name: itself, number of directories above its own, layer, record, inode, mode and flags."""

_MANY = 16
"""Directories from which a table of their names is worth its memory."""
_MAX_TABLE = 1 << 16
"""Limit of the names in a table; each takes about 250 bytes."""


class Joined:
    """The directories at one path, the uppermost first.  Safe under concurrency.

    Directories below an opaque one still lend it attributes, as in umoci, but no names, and nothing to what is
    below it.  An implicit directory is a directory like any other, even with nothing but whiteouts below: engines
    make it when they unpack the layer, so that it replaces a file or symbolic link of a lower layer.
    """

    __slots__ = ("_layers", "_searched", "_table", "named", "places")

    def __init__(self, layers: Sequence[LayerIndex], places: tuple[Place, ...], *, cut: bool = True) -> None:
        """Join the directories *places* of *layers*; *cut*: an opaque one hides the names below it."""
        self._layers = layers
        self.places = places
        self.named = self._above_opaque() if cut and len(places) > 1 else places
        """The directories whose names count."""
        self._searched = 0
        """Directories searched before there was a table."""
        self._table: dict[bytes, list[int]] | None = None
        """The places that have a name, as positions in `named`; made when searches have cost as much."""

    def _above_opaque(self) -> tuple[Place, ...]:
        for above, (layer, directory) in enumerate(self.places, 1):
            if self._layers[layer].has_marker(directory, OPAQUE):
                return self.places[:above]
        return self.places

    @property
    def size(self) -> int:
        """About how many names it has."""
        return sum(self._layers[layer].record(at).children for layer, at in self.named)

    @property
    def weight(self) -> int:
        """About the memory that it takes, with a table, in units of 100 bytes."""
        return 3 + len(self.places) + (0 if len(self.named) < _MANY else 3 * min(self.size, _MAX_TABLE))

    def holding(self, name: bytes) -> Iterable[Place]:
        """Return all places that have *name* or its whiteout, and perhaps others; the uppermost first."""
        named = self.named
        if len(named) < _MANY:
            return named
        table = self._table
        if table is None:
            self._searched += len(named)
            table = self._table = self._new_table()
            if table is None:
                return named
        positions = sorted({*table.get(name, ()), *table.get(WHITEOUT + name, ())})
        return [named[position] for position in positions]

    def _new_table(self) -> dict[bytes, list[int]] | None:
        """Return the table if the searches so far have cost as much as it does, and it is not too large."""
        if self.size > min(self._searched, _MAX_TABLE):
            return None
        table: dict[bytes, list[int]] = {}
        for position, (layer, directory) in enumerate(self.named):
            for name, *_ in self._layers[layer].listed(directory):
                table.setdefault(name, []).append(position)
        return table

    def find(self, name: bytes) -> tuple[Place, ...]:
        """Return the directories or the one file called *name*, links not followed; empty if there is none.

        A file hides the layers below its own.  So does a whiteout, which does not hide names of its own layer.
        """
        found: list[Place] = []
        lowest = self.named[-1] if self.named else None
        for place in self.holding(name):
            layer, directory = place
            index = self._layers[layer]
            number = index.find(directory, name)
            if number is not None and index.is_shown(number, name):
                if not index.is_directory(number):
                    return tuple(found) or ((layer, number),)
                found.append((layer, number))
            if place is lowest:  # its whiteouts hide nothing
                break
            if index.has_marker(directory, WHITEOUT + name):
                break
        return tuple(found)

    def listing(self) -> Iterator[Listed]:
        """Yield the names in their order, with the uppermost layer's record of each.

        The rules of `find`, for a whole directory at once.
        """
        hidden: dict[bytes, int] = {}
        """Names with a whiteout, and the number of directories above that of the uppermost whiteout."""
        lists = []
        for above, (layer, directory) in enumerate(self.named):
            lists.append(_listed(self._layers[layer], directory, above, layer))
            if above < len(self.named) - 1:
                for name in self._layers[layer].whiteouts(directory):
                    hidden.setdefault(name, above)
        last = None
        for listed in lists[0] if len(lists) == 1 else heapq.merge(*lists):
            name, above, *_ = listed
            # A whiteout hides names of the layers below its own only.
            if name != last and hidden.get(name, above) >= above:
                yield listed
            last = name


def _listed(index: LayerIndex, directory: int, above: int, layer: int) -> Iterator[Listed]:
    for name, number, inode, mode, flags in index.listed(directory):
        if name[:4] != WHITEOUT or index.is_shown(number, name):
            yield name, above, layer, number, inode, mode, flags
