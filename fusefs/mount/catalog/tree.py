"""The directories above the images of a catalog: names that come and go."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fusefs.mount.catalog.directory import ImageDirectory
from fusefs.mount.catalog.provider import Listed, Listing, Path
from fusefs.mount.inodes import ROOT
from fusefs.tree.node import Attributes, Directory, LazyDirectory, Node, Stat, Symlink, Tree, Xattrs, present, stat_of

_DIRECTORY = 0o555
_LINK = 0o777


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


_Folder = dict[bytes, "Listed | _Folder"]


class CatalogTree:
    """The tree of a catalog.  Used by the event loop's thread alone.

    A node keeps its number as long as the kernel refers to it, or the catalog lists it.  Then another node gets the
    number.  0 is the root; `ROOT` stands for it, too (see `Inodes`).
    """

    has_lazy = True

    def __init__(self, attributes: Attributes, xattrs: Xattrs, directory: Callable[[Listed], ImageDirectory]) -> None:
        """Start empty.  *directory* makes the tree of an image directory; the root has *xattrs*."""
        self._attributes = attributes
        self._xattrs = xattrs
        self._directory = directory
        self._links: Listing | None = None
        self._root: _Folder = {}
        root = CatalogNode(())
        self._nodes: dict[int, CatalogNode] = {0: root, ROOT: root}
        self._numbers: dict[object, int] = {root.identity: 0}
        self._lookups: dict[int, int] = {}
        """How many references the kernel has to a node."""
        self._free: list[int] = []
        self._gone: set[int] = set()
        """Nodes that `update` has returned: a second time, the name may be another node's."""

    def update(self, listing: Listing) -> list[tuple[int, bytes]]:
        """List other images; return parent and name of all nodes that the kernel knows and that are gone now."""
        root: _Folder = {}
        for listed in listing.images:
            _put(root, listed)
        self._root, self._links = root, listing
        gone = []
        for number, node in [*self._nodes.items()]:
            if not node.path or self._current(node):
                self._gone.discard(number)
                continue
            parent = self._numbers.get(CatalogNode(node.path[:-1]).identity)
            if self._lookups.get(number) and parent is not None and number not in self._gone:
                self._gone.add(number)
                gone.append((parent, node.path[-1]))
            elif not self._lookups.get(number):
                self._drop(number)
        return gone

    def _current(self, node: CatalogNode) -> bool:
        """Return whether a lookup of its name would lead to *node* now."""
        here = self._at(node.path[:-1])
        found = None if here is None else self._found(node.path[:-1], here, node.path[-1])
        return found is not None and found.identity == node.identity

    def _at(self, path: Path) -> _Folder | None:
        here = self._root
        for name in path:
            below = here.get(name)
            if not isinstance(below, dict):
                return None
            here = below
        return here

    def _found(self, path: Path, here: _Folder, name: bytes) -> CatalogNode | None:
        match here.get(name):
            case dict():
                return CatalogNode((*path, name))
            case Listed() as listed:
                return CatalogNode((*path, name), listed)
        target = None if self._links is None else self._links.link(path, name)
        return None if target is None else CatalogNode((*path, name), target=target)

    def number(self, node: CatalogNode) -> int:
        """Return the number of a node, a new one if it has none."""
        number = self._numbers.get(node.identity)
        if number is None:
            number = self._free.pop() if self._free else len(self._nodes) + len(self._free)
            self._nodes[number] = node
            self._numbers[node.identity] = number
        return number

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
        if number in self._nodes and not self._current(self._nodes[number]):
            self._drop(number)
        return True

    def _drop(self, number: int) -> None:
        node = self._nodes.pop(number)
        del self._numbers[node.identity]
        self._gone.discard(number)
        self._free.append(number)

    def is_folder(self, number: int) -> bool:
        """Return whether a node is a directory of names, and neither an image directory nor a link."""
        node = self._nodes.get(number)
        return node is not None and node.listed is None and node.target is None

    def named(self, directory: int) -> Sequence[tuple[bytes, CatalogNode]]:
        """Return names and nodes that are listed, sorted by name."""
        path = self._nodes[directory].path
        here = self._at(path) or {}
        return [
            (name, CatalogNode((*path, name), below if isinstance(below, Listed) else None))
            for name, below in sorted(here.items(), key=lambda entry: entry[0])
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
        return LazyDirectory(attributes, lambda: self._made(listed))

    def _made(self, listed: Listed) -> Tree:
        return self._directory(listed)

    def stat(self, number: int) -> Stat:
        """Return the stat result of a node."""
        return stat_of(self.node(number))

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node."""
        node = self.node(number)
        return present(node.xattrs) if isinstance(node, Directory) else ()

    def parent(self, number: int) -> int:
        """Return the parent directory of a node; the root, if that is gone."""
        path = self._nodes[number].path[:-1]
        return self._numbers.get(CatalogNode(path).identity, 0)

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the number of a name, listed or not; None if there is none."""
        path = self._nodes[directory].path
        here = self._at(path)
        found = None if here is None else self._found(path, here, name)
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


def _put(root: _Folder, listed: Listed) -> None:
    """Add an image directory; a name that is a directory of others, too, stays that."""
    here: Mapping[bytes, Listed | _Folder] = root
    for name in listed.path[:-1]:
        assert isinstance(here, dict)
        below = here.setdefault(name, {})
        if not isinstance(below, dict):
            below = here[name] = {}
        here = below
    assert isinstance(here, dict)
    here.setdefault(listed.path[-1], listed)
