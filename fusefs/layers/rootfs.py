"""The merged layers: what a container would see.

Rules: OCI image specification, "Representing Changes" and "Applying Changesets".  A directory of the
merge is the layers' directories that lie on each other at one path, the uppermost first; everything
is derived from these, one directory at a time.
"""

import heapq
import logging
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from fusefs.layers.index import LayerIndex
from fusefs.layers.record import IMPLICIT, LOWER_LINK, ONLY_WHITEOUTS, OPAQUE, ROOT, WHITEOUT, Entry
from fusefs.layers.tree import LayerFiles, attributes_of, inside, stat_of_entry
from fusefs.text import printable
from fusefs.tree.listing import LARGE, LongListing
from fusefs.tree.node import Directory, Node, Stat, Symlink, stat_of

log = logging.getLogger(__name__)

_SHIFT = 32
"""A node's number: its layer above this bit, its record below."""
_RECORD = (1 << _SHIFT) - 1
_OPAQUE_NAME = OPAQUE.removeprefix(WHITEOUT)
_LISTINGS = 16
_STACKS = 4096
"""Directories whose layers are kept in memory."""

_SPECIAL = LOWER_LINK | ONLY_WHITEOUTS
"""Flags of entries that are shown as something else, or not at all."""

Stack = tuple[tuple[int, int], ...]
"""Directories on each other, or one file: layer and record, the uppermost first.

What lies below an opaque directory still lends it attributes, as in umoci, but no entries.  A directory
of nothing but whiteouts is there only where a real one is.
"""


def root_stack(layers: Sequence[LayerIndex]) -> Stack:
    """Return the roots of all *layers*."""
    return tuple((number, ROOT) for number in reversed(range(len(layers))))


def find(layers: Sequence[LayerIndex], stack: Stack, name: bytes) -> Stack:
    """Return what is called *name* in the directory *stack*, empty if nothing is.

    A file hides what lies below it; so does a whiteout in a layer, but not what the same layer has.
    """
    linked = False
    while found := _found(layers, stack, name):
        layer, record = found[0]
        entry = layers[layer].entry(record)
        if not entry.flags & LOWER_LINK:
            if stat.S_ISDIR(entry.mode):
                return () if linked else found
            return ((layer, entry.inode),)
        # A hard link into a lower layer is what is at that path there.  A loop: that may be one as well.
        *directories, name = layers[layer].text(entry).split(b"/")
        layers = layers[:layer]
        stack = root_stack(layers)
        for part in directories:
            stack = _found(layers, stack, part)
            if not stack or not _is_directory(layers, stack):
                return ()
        linked = True
    return ()


def _found(layers: Sequence[LayerIndex], stack: Stack, name: bytes) -> Stack:
    """Return the directories or the one record called *name*, links not followed."""
    if name.startswith(WHITEOUT):
        return ()
    found: list[tuple[int, int]] = []
    real = False
    lowest, _ = stack[-1] if stack else (0, 0)
    for layer, directory in stack:
        index = layers[layer]
        record = index.find(directory, name)
        if record is not None:
            entry = index.entry(record)
            if not stat.S_ISDIR(entry.mode):
                return tuple(found) if real else ((layer, record),)
            found.append((layer, record))
            real = real or not entry.flags & ONLY_WHITEOUTS
        if layer == lowest:  # a whiteout there hides nothing
            break
        if index.find(directory, WHITEOUT + name) is not None or index.find(directory, OPAQUE) is not None:
            break
    return tuple(found) if real else ()


def _at(layers: Sequence[LayerIndex], path: Iterable[bytes]) -> Stack:
    """Return what is at *path*, links not followed."""
    stack = root_stack(layers)
    for part in path:
        stack = _found(layers, stack, part)
    return stack


_Listed = tuple[bytes, int, int, int, int, int, int]
"""Of an entry: name, how many directories of the stack lie on its own, layer, record, inode, mode and flags."""


