"""The directories above the images of a catalog: names that come and go."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from fusefs.errors import ImgfsError
from fusefs.mount.catalog.directory import ImageDirectory, error_xattrs
from fusefs.mount.catalog.provider import Folder, Link, Listed, Path, Provider
from fusefs.mount.inodes import ROOT
from fusefs.tree.node import Attributes, Directory, LazyDirectory, Node, Stat, Symlink, Tree, Xattrs, present, stat_of

_LINK = 0o777
_TURN = 256
"""Nodes that are checked before others have their turn."""


class CatalogNode(NamedTuple):
    """A directory, an image directory, or an unlisted symbolic link.  Two that are equal are the same node."""

    path: Path
    listed: Listed | None = None
    """The image, whose key is part of the node: a name that moves to another image is another node."""
    target: bytes | None = None
    """Of a symbolic link."""

    @property
    def identity(self) -> tuple[Path, str | None, bytes | None]:
        """What makes it the same node, whatever else is known of the image."""
        return self.path, self.listed and self.listed.key, self.target


class CatalogTree:
    """The tree of a catalog.  Used by the event loop's thread alone.

    A node keeps its number as long as the kernel refers to it, or the catalog lists it.  Then another node gets the
    number, with the next generation.  0 is the root; `ROOT` stands for it, too (see `Inodes`).
    """

    has_lazy = True

    def __init__(
        self,
        attributes: Attributes,
        xattrs: Xattrs,
        directory: Callable[[Listed], ImageDirectory],
        provider: Provider,
    ) -> None:
        """Show the names of *provider*.  *directory* makes the tree of an image directory; the root has *xattrs*."""
        self._attributes = attributes
        self._xattrs = xattrs
        self._directory = directory
        self._provider = provider
        root = CatalogNode(())
        self._nodes: dict[int, CatalogNode] = {0: root, ROOT: root}
        self._numbers: dict[object, int] = {root.identity: 0}
        self._below: dict[Path, set[int]] = {}
        """The numbers of the known nodes in each directory."""
        self._lookups: dict[int, int] = {}
        """How many references the kernel has to a node."""
        self._free: list[int] = []
        self._generations: dict[int, int] = {}
        """How many nodes had a number before, of numbers that were used again."""
        self._gone: set[int] = set()
        """Nodes that `gone` has returned: a second time, the name may be another node's."""

    def gone(self, folders: Iterable[Path] | None) -> Iterator[tuple[int, bytes] | None]:
        """Yield parent and name of all nodes in *folders* (None: in all) that the kernel knows and that are gone now.

        None stands for a moment in which others may have their turn, and the tree may change.
        """
        numbers = [*self._nodes] if folders is None else [at for path in folders for at in self._below.get(path, ())]
        for turn, number in enumerate(numbers, 1):
            if not turn % _TURN:
                yield None
            node = self._nodes.get(number)
            if node is None:
                continue
            if not node.path or self._is_current(node):
                self._gone.discard(number)
                continue
            parent = self._numbers.get(CatalogNode(node.path[:-1]).identity)
            if not self._lookups.get(number):
                self._drop(number)
            elif parent is not None and number not in self._gone:
                self._gone.add(number)
                yield parent, node.path[-1]

    def lingering(self, image_names: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        """Yield parent and name of all that is below nodes that are gone; *image_names* are below each image."""
        for number in [*self._gone]:
            node = self._nodes.get(number)
            if node is None or number not in self._gone:
                continue
            if node.listed is not None:
                for name in image_names:
                    yield number, name
            else:
                for below in [*self._below.get(node.path, ())]:
                    if below in self._nodes:
                        yield number, self._nodes[below].path[-1]

    def _is_current(self, node: CatalogNode) -> bool:
        """Return whether a lookup of its name would lead to *node* now, as far as that is known."""
        try:
            found = self._found(node.path[:-1], node.path[-1])
        except ImgfsError:
            return True
        return found is not None and found.identity == node.identity

    def _found(self, path: Path, name: bytes) -> CatalogNode | None:
        match self._provider.names.find(path, name):
            case Folder():
                return CatalogNode((*path, name))
            case Listed() as listed:
                return CatalogNode((*path, name), listed)
            case Link(target):
                return CatalogNode((*path, name), target=target)
        return None

    def path(self, number: int) -> Path:
        """Return the path of a node."""
        return self._nodes[number].path

    def number(self, node: CatalogNode) -> int:
        """Return the number of a node, a new one if it has none."""
        number = self._numbers.get(node.identity)
        if number is None:
            number = self._free.pop() if self._free else len(self._nodes) + len(self._free)
            self._nodes[number] = node
            self._numbers[node.identity] = number
            self._below.setdefault(node.path[:-1], set()).add(number)
        return number

    def generation(self, number: int) -> int:
        """Return how many other nodes had the number of a node before."""
        return self._generations.get(number, 0)

    def looked_up(self, number: int) -> None:
        """Count one more reference of the kernel."""
        if number > ROOT:
            self._lookups[number] = self._lookups.get(number, 0) + 1

    def forget(self, number: int, count: int) -> bool:
        """Count *count* references less; return whether none is left."""
        if number <= ROOT:
            return False
        left = self._lookups.get(number, 0) - count
        if left > 0:
            self._lookups[number] = left
            return False
        self._lookups.pop(number, None)
        node = self._nodes.get(number)
        if node is not None:
            is_listed = self._provider.names.is_listed(node.path[:-1], node.path[-1])
            if not (is_listed and self._is_current(node)):
                self._drop(number)
        return True

    def _drop(self, number: int) -> None:
        node = self._nodes.pop(number)
        del self._numbers[node.identity]
        below = self._below[node.path[:-1]]
        below.discard(number)
        if not below:
            del self._below[node.path[:-1]]
        self._gone.discard(number)
        self._generations[number] = self._generations.get(number, 0) + 1
        self._free.append(number)

    def is_folder(self, number: int) -> bool:
        """Return whether a node is a directory of names, and neither an image directory nor a link."""
        node = self._nodes.get(number)
        return node is not None and node.listed is None and node.target is None

    def named(self, directory: int) -> Sequence[tuple[bytes, CatalogNode]]:
        """Return names and nodes that are listed, sorted by name."""
        path = self._nodes[directory].path
        listed = self._provider.names.listed(path)
        return [
            (name, CatalogNode((*path, name), below if isinstance(below, Listed) else None))
            for name, below in sorted(listed.items(), key=lambda entry: entry[0])
        ]

    def settling(self, directory: int, name: bytes | None) -> None:
        """Return None: new names come with a new listing."""

    def node(self, number: int) -> Node:
        """Return a node."""
        node = self._nodes[number]
        if node.target is not None:
            return Symlink(self._attributes._replace(permissions=_LINK), node.target)
        listed = node.listed
        if listed is None:
            return Directory(self._attributes, xattrs=() if node.path else self._xattrs)
        attributes = self._attributes._replace(mtime_ns=listed.created_ns)
        return LazyDirectory(attributes, lambda: self._made(listed), settled=bool(listed.created_ns))

    def _made(self, listed: Listed) -> Tree:
        return self._directory(listed)

    def stat(self, number: int) -> Stat:
        """Return the stat result of a node."""
        return stat_of(self.node(number))

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        node = self.node(number)
        if not isinstance(node, Directory):
            return ()
        return present((*node.xattrs, *error_xattrs(self._provider.names.error(self.path(number)))))

    def parent(self, number: int) -> int:
        """Return the parent directory of a node; the root, if that is gone."""
        path = self._nodes[number].path[:-1]
        return self._numbers.get(CatalogNode(path).identity, 0)

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the number of a name, listed or not; None if there is none."""
        found = self._found(self._nodes[directory].path, name)
        return None if found is None else self.number(found)

    def size(self, directory: int) -> int:
        """Return 0: a listing never needs a thread."""
        del directory
        return 0

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:
        """Return names and numbers, sorted by name."""
        return [(name, self.number(node)) for name, node in self.named(directory)]

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, number and mode of the listed entries."""
        for name, number in self.listing(directory):
            yield name, number, self.stat(number).mode
