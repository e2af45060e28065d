"""Inode numbers for the nodes of a tree."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fusefs.tree import Directory, LazyDirectory, Node

ROOT = 1
"""The root's number, which FUSE fixes."""

_SHIFT = 32
"""An entry of a lazy directory has the directory's number above this bit and its own place below."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A node with its number and its parent's, and for a directory those of its entries."""

    number: int
    node: Node
    parent: int
    entries: Mapping[bytes, int]
    listed: int
    """How many of the entries, the first ones, a listing shows."""


class Inodes:
    """The nodes below a root by their numbers.

    A number depends on the tree's shape alone and stays good however often it is forgotten.  Used
    by one thread: `add` puts in what others have made.
    """

    def __init__(self, root: Directory) -> None:
        """Give numbers to all that is known of the tree below *root*, breadth first."""
        self._nodes: dict[int, Numbered] = {}
        queue: list[tuple[Node, int]] = [(root, ROOT)]
        for number, (node, parent) in enumerate(queue, ROOT):  # the queue grows while it is walked
            entries: dict[bytes, int] = {}
            listed = 0
            if isinstance(node, Directory):
                for name, child in (*node.entries.items(), *node.unlisted.items()):
                    queue.append((child, number))
                    entries[name] = len(queue)
                listed = len(node.entries)
            self._nodes[number] = Numbered(number, node, parent, entries, listed)

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Numbered]:
        return iter(self._nodes.values())

    def get(self, number: int) -> Numbered | None:
        """Return the node with this number, None if it is nobody's."""
        return self._nodes.get(number)

    def waits(self, item: Numbered) -> bool:
        """Return whether the entries of *item* are still to be made."""
        return isinstance(item.node, LazyDirectory) and not item.entries

    def add(self, number: int, entries: Mapping[bytes, Node]) -> Numbered:
        """Give numbers to the *entries* that were made for the lazy directory *number*, and return it with them."""
        empty = self._nodes[number]
        numbers = {name: (number << _SHIFT) + place for place, name in enumerate(entries)}
        for name, node in entries.items():
            self._nodes[numbers[name]] = Numbered(numbers[name], node, number, {}, 0)
        filled = Numbered(number, empty.node, empty.parent, numbers, len(numbers))
        self._nodes[number] = filled
        return filled
