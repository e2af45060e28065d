"""The merged layers: what a container would see.

Rules: OCI image specification, "Representing Changes" and "Applying Changesets".  A directory of the
merge is the layers' directories that lie on each other at one path, the uppermost first; everything
is derived from these, one directory at a time.
"""

import stat
from collections.abc import Iterable, Sequence
from functools import lru_cache

from fusefs.layerindex import IMPLICIT, LOWER_LINK, OPAQUE, ROOT, WHITEOUT, Entry, LayerIndex
from fusefs.layertree import LayerFiles, attributes_of, relative
from fusefs.tree import Directory, Node, Symlink

_SHIFT = 32
"""A node's number: its layer above this bit, its record below."""
_LISTINGS = 64
_STACKS = 4096
"""Directories whose layers are kept in memory."""

Stack = tuple[tuple[int, int], ...]
"""Directories on each other, or one file: layer and record, the uppermost first."""


def root_stack(layers: Sequence[LayerIndex]) -> Stack:
    """Return the roots of all *layers*, as far down as none is opaque."""
    return _visible(layers, [(number, ROOT) for number in reversed(range(len(layers)))])


def find(layers: Sequence[LayerIndex], stack: Stack, name: bytes) -> Stack:
    """Return what is called *name* in the directory *stack*, empty if nothing is.

    A file hides what lies below it; so does a whiteout in a layer, but not what the same layer has.
    """
    found: list[tuple[int, int]] = []
    for layer, directory in stack:
        index = layers[layer]
        record = index.find(directory, name)
        if record is not None:
            if not index.is_directory(record):
                if not found:
                    return _followed(layers, layer, record)
                break
            found.append((layer, record))
        if index.find(directory, WHITEOUT + name) is not None:
            break
    return _visible(layers, found)


def merge(layers: Sequence[LayerIndex], stack: Stack) -> dict[bytes, tuple[int, Entry]]:
    """Return all that is in the directory *stack* by name: the uppermost layer and its record of each.

    The same rules as those of `find`, for a whole directory at once.
    """
    merged: dict[bytes, tuple[int, Entry]] = {}
    hidden: set[bytes] = set()
    for layer, directory in stack:
        whiteouts = []
        for name, entry in layers[layer].children(directory):
            if name.startswith(WHITEOUT):
                whiteouts.append(name.removeprefix(WHITEOUT))
            elif name not in hidden and name not in merged:
                merged[name] = (layer, entry)
        # What this layer says of a name, a whiteout above all, is for the layers below it.
        hidden.update(whiteouts)
    return merged


def _visible(layers: Sequence[LayerIndex], found: Iterable[tuple[int, int]]) -> Stack:
    """Return the directories down to the first opaque one."""
    stack = []
    for layer, record in found:
        stack.append((layer, record))
        if layers[layer].find(record, OPAQUE) is not None:
            break
    return tuple(stack)


def _followed(layers: Sequence[LayerIndex], layer: int, record: int) -> Stack:
    """Return the file that a record stands for: a hard link into a lower layer is what is at that path there."""
    entry = layers[layer].entry(record)
    if not entry.flags & LOWER_LINK:
        return ((layer, entry.inode),)
    lower = layers[:layer]
    stack = root_stack(lower)
    for part in layers[layer].text(entry).split(b"/"):
        if not stack or not _is_directory(layers, stack):
            return ()
        stack = find(lower, stack, part)
    return () if not stack or _is_directory(layers, stack) else stack


def _is_directory(layers: Sequence[LayerIndex], stack: Stack) -> bool:
    layer, record = stack[0]
    return layers[layer].is_directory(record)


class RootfsTree:
    """All layers merged.  A directory's number is that of the uppermost layer's record of it."""

    def __init__(self, files: Sequence[LayerFiles], *, transform_symlinks: bool) -> None:
        """Merge the layers, the base first."""
        self._files = files
        self._layers = [layer.index for layer in files]
        self._transform = transform_symlinks
        self._root = root_stack(self._layers)
        self.listing = lru_cache(_LISTINGS)(self._listing)
        self._stacks: dict[tuple[bytes, ...], Stack] = {(): self._root}

    def node(self, number: int) -> Node:
        """Return a node; a directory has the attributes of the uppermost layer that lists it."""
        layer, entry = self._entry(number)
        if stat.S_ISDIR(entry.mode):
            return Directory(attributes_of(self._explicit(number)[1]))
        node = self._files[layer].node(entry)
        if self._transform and isinstance(node, Symlink):
            return Symlink(node.attributes, relative(node.target, len(self._path(layer, entry)) - 1))
        return node

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        layer, entry = self._entry(number)
        if stat.S_ISDIR(entry.mode):
            layer, entry = self._explicit(number)
        return self._layers[layer].xattrs(entry)

    def parent(self, number: int) -> int:
        """Return the directory that a directory is in."""
        layer, entry = self._entry(number)
        return self._number(self._stack_at(self._path(layer, entry)[:-1]))

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the entry called *name*, None if it is not there."""
        if name.startswith(WHITEOUT):
            return None
        stack = find(self._layers, self._stack(directory), name)
        return self._number(stack) if stack else None

    def _listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        listing = []
        for name, (layer, entry) in merge(self._layers, self._stack(directory)).items():
            if entry.flags & LOWER_LINK:
                if stack := _followed(self._layers, layer, entry.record):
                    listing.append((name, self._number(stack)))
            else:
                # A directory is its own inode: it has one name.
                listing.append((name, (layer << _SHIFT) + entry.inode))
        return listing

    def _entry(self, number: int) -> tuple[int, Entry]:
        if number == 0:
            layer, record = self._root[0]
        else:
            layer, record = number >> _SHIFT, number & (1 << _SHIFT) - 1
        return layer, self._layers[layer].entry(record)

    def _number(self, stack: Stack) -> int:
        if stack[0][1] == ROOT:
            return 0
        return (stack[0][0] << _SHIFT) + stack[0][1]

    def _stack(self, number: int) -> Stack:
        return self._root if number == 0 else self._stack_at(self._path(*self._entry(number)))

    def _path(self, layer: int, entry: Entry) -> tuple[bytes, ...]:
        parts = []
        while entry.record != ROOT:
            parts.append(self._layers[layer].name(entry.record))
            entry = self._layers[layer].entry(entry.parent)
        return tuple(reversed(parts))

    def _stack_at(self, path: tuple[bytes, ...]) -> Stack:
        """Return the directories at *path*; as it may be very deep, there is no recursion."""
        known = len(path)
        while path[:known] not in self._stacks:
            known -= 1
        stack = self._stacks[path[:known]]
        for depth in range(known, len(path)):
            stack = find(self._layers, stack, path[depth])
            if len(self._stacks) >= _STACKS:
                self._stacks = {(): self._root}
            self._stacks[path[: depth + 1]] = stack
        return stack

    def _explicit(self, number: int) -> tuple[int, Entry]:
        """Return the uppermost record of a directory that its layer lists, else the uppermost one."""
        layer, entry = self._entry(number)
        if not entry.flags & IMPLICIT:
            return layer, entry
        places = ((below, self._layers[below].entry(record)) for below, record in self._stack(number))
        return next((place for place in places if not place[1].flags & IMPLICIT), (layer, entry))
