"""The merged layers: the root file system of a container.

Rules: OCI image specification, "Representing Changes" and "Applying Changesets".  A directory of the
merge is a stack: the layers' directories at one path, the uppermost first; everything is derived from
the stacks, one directory at a time.
"""

import heapq
import logging
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from fusefs.layers.index import LayerIndex
from fusefs.layers.record import IMPLICIT, LOWER_LINK, OPAQUE, ROOT, WHITEOUT, Record
from fusefs.layers.tree import LayerFiles, attributes_of, inside, stat_of_record
from fusefs.text import printable
from fusefs.tree.listing import LARGE, LongListing
from fusefs.tree.node import Directory, Node, Stat, Symlink, stat_of

log = logging.getLogger(__name__)

_SHIFT = 32
"""A node's number: its layer above this bit, its record below."""
_RECORD = (1 << _SHIFT) - 1
_OPAQUE_NAME = OPAQUE.removeprefix(WHITEOUT)
_LISTINGS = 16
_MAX_LINKS, _MAX_STEPS = 40, 255
"""Symbolic links that are followed for one hard link, and how many components these may have together."""
_STACKS = 4096
"""Directories whose stacks are held in memory."""

Stack = tuple[tuple[int, int], ...]
"""Directories at one path, or one file: layer and record, the uppermost first.

Directories below an opaque one still lend it attributes, as in umoci, but no names, and nothing to what is
below it.  An implicit directory is a directory like any other, even with nothing but whiteouts below: engines
make it when they unpack the layer, so that it replaces a file or symbolic link of a lower layer.
"""


def root_stack(layers: Sequence[LayerIndex]) -> Stack:
    """Return the roots of all *layers*."""
    return tuple((number, ROOT) for number in reversed(range(len(layers))))


def find(layers: Sequence[LayerIndex], stack: Stack, name: bytes) -> Stack:
    """Return the stack called *name* in the directory *stack*, empty if there is no such name.

    A file hides the layers below its own.  So does a whiteout, which does not hide names of its own layer.
    """
    linked = False
    while found := _found(layers, stack, name):
        layer, number = found[0]
        record = layers[layer].record(number)
        if not record.flags & LOWER_LINK:
            if stat.S_ISDIR(record.mode):
                return () if linked else found
            return ((layer, record.inode),)
        # A hard link into a lower layer is the file at that path there.  In a loop: that may be such a link as well.
        path = layers[layer].text(record).split(b"/")
        layers, layers_and_own = layers[:layer], layers[: layer + 1]
        stack, through_link = _directory(layers, path[:-1])
        name = path[-1]
        if through_link and not _found(layers, stack, name):
            return _own_file(layers_and_own, path)
        linked = True
    return ()


def _own_file(layers: Sequence[LayerIndex], path: Sequence[bytes]) -> Stack:
    """Return the file of the uppermost layer at *path*, which leads there through a link of a lower layer."""
    stack, _ = _directory(layers, path[:-1])
    found = _found(layers, stack, path[-1])
    if not found:
        return ()
    layer, number = found[0]
    record = layers[layer].record(number)
    return () if record.flags & LOWER_LINK or stat.S_ISDIR(record.mode) else ((layer, record.inode),)


def _directory(layers: Sequence[LayerIndex], path: Iterable[bytes]) -> tuple[Stack, bool]:
    """Return the directory at *path*, and whether it leads through symbolic links; an empty stack if there is none.

    Engines refuse a hard link to a file that its layer does not have; umoci resolves it as here.
    """
    way = [root_stack(layers)]
    rest = list(path)[::-1]
    links = steps = 0
    while rest:
        part = rest.pop()
        if part == b"..":
            del way[max(1, len(way) - 1) :]
            continue
        found = _found(layers, way[-1], part)
        if not found:
            return (), links > 0
        layer, number = found[0]
        record = layers[layer].record(number)
        if stat.S_ISDIR(record.mode):
            way.append(found)
            continue
        target = layers[layer].text(record)
        parts = [name for name in target.split(b"/") if name not in (b"", b".")]
        links, steps = links + 1, steps + len(parts)
        if not stat.S_ISLNK(record.mode) or links > _MAX_LINKS or steps > _MAX_STEPS:
            return (), links > 0
        if target.startswith(b"/"):
            del way[1:]
        rest += reversed(parts)
    return way[-1], links > 0


