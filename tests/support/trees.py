"""Checks of trees of layers."""

from collections.abc import Sequence
from unittest.mock import patch

from fusefs.layers.diff import Side
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles
from fusefs.tree.listing import LongListing
from fusefs.tree.node import Directory, Tree
from fusefs.tree.walk import resolve
from tests.support.builders import CREATED_NS
from tests.support.changesets import numbers


def check_directories(tree: Tree) -> None:
    """Assert that listing, lookup and parent agree in every directory of *tree*."""
    found = numbers(tree)
    names = {path.rpartition(b"/")[2] for path in found} - {b""}
    for path, number in found.items():
        node = tree.node(number)
        if not isinstance(node, Directory):
            continue
        listing = tree.listing(number)
        assert tree.listing(number) == listing == sorted(listing)
        with patch("fusefs.layers.tree.LARGE", 0), patch("fusefs.layers.rootfs.LARGE", 0):
            long = tree.listing(number)
        assert isinstance(long, LongListing)
        assert (len(long), long[:], list(long)) == (len(listing), listing, listing)
        assert {name: tree.find(number, name) for name in names} == dict.fromkeys(names) | dict(listing)
        assert tree.parent(number) == found[path.rpartition(b"/")[0]]


def side(
    files: Sequence[LayerFiles], layers: Sequence[bytes], path: bytes = b"/", created_ns: int = CREATED_NS
) -> Side:
    """Return *path* in the merged *layers* of an image of that time, indexed as *files*, as a side of a comparison."""
    tree = RootfsTree(files, transform_symlinks=False)
    return Side(tree, layers, created_ns, resolve(tree, path))
