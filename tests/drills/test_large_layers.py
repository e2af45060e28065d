"""Layers and stacks larger than images have: time, memory, and depth."""

import os
import tracemalloc

from fusefs.layers.index import LayerIndex
from fusefs.layers.indexer import LayerIndexer
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.tar.header import Kind
from fusefs.tar.members import Member
from fusefs.tree.walk import ROOT, PathNode, resolve, walk
from tests.support.builders import BLOCK, Memory, header
from tests.support.changesets import all_indexed, changeset, file, folder, hard_link, indexed, layer_of


def memory_to_index(count: int, before: bytes, after: bytes, kind: Kind = Kind.REGULAR) -> int:
    """Return how many bytes a member the indexer takes at its peak; a scan takes none that stay.

    The names are *before*, a number, *after*.
    """
    block = header("x", typeflag=b"5" if kind is Kind.DIRECTORY else b"0")
    members = [Member(b"%s%08d%s" % (before, number, after), kind, b"", 0, BLOCK, 0, sparse=False, block=block)
               for number in range(count)]  # fmt: skip
    with open(os.memfd_create("index", os.MFD_CLOEXEC), "wb") as index:
        tracemalloc.start()
        try:
            indexer = LayerIndexer(0, 0)
            for member in members:
                indexer.add(Memory(b""), member)
            indexer.write(index)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert LayerIndex(index.fileno()).count > count
    return peak // count


def test_indexing_200_000_files_takes_less_than_400_bytes_for_each() -> None:
    assert memory_to_index(200_000, b"usr/share/doc/", b"-copyright") < 400


def test_indexing_directories_takes_little_more() -> None:
    assert memory_to_index(20_000, b"usr/share/doc/", b"/", Kind.DIRECTORY) < 500


def test_indexing_files_that_are_each_in_a_directory_that_nothing_lists_takes_twice_as_much() -> None:
    assert memory_to_index(20_000, b"usr/share/doc/", b"/copyright") < 1000


def test_hard_links_through_more_layers_than_python_has_stack_are_followed() -> None:
    layers = [changeset(file("0", b"base")), *(changeset(hard_link(str(n), str(n - 1))) for n in range(1, 700))]
    with all_indexed(layers) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        assert tree.find(0, b"699") == tree.find(0, b"0")


def test_each_file_may_have_a_directory_of_its_own() -> None:
    assert len(layer_of(changeset(*(file(f"{number}/b/c/d/x") for number in range(20_000))))) == 5 * 20_000 + 1


def test_a_very_deep_tree_is_no_trouble() -> None:
    name = "d/" * 10_000
    with indexed(changeset(folder(name), file(name + "f"))) as layer:
        tree = LayerTree(layer.files, transform_symlinks=False)
        assert len([here for here, _ in walk(tree, ROOT)]) == 10_001
        assert isinstance(resolve(tree, (name + "f").encode()), PathNode)