def merge(layers: Sequence[LayerIndex], stack: Stack) -> Iterator[_Listed]:
    """Yield what is in the directory *stack* in the order of the names, of each the uppermost layer's record.

    The same rules as those of `find`, for a whole directory at once.
    """
    hidden: dict[bytes, int] = {}
    """Names that are whited out, and how many directories of the stack lie on that of the uppermost whiteout."""
    lists = []
    for above, (layer, directory) in enumerate(stack):
        lists.append(_listed(layers[layer], directory, above, layer))
        if above < len(stack) - 1:
            names = list(layers[layer].whiteouts(directory))
            if _OPAQUE_NAME in names:
                break
            for name in names:
                hidden.setdefault(name, above)
    last = None
    for listed in lists[0] if len(lists) == 1 else heapq.merge(*lists):
        name, above, *_ = listed
        # What a layer says of a name, a whiteout above all, is for the layers below it.
        if name != last and hidden.get(name, above) >= above:
            yield listed
        last = name


def _listed(index: LayerIndex, directory: int, above: int, layer: int) -> Iterator[_Listed]:
    for name, record, inode, mode, flags in index.listed(directory):
        if not flags & ONLY_WHITEOUTS and name[:4] != WHITEOUT:
            yield name, above, layer, record, inode, mode, flags


def _is_directory(layers: Sequence[LayerIndex], stack: Stack) -> bool:
    layer, record = stack[0]
    return layers[layer].is_directory(record)


