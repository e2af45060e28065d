"""Inode numbers for the nodes of a tree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusefs.tree import Directory, Node

ROOT = 1
"""The root's number, which FUSE fixes."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A node with its number and, for a directory, those of its parent and its entries in order."""

    number: int
    node: Node
    parent: int
    entries: Mapping[bytes, int]


def number_tree(root: Directory) -> Sequence[Numbered | None]:
    """Return the nodes below *root*, each at the index that is its number; 0 is nobody's.

    The numbers depend on the tree's shape alone.  The result never changes, so that any number of
    requests may use it at the same time, and a number stays good however often it is forgotten.
    """
    queue: list[tuple[Node, int]] = [(root, ROOT)]
    table: list[Numbered | None] = [None]
    for node, parent in queue:  # grows while it is walked: breadth first
        entries: dict[bytes, int] = {}
        if isinstance(node, Directory):
            for name, child in node.entries.items():
                queue.append((child, len(table)))
                entries[name] = len(queue)
        table.append(Numbered(len(table), node, parent, entries))
    return table
