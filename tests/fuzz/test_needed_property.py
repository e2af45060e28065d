"""Paths looked up from the top layer down: layers that are not needed change nothing."""

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusefs.layers.needed import Need, NeededLayers, Question
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles
from fusefs.tree.node import Directory
from fusefs.tree.walk import resolve
from tests.conftest import TakeWarnings
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
