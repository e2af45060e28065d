"""Hard links into lower layers: the file that each leads to.

A link of layer n leads into the merge of the layers below n, so each layer with links sees another root file system.
All of them are answered by one structure: for a path, the directories of all layers; for a name in them, the layers
that have it, and for each of these the lowest layer that it is merged with.
"""

import stat
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from fusefs.layers.index import LayerIndex
from fusefs.layers.joined import Joined
from fusefs.layers.record import LOWER_LINK, OPAQUE, ROOT, WHITEOUT

_MAX_LINKS, _MAX_STEPS = 40, 255
"""Symbolic links that are followed for one hard link, and how many components these may have together."""
_HELD = 1 << 18
"""Limit of what is held of repeated layers in memory, in layers of a name.

All else takes about as much as the records that it is made from.
"""
_WAYS = 16
"""Directories that are remembered by their paths: links that follow each other often lead to one directory."""
_SHIFT = 32
_UNKNOWN, _NOWHERE = 0, 1
"""States of a target; any other number is that of its file, plus 2."""


class _Holder(NamedTuple):
    """One layer, which may be there several times, that has a name or its whiteout."""

    layers: list[int]
    """Its places, in ascending order."""
    record: int | None
    """The record called so; None if there is only a whiteout."""
    is_directory: bool
    whiteout: bool


class _Name:
    """A name in the directories of all layers."""

    __slots__ = ("_floors", "_holder", "_layers", "_records", "below")

    def __init__(self, holders: Sequence[_Holder], below: "_Directory") -> None:
        self.below = below
        """The directories of that name."""
        self._holder = holders[0] if len(holders) == 1 else None
        """The only one: most names are in one layer."""
        self._layers: list[int] = []
        """The layers that have the name or its whiteout, in ascending order."""
        self._records: list[int | None] = []
        """Its record in each of these."""
        self._floors: list[int] = []
        """For each of these the lowest layer whose directory is merged with its own."""
        if self._holder is None:
            self._join(holders)
        else:
            self._layers = self._holder.layers

    def _join(self, holders: Sequence[_Holder]) -> None:
        floor = 0
        layers = sorted((layer, place) for place, holder in enumerate(holders) for layer in holder.layers)
        for layer, place in layers:
            _, record, is_directory, whiteout = holders[place]
            if whiteout or not is_directory:
                floor = layer
            self._layers.append(layer)
            self._records.append(record)
            self._floors.append(floor)
            if not is_directory:
                floor = layer + 1

    def top(self, high: int) -> tuple[int, int | None, int]:
        """Return the uppermost layer below *high* that has the name or its whiteout, its record, and its floor."""
        at = bisect_left(self._layers, high) - 1
        if at < 0:
            return 0, None, 0
        layer = self._layers[at]
        if self._holder is None:
            return layer, self._records[at], self._floors[at]
        _, record, is_directory, whiteout = self._holder
        return layer, record, layer if whiteout or not is_directory else 0


class _Directory:
    """The directories of all layers at one path."""

    __slots__ = ("joined", "names", "opaque")

    def __init__(self, joined: Joined, opaque: list[int]) -> None:
        self.joined = joined
        self.opaque = opaque
        """The layers in which it is opaque, in ascending order."""
        self.names: dict[bytes, _Name] = {}


class _Found(NamedTuple):
    """A name as the layers below a given one show it."""

    layer: int
    record: int
    floor: int
    """The lowest layer that a directory is merged with."""
    below: _Directory


