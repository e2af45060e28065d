"""The merge of layers that are known from the top down."""

from collections.abc import Sequence
from functools import partial

from fusefs.layers.topdown import FetchedStack, TopDownRootfs
from fusefs.layers.tree import LayerFiles
from tests.support.builders import CREATED_NS
from tests.support.changesets import all_indexed, changeset, file, folder, hard_link, whiteout

BASE = changeset(folder("d"), file("d/low", b"1"), file("low", b"2"))


class _Stack:
    """Layers, and what was asked of them."""

    def __init__(self, files: Sequence[LayerFiles]) -> None:
        self.asked: list[str] = []
        layers = [partial(self._layer, files, number) for number in range(len(files))]
        note = self.asked.append
        stack = FetchedStack(layers, lambda: self._all(files), lambda: note("more"), lambda: note("complete"))
        self.tree = TopDownRootfs(stack, CREATED_NS, transform_symlinks=False)

    def _layer(self, files: Sequence[LayerFiles], number: int) -> LayerFiles:
        self.asked.append(str(number))
        return files[number]

    def _all(self, files: Sequence[LayerFiles]) -> Sequence[LayerFiles]:
        self.asked.append("all")
        return files

    def find(self, *names: str) -> int | None:
        """Look up *names*, one below the other."""
        number: int | None = 0
        for name in names:
            assert number is not None
            if (work := self.tree.settling(number, name.encode())) is not None:
                work()
            number = self.tree.find(number, name.encode())
        return number


def test_a_lookup_asks_for_the_layers_that_decide_and_says_when_the_top_one_does_not() -> None:
    with all_indexed(
        [BASE, changeset(file("middle")), changeset(folder("d"), file("d/top"), whiteout("d/low"))]
    ) as files:
        stack = _Stack(files)
        assert stack.find("d", "top") is not None
        assert stack.find("d", "low") is None
        assert stack.asked == ["2"]
        assert stack.find("middle") is not None
        assert stack.asked == ["2", "more", "1"]
        assert stack.find("low") is not None
        assert stack.asked == ["2", "more", "1", "more", "0", "complete"]
        assert stack.tree.settling(0, None) is None


def test_a_listing_asks_for_all_layers_at_once() -> None:
    with all_indexed([BASE, changeset(file("top"))]) as files:
        stack = _Stack(files)
        work = stack.tree.settling(0, None)
        assert work is not None
        work()
        assert stack.asked == ["all", "complete"]
        assert [name for name, _ in stack.tree.listing(0)] == [b"d", b"low", b"top"]


def test_a_hard_link_into_a_lower_layer_asks_for_all_and_is_never_taken_for_a_dead_one() -> None:
    with all_indexed([BASE, changeset(hard_link("link", "low"), file("top"))]) as files:
        stack = _Stack(files)
        number = stack.find("link")
        assert number is not None
        assert stack.tree.stat(number).nlink == 2
        assert stack.asked == ["1", "all", "complete"]


def test_an_error_of_a_layer_is_not_remembered() -> None:
    with all_indexed([BASE, changeset(file("top"))]) as files:
        errors = [OSError("the registry is gone")]

        def base() -> LayerFiles:
            if errors:
                raise errors.pop()
            return files[0]

        stack = FetchedStack([base, lambda: files[1]], lambda: files)
        tree = TopDownRootfs(stack, CREATED_NS, transform_symlinks=False)
        for expected in (True, False):
            work = tree.settling(0, b"low")
            assert work is not None
            try:
                work()
            except OSError:
                assert expected
        assert tree.find(0, b"low") is not None
