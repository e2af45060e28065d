"""The merged layers: the root file system of a container.

A directory of the merge is the layers' directories at one path, joined; everything is derived from them, one directory
at a time.
"""

import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from fusefs.layers.index import LayerIndex
from fusefs.layers.joined import Joined, Place
from fusefs.layers.lower_links import LowerLinks
from fusefs.layers.record import IMPLICIT, LOWER_LINK, ROOT, WHITEOUT, Record
from fusefs.layers.tree import LayerFiles, attributes_of, inside, stat_of_record
from fusefs.log import logger
from fusefs.text import printable
from fusefs.tree.listing import LARGE, LongListing
from fusefs.tree.node import Directory, Node, Stat, Symlink, stat_of

log = logger(__name__)

_SHIFT = 32
"""A node's number: its layer above this bit, its record below."""
_RECORD = (1 << _SHIFT) - 1
_LISTINGS = 16
_HELD = 1 << 17
"""Limit of what is held of directories in memory, in units of 100 bytes."""


class RootfsTree:
    """All layers merged.  A directory's number is that of its record in the uppermost layer."""

    has_lazy = False

    def __init__(self, files: Sequence[LayerFiles], *, transform_symlinks: bool) -> None:
        """Merge the layers *files*, the base first."""
        self.files = files
        self._layers = [layer.index for layer in files]
        self.transform_symlinks = transform_symlinks
        copies = _copies(files)
        # A layer that comes again further up hides all that it has further down.
        self._root = Joined(self._layers, tuple((layer, ROOT) for layer in sorted(copies, reverse=True)))
        self._short_listing = lru_cache(_LISTINGS)(self._list)
        self._directories: dict[int, Joined] = {}
        self._weight = 0
        """Of these together."""
        self._lower = LowerLinks(self._layers, copies)
        self._linking = {number for number in copies if self._layers[number].lower_links()}
        self._links: Counter[int] = Counter()
        """Number of hard links from upper layers to a file."""
        for number in sorted(self._linking):
            self._follow_links(number)

    @property
    def indexes(self) -> Sequence[LayerIndex]:
        """The layer indexes, the base first."""
        return self._layers

    @property
    def shared_names(self) -> Collection[int]:
        """Nodes whose number of links counts names in other layers."""
        return self._links

    def _follow_links(self, number: int) -> None:
        index, dead, first = self._layers[number], 0, b""
        for at in index.lower_links():
            target = self._lower.target(number, at)
            if target is None:
                first = first or b"/".join(self._path(number, index.record(at)))
                dead += 1
            elif self._lower.is_visible(number, at):
                self._links[target] += 1
        if dead:
            log.warning("layer %d: skipped %d hard links to nothing; the first: %s", number, dead, printable(first))

    def settling(self, directory: int, name: bytes | None) -> None:
        """Return None: all nodes are known."""

    def node(self, number: int) -> Node:
        """Return a node; a directory has the attributes of the uppermost layer that lists it."""
        layer, record = self._record(number)
        if stat.S_ISDIR(record.mode):
            return Directory(attributes_of(self._explicit(number)[1]))
        node = self.files[layer].node(record)
        if self.transform_symlinks and isinstance(node, Symlink):
            layer = number >> _SHIFT  # of this name
            return inside(node, len(self._path(layer, self._layers[layer].record(number & _RECORD))) - 1)
        return node

    def stat(self, number: int) -> Stat:
        """Return the stat result of a node."""
        _, record = self._record(number)
        if record.flags & IMPLICIT:
            _, record = self._explicit(number)
        elif self.transform_symlinks and stat.S_ISLNK(record.mode):
            return stat_of(self.node(number))
        return stat_of_record(record)

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        layer, record = self._record(number)
        if stat.S_ISDIR(record.mode):
            layer, record = self._explicit(number)
        return self._layers[layer].xattrs(record)

    def parent(self, number: int) -> int:
        """Return the parent directory of a directory."""
        layer, record = self._record(number)
        return self._number(self._joined((layer << _SHIFT) + record.parent).places[0])

    @staticmethod
    def node_number(layer: int, inode: int) -> int:
        """Return the number of the node of a file: that of the record *inode* in its *layer*."""
        return (layer << _SHIFT) + inode

    def path(self, directory: int) -> tuple[bytes, ...]:
        """Return the names that lead from the root to *directory*."""
        layer, record = self._record(directory)
        return self._path(layer, record)

    def layer(self, number: int) -> int:
        """Return the layer of a node; of a directory the uppermost that lists it."""
        layer, record = self._record(number)
        return self._explicit(number)[0] if stat.S_ISDIR(record.mode) else layer

    def is_implicit(self, number: int) -> bool:
        """Return whether a node is a directory that no layer lists."""
        return bool(self._explicit(number)[1].flags & IMPLICIT)

    def origins(self, number: int) -> tuple[Place, ...] | None:
        """Return the layers and records that alone determine a node and all nodes below it.

        None if others do as well: below a directory there may be hard links into lower layers.
        """
        layer, record = self._record(number)
        if not stat.S_ISDIR(record.mode):
            return ((layer, record.number),)
        places = self._joined((layer << _SHIFT) + record.number).places
        return None if any(above in self._linking for above, _ in places) else places

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the node called *name*, None if there is no such node."""
        found = self._joined(directory).find(name)
        if not found:
            return None
        layer, at = found[0]
        number = (layer << _SHIFT) + at
        record = self._layers[layer].record(at)
        if stat.S_ISDIR(record.mode):
            self._hold(number, found)
            return number
        target: int | None = (layer << _SHIFT) + record.inode
        if record.flags & LOWER_LINK:
            target = self._lower.target(layer, at)
        if target is not None and self.transform_symlinks and stat.S_ISLNK(self._record(target)[1].mode):
            return number  # each name is a link of its own
        return target

    def size(self, directory: int) -> int:
        """Return about how many names a directory has."""
        return self._joined(directory).size

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return the names to list with their nodes, in the order of the names."""
        if self.size(directory) < LARGE:
            return self._short_listing(directory)
        return LongListing(self._named(directory), self._name)

    def _list(self, directory: int) -> Sequence[tuple[bytes, int]]:
        places = self._joined(directory).places
        if len(places) == 1 and not self.transform_symlinks:  # the common case, nothing to merge: a third of the time
            ((layer, at),) = places
            index = self._layers[layer]
            listed = list(index.listed(at))
            if not any(flags & LOWER_LINK for _, _, _, _, flags in listed):
                base = layer << _SHIFT
                return [
                    (name, base + inode)
                    for name, number, inode, _, _ in listed
                    if name[:4] != WHITEOUT or index.is_shown(number, name)
                ]
        return [(name, number) for name, _, number in self._named(directory)]

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Return name, node and mode of all names to show, in their order."""
        places = self._joined(directory).places
        layer, at = places[0]
        index = self._layers[layer]
        # The common case, nothing to merge, in a third of the time.
        if len(places) == 1 and not (self.transform_symlinks or layer in self._linking or index.may_have_whiteouts):
            return index.entries(at, layer << _SHIFT)
        return ((name, number, mode) for name, _, number, mode in self._shown(directory))

    def _named(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, key for `_name`, and node of each name."""
        for name, key, number, _ in self._shown(directory):
            yield name, key, number

    def _shown(self, directory: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield name, key for `_name`, node and mode of each name."""
        for name, _, layer, at, inode, mode, flags in self._joined(directory).listing():
            base = layer << _SHIFT
            if flags & LOWER_LINK:
                found = self.find(directory, name)
                if found is None:
                    continue
                yield name, base + at, found, self._record(found)[1].mode
            else:  # a directory is its own inode: it has one name
                yield name, base + at, base + (at if self.transform_symlinks and stat.S_ISLNK(mode) else inode), mode

    def _name(self, key: int) -> bytes:
        return self._layers[key >> _SHIFT].name(key & _RECORD)

    def _record(self, number: int) -> tuple[int, Record]:
        if number == 0:
            layer, at = self._root.places[0]
        else:
            layer, at = number >> _SHIFT, number & _RECORD
        record = self._layers[layer].record(at)
        if record.flags & LOWER_LINK:  # a name of a symbolic link
            target = self._lower.target(layer, at)
            assert target is not None
            layer, at = target >> _SHIFT, target & _RECORD
            record = self._layers[layer].record(at)
        elif number in self._links:
            record = record._replace(nlink=record.nlink + self._links[number])
        return layer, record

    def _number(self, place: Place) -> int:
        layer, at = place
        return 0 if at == ROOT else (layer << _SHIFT) + at

    def _joined(self, number: int) -> Joined:
        """Return the directories at the path of one of them, without recursion: the path may be very deep."""
        held = self._directories
        layer, at = number >> _SHIFT, number & _RECORD
        index = self._layers[layer]
        way = []
        while at != ROOT and (layer << _SHIFT) + at not in held:
            way.append(at)
            at = index.record(at).parent
        joined = self._root if at == ROOT else held[(layer << _SHIFT) + at]
        for at in reversed(way):
            if len(joined.places) == 1 and joined.places[0][0] == layer:  # only this layer has the directory
                places: tuple[Place, ...] = ((layer, at),)
            else:
                places = joined.find(index.name(at))
            joined = self._hold((layer << _SHIFT) + at, places)
        return joined

    def _hold(self, number: int, places: tuple[Place, ...]) -> Joined:
        """Return the directories *places* joined, held in memory for the directory *number*, one of them."""
        held = self._directories
        top = self._number(places[0]) if places else number
        joined = held.get(top)
        if joined is None:
            joined = Joined(self._layers, places)
            if self._weight + joined.weight > _HELD:
                self._weight, held = 0, {}
                self._directories = held
            self._weight += joined.weight
        held[top] = held[number] = joined
        return joined

    def _path(self, layer: int, record: Record) -> tuple[bytes, ...]:
        parts = []
        while record.number != ROOT:
            parts.append(self._layers[layer].name(record.number))
            record = self._layers[layer].record(record.parent)
        return tuple(reversed(parts))

    def _explicit(self, number: int) -> tuple[int, Record]:
        """Return the uppermost record that is not implicit; if all are implicit, the uppermost one."""
        layer, record = self._record(number)
        if not record.flags & IMPLICIT:
            return layer, record
        places = ((below, self._layers[below].record(at)) for below, at in self._joined(number).places)
        return next((place for place in places if not place[1].flags & IMPLICIT), (layer, record))


def _copies(files: Sequence[LayerFiles]) -> dict[int, list[int]]:
    """Return the places of each distinct layer in ascending order, by the last of them."""
    places: dict[int, list[int]] = {}
    for number, layer in enumerate(files):
        places.setdefault(id(layer), []).append(number)
    return {numbers[-1]: numbers for numbers in places.values()}