class RootfsTree:
    """All layers merged.  A directory's number is that of the uppermost layer's record of it."""

    has_lazy = False

    def __init__(self, files: Sequence[LayerFiles], *, transform_symlinks: bool) -> None:
        """Merge the layers, the base first."""
        self._files = files
        self._layers = [layer.index for layer in files]
        self._transform = transform_symlinks
        self._root = root_stack(self._layers)
        self._short_listing = lru_cache(_LISTINGS)(self._list)
        self._stacks: dict[int, Stack] = {}
        self._linking = {number for number, index in enumerate(self._layers) if index.lower_links()}
        self._links: Counter[int] = Counter()
        """How many hard links from layers above are shown of a file."""
        for number in sorted(self._linking):
            self._follow_links(number)

    def _follow_links(self, number: int) -> None:
        index, dead = self._layers[number], []
        for record in index.lower_links():
            path = self._path(number, index.entry(record))
            target = self._target(number, path)
            if target:
                if _at(self._layers, path) == ((number, record),):
                    self._links[self._number(target)] += 1
            elif not path[-1].startswith(WHITEOUT):
                dead.append(path)
        if dead:
            text = "layer %d: skipped %d hard links to nothing; the first: %s"
            log.warning(text, number, len(dead), printable(b"/".join(dead[0])))

    def _target(self, number: int, path: Sequence[bytes]) -> Stack:
        """Return what a layer's link at *path* stands for; what lies above that layer does not matter."""
        layers, (*directories, name) = self._layers[: number + 1], path
        return find(layers, _at(layers, directories), name)

    def node(self, number: int) -> Node:
        """Return a node; a directory has the attributes of the uppermost layer that lists it."""
        layer, entry = self._entry(number)
        if stat.S_ISDIR(entry.mode):
            return Directory(attributes_of(self._explicit(number)[1]))
        node = self._files[layer].node(entry)
        if self._transform and isinstance(node, Symlink):
            layer = number >> _SHIFT  # of this name of it
            return inside(node, len(self._path(layer, self._layers[layer].entry(number & _RECORD))) - 1)
        return node

    def stat(self, number: int) -> Stat:
        """Return what stat(2) says of a node."""
        _, entry = self._entry(number)
        if entry.flags & IMPLICIT:
            _, entry = self._explicit(number)
        elif self._transform and stat.S_ISLNK(entry.mode):
            return stat_of(self.node(number))
        return stat_of_entry(entry)

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        layer, entry = self._entry(number)
        if stat.S_ISDIR(entry.mode):
            layer, entry = self._explicit(number)
        return self._layers[layer].xattrs(entry)

    def parent(self, number: int) -> int:
        """Return the directory that a directory is in."""
        layer, entry = self._entry(number)
        return self._number(self._stack((layer << _SHIFT) + entry.parent))

    def layer(self, number: int) -> int:
        """Return the layer that a node is from; a directory is from the uppermost that lists it."""
        layer, entry = self._entry(number)
        return self._explicit(number)[0] if stat.S_ISDIR(entry.mode) else layer

    def origins(self, number: int) -> Stack | None:
        """Return the layers and records that alone decide what a node is, and what is below it.

        None where others do as well: below a directory may be hard links into lower layers.
        """
        layer, entry = self._entry(number)
        if not stat.S_ISDIR(entry.mode):
            return ((layer, entry.record),)
        stack = self._stack((layer << _SHIFT) + entry.record)
        return None if any(above in self._linking for above, _ in stack) else stack

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the entry called *name*, None if it is not there."""
        here = self._stack(directory)
        stack = find(self._layers, here, name)
        if not stack:
            return None
        layer, record = stack[0]
        if self._transform and stat.S_ISLNK(self._layers[layer].entry(record).mode):
            stack = _found(self._layers, here, name)  # each name is a link of its own
        return self._number(stack)

    def size(self, directory: int) -> int:
        """Return about how many entries there are."""
        return sum(self._layers[layer].entry(record).entries for layer, record in self._stack(directory))

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return the entries to list, in the order of their names."""
        if self.size(directory) < LARGE:
            return self._short_listing(directory)
        return LongListing(self._entries(directory), self._name)

    def _list(self, directory: int) -> Sequence[tuple[bytes, int]]:
        stack = self._stack(directory)
        if len(stack) == 1 and not self._transform:  # the common case, nothing to merge, in a third of the time
            ((layer, record),) = stack
            entries = list(self._layers[layer].listed(record))
            if not any(flags & _SPECIAL for _, _, _, _, flags in entries):
                base = layer << _SHIFT
                return [(name, base + inode) for name, _, inode, _, _ in entries if name[:4] != WHITEOUT]
        return [(name, number) for name, _, number in self._entries(directory)]

    def _entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, key for `_name`, and number of the entries."""
        for name, _, layer, record, inode, mode, flags in merge(self._layers, self._stack(directory)):
            base = layer << _SHIFT
            if flags & LOWER_LINK:
                number = self.find(directory, name)
                if number is None:
                    continue
            else:  # a directory is its own inode: it has one name
                number = base + (record if self._transform and stat.S_ISLNK(mode) else inode)
            yield name, base + record, number

    def _name(self, key: int) -> bytes:
        return self._layers[key >> _SHIFT].name(key & _RECORD)

    def _entry(self, number: int) -> tuple[int, Entry]:
        if number == 0:
            layer, record = self._root[0]
        else:
            layer, record = number >> _SHIFT, number & _RECORD
        entry = self._layers[layer].entry(record)
        if entry.flags & LOWER_LINK:  # a name of a symbolic link
            ((layer, record),) = self._target(layer, self._path(layer, entry))
            entry = self._layers[layer].entry(record)
        elif number in self._links:
            entry = entry._replace(nlink=entry.nlink + self._links[number])
        return layer, entry

    def _number(self, stack: Stack) -> int:
        for layer, record in stack:
            if record == ROOT:
                return 0
            if not self._layers[layer].entry(record).flags & ONLY_WHITEOUTS:
                return (layer << _SHIFT) + record
        raise AssertionError(stack)

    def _stack(self, number: int) -> Stack:
        """Return the directories at a directory's path; as that may be very deep, there is no recursion."""
        stacks = self._stacks
        layer, record = number >> _SHIFT, number & _RECORD
        index = self._layers[layer]
        way = []
        while record != ROOT and (layer << _SHIFT) + record not in stacks:
            way.append(record)
            record = index.entry(record).parent
        stack = self._root if record == ROOT else stacks[(layer << _SHIFT) + record]
        if way and len(stacks) + len(way) > _STACKS:
            stacks = self._stacks = {}
        for record in reversed(way):
            number = (layer << _SHIFT) + record
            if len(stack) == 1:  # it is in the one layer that there is
                stack = stacks[number] = ((layer, record),)
            else:
                stack = stacks[number] = _found(self._layers, stack, index.name(record))
        return stack

    def _path(self, layer: int, entry: Entry) -> tuple[bytes, ...]:
        parts = []
        while entry.record != ROOT:
            parts.append(self._layers[layer].name(entry.record))
            entry = self._layers[layer].entry(entry.parent)
        return tuple(reversed(parts))

    def _explicit(self, number: int) -> tuple[int, Entry]:
        """Return the uppermost record of a directory that its layer lists, else the uppermost one."""
        layer, entry = self._entry(number)
        if not entry.flags & IMPLICIT:
            return layer, entry
        places = ((below, self._layers[below].entry(record)) for below, record in self._stack(number))
        return next((place for place in places if not place[1].flags & IMPLICIT), (layer, entry))