class LowerLinks:
    """The hard links into lower layers of one stack of layers.  Each is resolved once.  Safe under concurrency."""

    def __init__(self, layers: Sequence[LayerIndex], copies: Mapping[int, list[int]]) -> None:
        """Resolve links in *layers*; *copies* has the places of each distinct layer, by the last of them."""
        self._layers = layers
        self._copies = copies
        self._held = 0
        self._root = self._directory(tuple((layer, ROOT) for layer in sorted(copies, reverse=True)))
        self._everything = _Found(0, ROOT, 0, self._root)
        self._shown = lru_cache(_WAYS)(self._new_shown)
        self._way = lru_cache(_WAYS)(self._new_way)
        self._targets: dict[int, tuple[list[int], array[int]]] = {}
        """Of layers: the records that are links, and the target of each."""

    def target(self, layer: int, number: int) -> int | None:
        """Return the number of the file that the link *number* in *layer* leads to, None if there is no such file."""
        chain: list[tuple[array[int], int]] = []
        state = _NOWHERE
        while True:
            targets, position = self._place(layer, number)
            if targets[position] != _UNKNOWN:
                state = targets[position]
                break
            chain.append((targets, position))
            found = self._followed(layer, number)
            if found is None:
                break
            layer, number = found
            record = self._layers[layer].record(number)
            if not record.flags & LOWER_LINK:
                state = _NOWHERE if stat.S_ISDIR(record.mode) else (layer << _SHIFT) + record.inode + 2
                break
        for targets, position in chain:
            targets[position] = state
        return None if state == _NOWHERE else state - 2

    def is_visible(self, layer: int, number: int) -> bool:
        """Return whether the link *number* in *layer* is in the merge of all layers, under its own name."""
        index = self._layers[layer]
        parent = self._shown(layer, index.record(number).parent)
        found = parent and self._step(parent, index.name(number), len(self._layers))
        return found is not None and (found.layer, found.record) == (layer, number)

    def _new_shown(self, layer: int, directory: int) -> _Found | None:
        """Return what the merge of all layers has at the path of a *directory* of one layer."""
        index, names = self._layers[layer], []
        while directory != ROOT:
            names.append(index.name(directory))
            directory = index.record(directory).parent
        here: _Found | None = self._everything
        while names and here is not None:
            here = self._step(here, names.pop(), len(self._layers))
        return here

    def _place(self, layer: int, number: int) -> "tuple[array[int], int]":
        """Return where the target of a link is remembered."""
        known = self._targets.get(layer)
        if known is None:
            links = self._layers[layer].lower_links()
            known = self._targets.setdefault(layer, (links, array("Q", bytes(8 * len(links)))))
        links, targets = known
        return targets, bisect_left(links, number)

    def _followed(self, layer: int, number: int) -> tuple[int, int] | None:
        """Return layer and record of the name that a link leads to, which may be another link."""
        index = self._layers[layer]
        path = index.text(index.record(number))
        found, through_link = self._at(path, layer)
        if found is None and through_link:
            # The file of the link's own layer, to which its path leads through a symbolic link of a lower layer.
            found, _ = self._at(path, layer + 1)
            if found is not None:
                record = self._layers[found.layer].record(found.record)
                if record.flags & LOWER_LINK or stat.S_ISDIR(record.mode):
                    return None
        return None if found is None else (found.layer, found.record)

    def _at(self, path: bytes, high: int) -> tuple[_Found | None, bool]:
        """Return the last component of *path* in the layers below *high*, and whether the way leads through links."""
        directory, _, name = path.rpartition(b"/")
        here, through_link = self._way(directory, high)
        return None if here is None else self._step(here, name, high), through_link

    def _new_way(self, path: bytes, high: int) -> tuple[_Found | None, bool]:
        """Return the directory at *path*, and whether the way leads through symbolic links.

        Engines refuse a hard link to a file that its layer does not have; umoci resolves it as here.
        """
        way = [self._everything]
        rest = _parts(path)[::-1]
        links = steps = 0
        while rest:
            part = rest.pop()
            if part == b"..":
                del way[max(1, len(way) - 1) :]
                continue
            found = self._step(way[-1], part, high)
            if found is None:
                return None, links > 0
            index = self._layers[found.layer]
            if index.is_directory(found.record):
                way.append(found)
                continue
            record = index.record(found.record)
            target = index.text(record)
            parts = _parts(target)
            links, steps = links + 1, steps + len(parts)
            if not stat.S_ISLNK(record.mode) or links > _MAX_LINKS or steps > _MAX_STEPS:
                return None, links > 0
            if target.startswith(b"/"):
                del way[1:]
            rest += reversed(parts)
        return way[-1], links > 0

    def _step(self, here: _Found, name: bytes, high: int) -> _Found | None:
        """Return *name* in the directory *here*, links not followed; None if there is no such name."""
        directory = here.below
        entry = directory.names.get(name)
        if entry is None:
            entry = self._name(directory, name)
        layer, number, lowest = entry.top(high)
        above_opaque = bisect_left(directory.opaque, high)
        opaque = directory.opaque[above_opaque - 1] if above_opaque else 0
        floor = max(here.floor, opaque)
        if number is None or layer < floor:
            return None
        return _Found(layer, number, max(floor, lowest), entry.below)

    def _name(self, directory: _Directory, name: bytes) -> _Name:
        """Return *name* in a directory, from now on held in memory."""
        holders: list[_Holder] = []
        below: list[tuple[int, int]] = []
        for last, parent in directory.joined.holding(name):
            index = self._layers[last]
            number = index.find(parent, name)
            if number is not None and not index.is_shown(number, name):
                number = None
            whiteout = index.has_marker(parent, WHITEOUT + name)
            if number is None and not whiteout:
                continue
            is_directory = number is not None and index.is_directory(number)
            if number is not None and is_directory:
                below.append((last, number))
            holders.append(_Holder(self._copies[last], number, is_directory, whiteout))
        entry = _Name(holders, self._directory(tuple(below)))
        repeated = 0 if len(holders) == 1 else sum(len(holder.layers) - 1 for holder in holders)
        self._held += repeated
        if self._held > _HELD:
            self._held = 0
            self._root.names.clear()
        directory.names[name] = entry
        return entry

    def _directory(self, places: tuple[tuple[int, int], ...]) -> _Directory:
        opaque: Iterable[int] = (
            layer for last, at in places if self._layers[last].has_marker(at, OPAQUE) for layer in self._copies[last]
        )
        return _Directory(Joined(self._layers, places, cut=False), sorted(opaque))


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]