def _found(layers: Sequence[LayerIndex], stack: Stack, name: bytes) -> Stack:
    """Return the directories or the one file called *name*, links not followed."""
    found: list[tuple[int, int]] = []
    lowest, _ = stack[-1] if stack else (0, 0)
    for layer, directory in stack:
        index = layers[layer]
        number = index.find(directory, name)
        if number is not None and index.is_shown(number, name):
            record = index.record(number)
            if not stat.S_ISDIR(record.mode):
                return tuple(found) or ((layer, number),)
            found.append((layer, number))
        if layer == lowest:  # whiteouts of the lowest layer hide nothing
            break
        if index.has_marker(directory, WHITEOUT + name) or index.has_marker(directory, OPAQUE):
            break
    return tuple(found)


def _at(layers: Sequence[LayerIndex], path: Iterable[bytes]) -> Stack:
    """Return the stack at *path*, links not followed."""
    stack = root_stack(layers)
    for part in path:
        stack = _found(layers, stack, part)
    return stack


_Listed = tuple[bytes, int, int, int, int, int, int]
"""Of a name: itself, number of directories above its own in the stack, layer, record, inode, mode and flags."""


def merge(layers: Sequence[LayerIndex], stack: Stack) -> Iterator[_Listed]:
    """Yield the names in the directory *stack* in their order, with the uppermost layer's record of each.

    The rules of `find`, for a whole directory at once.
    """
    hidden: dict[bytes, int] = {}
    """Names with a whiteout, and the number of directories above that of the uppermost whiteout."""
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
        # A whiteout hides names of the layers below its own only.
        if name != last and hidden.get(name, above) >= above:
            yield listed
        last = name


def _listed(index: LayerIndex, directory: int, above: int, layer: int) -> Iterator[_Listed]:
    for name, number, inode, mode, flags in index.listed(directory):
        if name[:4] != WHITEOUT or index.is_shown(number, name):
            yield name, above, layer, number, inode, mode, flags


