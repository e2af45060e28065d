"""The merged layers of an image whose layers are fetched: a lookup asks for a lower layer only if it may decide."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from fusefs.content.protocol import Literal
from fusefs.layers.index import LayerIndex
from fusefs.layers.needed import Need, NeededLayers, Question
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles
from fusefs.tree.node import Node, Stat


class FetchedStack(NamedTuple):
    """The layers of an image, each of which may have to be fetched."""

    layers: Sequence[Callable[[], LayerFiles]]
    """Each returns the files of one layer; the base first."""
    all_files: Callable[[], Sequence[LayerFiles]]
    """Returns the files of all layers, several fetched at the same time."""
    more_needed: Callable[[], None] = lambda: None
    """Called when the uppermost layer does not decide."""
    complete: Callable[[], None] = lambda: None
    """Called when all layers are known."""


class TopDownRootfs:
    """All layers merged, known from the top down.  Numbers of nodes are those of `RootfsTree` with all layers.

    Until all layers are known, only nodes that `settling` has settled are right, and the root's attributes may change.
    Safe under concurrency: `_growing` is held while layers are fetched; `_tree` is replaced at once.
    """

    has_lazy = False

    def __init__(self, stack: FetchedStack, created_ns: int, *, transform_symlinks: bool) -> None:
        """Merge the layers of *stack*.  Directories that no layer lists have the time *created_ns*."""
        self._stack = stack
        self._transform = transform_symlinks
        self._growing = threading.Lock()
        self._unknown = _empty_layer(created_ns)
        self._known: tuple[LayerFiles, ...] = ()
        """The files of the uppermost layers, the lowest of these first."""
        self._tree = self._merged(())

    def _merged(self, known: tuple[LayerFiles, ...]) -> RootfsTree:
        below = [self._unknown] * (len(self._stack.layers) - len(known))
        return RootfsTree([*below, *known], transform_symlinks=self._transform)

    def _is_growing(self) -> bool:
        return len(self._known) < len(self._stack.layers)

    def settling(self, directory: int, name: bytes | None) -> Callable[[], None] | None:
        """Return what makes the layers known that decide on *name* in *directory*; with None, on all names."""
        if not self._is_growing() or self._need(directory, name) is Need.NONE:
            return None
        return partial(self._settle, directory, name)

    def _settle(self, directory: int, name: bytes | None) -> None:
        with self._growing:
            while (need := self._need(directory, name)) is not Need.NONE:
                if self._known:
                    self._stack.more_needed()
                known = None if need is Need.ALL else (self._stack.layers[-1 - len(self._known)](), *self._known)
                # Without the targets of its links into lower layers, a layer would be merged as if they were dead.
                if known is None or known[0].index.lower_links():
                    known = tuple(self._stack.all_files())
                self._grow(known)

    def _grow(self, known: tuple[LayerFiles, ...]) -> None:
        tree = self._merged(known)
        self._tree, self._known = tree, known
        if not self._is_growing():
            self._stack.complete()

    def _need(self, directory: int, name: bytes | None) -> Need:
        """Return what is needed to decide on *name* in *directory*."""
        tree, known = self._tree, self._known
        if len(known) == len(self._stack.layers):
            return Need.NONE
        if name is None:
            return Need.ALL
        if not known:
            return Need.NEXT
        needed = NeededLayers([Question(b"/".join((*tree.path(directory), name)), follow=False, names=False)])
        needs = [needed.add(files.index) for files in reversed(known)]
        return Need.ALL if Need.ALL in needs else needs[-1]

    def node(self, number: int) -> Node:
        """Return a node."""
        return self._tree.node(number)

    def stat(self, number: int) -> Stat:
        """Return the stat result of a node."""
        return self._tree.stat(number)

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        return self._tree.xattrs(number)

    def parent(self, number: int) -> int:
        """Return the parent directory of a directory."""
        return self._tree.parent(number)

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the node called *name*, None if there is none; settled before."""
        return self._tree.find(directory, name)

    def size(self, directory: int) -> int:
        """Return about how many names a directory has; settled before, as for both listings."""
        return self._tree.size(directory)

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return the names to list with their nodes."""
        return self._tree.listing(directory)

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Return name, node and mode of all names to show."""
        return self._tree.entries(directory)


def _empty_layer(created_ns: int) -> LayerFiles:
    """Return a layer of nothing, in the place of one that is not known."""
    from fusefs.layers.indexer import LayerIndexer  # noqa: PLC0415 - a mount starts faster without it

    descriptor = os.memfd_create("empty", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            LayerIndexer(*divmod(created_ns, 10**9)).write(file)
        return LayerFiles(LayerIndex(descriptor), Literal(b""))
    finally:
        os.close(descriptor)
