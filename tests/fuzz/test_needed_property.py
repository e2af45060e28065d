"""Paths looked up from the top layer down: layers that are not needed change nothing."""

from collections.abc import Sequence
from functools import partial

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusefs.layers.needed import Need, NeededLayers, Question
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.topdown import FetchedStack, TopDownRootfs
from fusefs.layers.tree import LayerFiles
from fusefs.tree.node import Directory
from fusefs.tree.walk import resolve
from tests.conftest import TakeWarnings
from tests.support.builders import CREATED_NS
from tests.support.changesets import Seen, all_indexed, seen
from tests.support.drawn_layers import LAYERS, Drawn, shown_ones, tar

NAMES = st.sampled_from(["a", "b", "c", "..", "", "."])
QUESTIONS = st.builds(
    lambda parts, follow: Question("/".join(parts).encode(), follow),
    st.lists(NAMES, min_size=1, max_size=5),
    st.booleans(),
)

Answer = tuple[Seen, list[tuple[bytes, Seen]]] | str


def answer(files: Sequence[LayerFiles], question: Question) -> Answer:
    """Return all that can be seen at the path, and of the names in it if it is a directory; or the error."""
    tree = RootfsTree(files, transform_symlinks=False)
    try:
        number = resolve(tree, question.path, follow=question.follow).number
    except OSError as error:
        return str(error)
    names = tree.listing(number) if isinstance(tree.node(number), Directory) else []
    return seen(tree, number), [(name, seen(tree, below)) for name, below in names]


@given(layers=LAYERS, question=QUESTIONS)
@settings(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_layers_that_are_not_needed_change_nothing(
    take_warnings: TakeWarnings, layers: list[list[Drawn]], question: Question
) -> None:
    with all_indexed([tar(shown_ones(layer)) for layer in layers]) as files:
        needed = NeededLayers([question])
        for count in range(1, len(files) + 1):
            need = needed.add(files[-count].index)
            if need is Need.NONE:
                assert answer(files[-count:], question) == answer(files, question)
            if need is not Need.NEXT:
                break
    take_warnings()


PATHS = st.lists(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4), min_size=1, max_size=4)


@given(layers=LAYERS, paths=PATHS)
@settings(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lookups_from_the_top_down_find_what_all_layers_show(
    take_warnings: TakeWarnings, layers: list[list[Drawn]], paths: list[list[str]]
) -> None:
    with all_indexed([tar(shown_ones(layer)) for layer in layers]) as files:
        whole = RootfsTree(files, transform_symlinks=False)
        asked: list[int] = []

        def layer(number: int) -> LayerFiles:
            asked.append(number)
            return files[number]

        stack = FetchedStack([partial(layer, number) for number in range(len(files))], lambda: files)
        tree = TopDownRootfs(stack, CREATED_NS, transform_symlinks=False)
        for path in paths:
            directory: int | None = 0
            for name in (part.encode() for part in path):
                if directory is None or not isinstance(whole.node(directory), Directory):
                    break
                if (work := tree.settling(directory, name)) is not None:
                    work()
                assert tree.settling(directory, name) is None
                found = tree.find(directory, name)
                assert found == whole.find(directory, name)
                assert found is None or seen(tree, found) == seen(whole, found)
                assert found is None or tree.parent(directory) == whole.parent(directory)
                directory = found
        assert asked == [*range(len(files))][::-1][: len(asked)]  # from the top, each once
        if (work := tree.settling(0, None)) is not None:
            work()
        assert tree.settling(0, None) is None
        assert tree.listing(0) == whole.listing(0)
    take_warnings()
