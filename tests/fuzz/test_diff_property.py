"""Random stacks compared, and the layers that a path comes from, against a look at everything."""

import stat

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusefs.layers.diff import Change, compare
from fusefs.layers.provenance import touches
from fusefs.layers.record import LOWER_LINK
from fusefs.layers.rootfs import RootfsTree
from fusefs.tree.walk import ROOT
from tests.conftest import TakeWarnings
from tests.support.builders import CREATED_NS
from tests.support.changesets import Seen, all_indexed, everything, numbers
from tests.support.drawn_layers import LAYERS, Drawn, shown_ones, tar
from tests.support.trees import side


def _naively(old: dict[bytes, Seen], new: dict[bytes, Seen], *, times: bool) -> set[tuple[bytes, Change]]:
    def told(seen: Seen) -> Seen:
        return seen._replace(mtime_ns=seen.mtime_ns if times else 0, nlink=1)

    changed = {path for path in old.keys() & new.keys() if told(old[path]) != told(new[path])}
    return (
        {(path, Change.ADDED) for path in new.keys() - old.keys()}
        | {(path, Change.REMOVED) for path in old.keys() - new.keys()}
        | {(path, Change.CHANGED) for path in changed}
    )


@given(base=LAYERS, olds=LAYERS, news=LAYERS, drawn=st.tuples(st.integers(0, 3), st.integers(0, 1), st.booleans()))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_stacks_differ_as_a_look_at_everything_says(
    take_warnings: TakeWarnings,
    base: list[list[Drawn]],
    olds: list[list[Drawn]],
    news: list[list[Drawn]],
    drawn: tuple[int, int, bool],
) -> None:
    shared, later, times = drawn
    old = [tar(shown_ones(layer)) for layer in [*base[:shared], *olds]]
    new = [tar(shown_ones(layer)) for layer in [*base[:shared], *news]]
    created_ns = CREATED_NS + later
    with all_indexed(old) as old_files, all_indexed(new, created_ns) as new_files:
        before, after = side(old_files, old), side(new_files, new, created_ns=created_ns)
        found = [(b"/".join(one.path), one.change) for one in compare(before, after, times=times)]
        assert len(found) == len(set(found))
        assert set(found) == _naively(everything(before.tree), everything(after.tree), times=times)
    take_warnings()


@given(layers=LAYERS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_layer_that_has_to_do_with_a_path_is_the_one_it_is_from(
    take_warnings: TakeWarnings, layers: list[list[Drawn]]
) -> None:
    tars = [tar(shown_ones(layer)) for layer in layers]
    with all_indexed(tars) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        indexes = [each.index for each in files]
        for path, number in numbers(tree).items():
            parts = tuple(path.split(b"/")) if path else ()
            history = [touch for touch in touches(indexes, parts) if touch.record is not None]
            if stat.S_ISDIR(tree.stat(number).mode) or not history or history[-1].record is None:
                continue  # one that no layer lists is from whoever has something in it
            if not history[-1].record.flags & LOWER_LINK:
                assert (history[-1].layer, history[-1].record.inode) == (tree.layer(number), number & (1 << 32) - 1)
        assert tree.layer(ROOT.number) < len(files)
    take_warnings()
