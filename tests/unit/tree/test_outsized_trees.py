"""Trees whose paths are out of proportion to their nodes: memory is that of the nodes."""

import tracemalloc
from collections.abc import Callable

from fusefs.layers.diff import compare
from fusefs.layers.tree import LayerTree
from fusefs.tree.walk import children, resolve, walk
from tests.support.changesets import all_indexed, changeset, file, hard_link, indexed
from tests.support.outsized import nested
from tests.support.trees import side

DEPTH = 1500
"""Directories in each other: the paths of them and of their neighbours are 9 MB as tuples."""


def held(run: Callable[[], object]) -> int:
    """Return the most bytes that were held while something ran."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_walk_does_not_hold_the_paths_of_what_it_has_not_come_to() -> None:
    with indexed(nested(DEPTH)) as layer:
        tree = LayerTree(layer.files, transform_symlinks=False)
        assert held(lambda: sum(1 for _ in walk(tree, resolve(tree, b"/")))) < 3 << 20
        assert sum(1 for _ in walk(tree, resolve(tree, b"/"))) == 2 * DEPTH + 1


def test_files_of_a_deep_directory_share_its_path() -> None:
    names = [f"{number}" for number in range(1000)]
    deep = b"a/" * DEPTH
    layer = changeset(file(deep + b"0"), *(hard_link(deep + name.encode(), deep + b"0") for name in names[1:]))
    with indexed(layer) as indexed_layer:
        tree = LayerTree(indexed_layer.files, transform_symlinks=False)
        directory = resolve(tree, b"/" + deep)
        assert held(lambda: children(tree, directory)) < 1 << 20
        assert [child.path for child in children(tree, directory)][-1] == b"/" + deep + b"999"


def test_a_comparison_does_not_hold_the_paths_of_what_it_has_not_come_to() -> None:
    layers = [changeset(), nested(DEPTH)]
    with all_indexed(layers) as (empty, full):
        old, new = side([empty], [b"empty"]), side([full], [b"full"])
        assert held(lambda: sum(1 for _ in compare(old, new))) < 3 << 20
        assert sum(1 for _ in compare(old, new)) == 2 * DEPTH
        paths = [difference.path for difference in compare(old, new)]
        assert (paths[:3], paths[-1]) == ([(b"a",), (b"a", b"a"), (b"a", b"a", b"a")], (b"b",))
