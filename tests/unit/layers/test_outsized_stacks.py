"""Stacks of layers out of proportion to their bytes: the work is counted in searches of a layer index."""

import tracemalloc

import pytest

from fusefs.layers.index import LayerIndex
from fusefs.layers.provenance import Deed, touches
from fusefs.layers.rootfs import RootfsTree
from tests.conftest import TakeWarnings
from tests.support.changesets import all_indexed, changeset, everything, file, hard_link, indexed, numbers
from tests.support.outsized import DEEPEST, deep_chain, deep_link, directories, link_chains


class Searches:
    """How often a layer index was searched."""

    count = 0

    def taken(self) -> int:
        """Return the number since the last call."""
        count, self.count = self.count, 0
        return count


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Searches:
    """Count the searches of every layer index."""
    counted, search = Searches(), LayerIndex._reach  # each search goes through it

    def counting(index: LayerIndex, directory: int, name: bytes) -> tuple[int, int]:
        counted.count += 1
        return search(index, directory, name)

    monkeypatch.setattr(LayerIndex, "_reach", counting)
    return counted


def look_into_each(tree: RootfsTree) -> int:
    """Look for a name that is not there in each directory of the root; return how many directories there are."""
    names = [name for name, _ in tree.listing(0)]
    for name in names:
        directory = tree.find(0, name)
        assert directory is not None
        assert tree.find(directory, b"absent") is None
    return len(names)


@pytest.mark.parametrize("times", [1, 2, 127, 9000])
def test_a_layer_that_comes_again_costs_nothing(searches: Searches, times: int) -> None:
    with indexed(directories(400)) as layer:
        tree = RootfsTree([layer.files] * times, transform_symlinks=False)
        assert look_into_each(tree) == 400
    assert searches.taken() <= 2 * 400


def test_layers_without_a_directory_cost_nothing_in_it(searches: Searches) -> None:
    layers = [directories(4, f"{number}-") for number in range(300)]
    with all_indexed(layers) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        names = 4 * 300
        assert look_into_each(tree) == names
        assert searches.taken() <= 2 * names + 2 * names  # one in each directory and on the way to it, and the table's
        assert look_into_each(tree) == names
        assert searches.taken() <= 2 * names


def test_more_directories_than_are_held_are_found(searches: Searches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusefs.layers.rootfs._HELD", 100)
    layers = [*deep_chain(20, 30)]
    with all_indexed(layers) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        assert set(everything(tree)) == {b"/".join([b"a"] * depth) for depth in range(31)} | {
            b"a/" * 30 + b"%d" % number for number in range(20)
        }
    assert searches.taken() > 0


def test_each_hard_link_into_a_lower_layer_is_resolved_once(searches: Searches) -> None:
    layers, links = 100, 10
    with all_indexed([*link_chains(layers, links)]) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        assert searches.taken() <= 4 * layers * links
        assert {seen.nlink for path, seen in everything(tree).items() if path} == {layers}
        assert searches.taken() <= 4 * layers * links


def test_links_on_long_paths_cost_what_their_records_do(searches: Searches) -> None:
    layers, depth = 30, 200
    with all_indexed([*deep_chain(layers, depth)]) as files:
        RootfsTree(files, transform_symlinks=False)
    assert searches.taken() <= 4 * layers * depth


def test_a_link_on_the_longest_path_may_come_in_a_thousand_layers(searches: Searches) -> None:
    with indexed(changeset(file("f", b"x"))) as base, indexed(deep_link("h")) as deep:
        tracemalloc.start()
        try:
            tree = RootfsTree([base.files, *[deep.files] * 1000], transform_symlinks=False)
            assert [name for name, _ in tree.listing(0)] == [b"a", b"f"]
            assert len(numbers(tree)) == DEEPEST + 3
            assert tracemalloc.get_traced_memory()[1] < 32 << 20
        finally:
            tracemalloc.stop()
    assert searches.taken() <= 8 * DEEPEST


def test_links_to_one_path_are_found_by_it_once(searches: Searches) -> None:
    count = 100
    target = "a/" * DEEPEST + "f"
    links = changeset(*(hard_link(f"{number:03}", target) for number in range(count)))
    with all_indexed([changeset(file(target, b"x")), links]) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        assert tree.stat(tree.find(0, b"000") or 0).nlink == count + 1
    assert searches.taken() <= 4 * (DEEPEST + count)


def test_a_repeated_layer_is_asked_once_for_a_path(searches: Searches) -> None:
    with indexed(deep_link("h")) as layer:
        path = [*[b"a"] * DEEPEST, b"h"]
        assert [touch.deed for touch in touches([layer.files.index] * 1000, path)] == [
            Deed.ADDED,
            *[Deed.CHANGED] * 999,
        ]
    assert searches.taken() <= 3 * len(path)


def test_links_to_one_path_store_it_once() -> None:
    def size(links: int) -> int:
        with indexed(changeset(*(hard_link(f"{number:03}", "a/" * DEEPEST + "f") for number in range(links)))) as layer:
            return len(layer.files.index._data)  # its whole file

    assert size(300) - size(1) < 300 * 256


def test_links_to_nothing_are_counted_and_the_first_is_named(take_warnings: TakeWarnings) -> None:
    links = changeset(hard_link("d/x", "none/a"), hard_link("y", "none/b"))
    with indexed(links) as layer:
        assert set(numbers(RootfsTree([layer.files] * 3, transform_symlinks=False))) == {b"", b"d"}
    assert take_warnings() == ["layer 2: skipped 2 hard links to nothing; the first: y"]