class RootfsTree:
    """All layers merged.  A directory's number is that of its record in the uppermost layer."""

    has_lazy = False

    def __init__(self, files: Sequence[LayerFiles], *, transform_symlinks: bool) -> None:
        """Merge the layers *files*, the base first."""
        self.files = files
        self._layers = [layer.index for layer in files]
        self.transform_symlinks = transform_symlinks
        self._root = root_stack(self._layers)
        self._short_listing = lru_cache(_LISTINGS)(self._list)
        self._stacks: dict[int, Stack] = {}
        self._linking = {number for number, index in enumerate(self._layers) if index.lower_links()}
        self._links: Counter[int] = Counter()
        """Number of hard links from upper layers to a file."""
        for number in sorted(self._linking):
            self._follow_links(number)

    @property
    def shared_names(self) -> Collection[int]:
        """Nodes whose number of links counts names in other layers."""
        return self._links

    def _follow_links(self, number: int) -> None:
        index, dead = self._layers[number], []
        for at in index.lower_links():
            path = self._path(number, index.record(at))
            target = self._target(number, path)
            if target:
                if _at(self._layers, path) == ((number, at),):
                    self._links[self._number(target)] += 1
            elif not path[-1].startswith(WHITEOUT):
                dead.append(path)
        if dead:
            text = "layer %d: skipped %d hard links to nothing; the first: %s"
            log.warning(text, number, len(dead), printable(b"/".join(dead[0])))

    def _target(self, number: int, path: Sequence[bytes]) -> Stack:
        """Return the file that a layer's hard link at *path* leads to; layers above that one do not matter."""
        layers, (*directories, name) = self._layers[: number + 1], path
        return find(layers, _at(layers, directories), name)

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
        return self._number(self._stack((layer << _SHIFT) + record.parent))

    def layer(self, number: int) -> int:
        """Return the layer of a node; of a directory the uppermost that lists it."""
        layer, record = self._record(number)
        return self._explicit(number)[0] if stat.S_ISDIR(record.mode) else layer

    def origins(self, number: int) -> Stack | None:
        """Return the layers and records that alone determine a node and all nodes below it.

        None if others do as well: below a directory there may be hard links into lower layers.
        """
        layer, record = self._record(number)
        if not stat.S_ISDIR(record.mode):
            return ((layer, record.number),)
        stack = self._stack((layer << _SHIFT) + record.number)
        return None if any(above in self._linking for above, _ in stack) else stack

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the node called *name*, None if there is no such node."""
        here = self._stack(directory)
        stack = find(self._layers, here, name)
        if not stack:
            return None
        layer, at = stack[0]
        if self.transform_symlinks and stat.S_ISLNK(self._layers[layer].record(at).mode):
            stack = _found(self._layers, here, name)  # each name is a link of its own
        return self._number(stack)

    def size(self, directory: int) -> int:
        """Return about how many names a directory has."""
        return sum(self._layers[layer].record(at).children for layer, at in self._stack(directory))

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return the names to list with their nodes, in the order of the names."""
        if self.size(directory) < LARGE:
            return self._short_listing(directory)
        return LongListing(self._named(directory), self._name)

    def _list(self, directory: int) -> Sequence[tuple[bytes, int]]:
        stack = self._stack(directory)
        if len(stack) == 1 and not self.transform_symlinks:  # the common case, nothing to merge, in a third of the time
            ((layer, at),) = stack
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
        """Yield name, node and mode of all names to show, in their order."""
        stack = self._stack(directory)
        if len(stack) > 1 or self.transform_symlinks or stack[0][0] in self._linking:
            for name, _, number, mode in self._shown(directory):
                yield name, number, mode
            return
        ((layer, at),) = stack  # the common case, nothing to merge, in half the time
        index, base = self._layers[layer], layer << _SHIFT
        for name, number, inode, mode, _ in index.listed(at):
            if name[:4] != WHITEOUT or index.is_shown(number, name):
                yield name, base + inode, mode

    def _named(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, key for `_name`, and node of each name."""
        for name, key, number, _ in self._shown(directory):
            yield name, key, number

    def _shown(self, directory: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield name, key for `_name`, node and mode of each name."""
        for name, _, layer, at, inode, mode, flags in merge(self._layers, self._stack(directory)):
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
            layer, at = self._root[0]
        else:
            layer, at = number >> _SHIFT, number & _RECORD
        record = self._layers[layer].record(at)
        if record.flags & LOWER_LINK:  # a name of a symbolic link
            ((layer, at),) = self._target(layer, self._path(layer, record))
            record = self._layers[layer].record(at)
        elif number in self._links:
            record = record._replace(nlink=record.nlink + self._links[number])
        return layer, record

    def _number(self, stack: Stack) -> int:
        layer, at = stack[0]
        return 0 if at == ROOT else (layer << _SHIFT) + at

    def _stack(self, number: int) -> Stack:
        """Return the stack of a directory, without recursion: its path may be very deep."""
        stacks = self._stacks
        layer, at = number >> _SHIFT, number & _RECORD
        index = self._layers[layer]
        way = []
        while at != ROOT and (layer << _SHIFT) + at not in stacks:
            way.append(at)
            at = index.record(at).parent
        stack = self._root if at == ROOT else stacks[(layer << _SHIFT) + at]
        if way and len(stacks) + len(way) > _STACKS:
            stacks = self._stacks = {}
        for at in reversed(way):
            number = (layer << _SHIFT) + at
            if len(stack) == 1:  # only one layer has the directory
                stack = stacks[number] = ((layer, at),)
            else:
                stack = stacks[number] = _found(self._layers, stack, index.name(at))
        return stack

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
        places = ((below, self._layers[below].record(at)) for below, at in self._stack(number))
        return next((place for place in places if not place[1].flags & IMPLICIT), (layer, record))
