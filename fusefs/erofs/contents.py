"""The contents of a view, in the order in which their files are the devices of its metadata."""

from collections.abc import Iterator

from fusefs.content.file import Sparse
from fusefs.content.protocol import Content
from fusefs.tree.node import Directory, KnownTree, LazyDirectory, RegularFile


def stored_contents(view: Directory) -> Iterator[Content]:
    """Yield the contents of the files of *view* that are not in lazy directories; of a sparse one its runs."""
    yield from _of_tree(KnownTree(view))


def view_contents(view: Directory) -> Iterator[Content]:
    """Yield the contents of the files of *view*: the stored ones, and then plain tars, which this decompresses.

    The files in the trees of layers have no contents of their own: they are parts of these.
    """
    trees = [KnownTree(view)]
    for tree in trees:  # grows
        yield from _of_tree(tree)
        trees += (below for below in _lazy_trees(tree) if isinstance(below, KnownTree))


def _lazy_trees(tree: KnownTree) -> Iterator[object]:
    """Yield the trees of generated lazy directories; those of layers, which are not settled, are left alone."""
    for number in range(len(tree)):
        node = tree.node(number)
        if isinstance(node, LazyDirectory) and node.settled:
            yield node.fill()


def _of_tree(tree: KnownTree) -> Iterator[Content]:
    for number in range(len(tree)):
        node = tree.node(number)
        if not isinstance(node, RegularFile):
            continue
        if isinstance(node.content, Sparse):
            yield from (run for _, run in node.content.runs())
        else:
            yield node.content
