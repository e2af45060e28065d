"""Random stacks of layers as EROFS metadata, read by a reader of its own, against imgfs's trees."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import TakeWarnings
from tests.support.changesets import all_indexed
from tests.support.drawn_layers import LAYERS, Drawn, shown_ones, tar
from tests.support.erofs_views import check, stack_view


@given(layers=LAYERS, transform_symlinks=st.booleans())
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_metadata_show_what_the_trees_of_a_random_stack_show(
    take_warnings: TakeWarnings, layers: list[list[Drawn]], *, transform_symlinks: bool
) -> None:
    with all_indexed([tar(shown_ones(layer)) for layer in layers]) as files:
        check(stack_view(files, transform_symlinks=transform_symlinks))
    take_warnings()
