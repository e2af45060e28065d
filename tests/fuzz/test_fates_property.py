"""Random stacks of changesets: the files that no upper layer hides are those of the root file system."""

import stat
from itertools import chain

from hypothesis import HealthCheck, given, settings

from fusefs.layers.fates import layer_files
from fusefs.layers.record import LOWER_LINK
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.usage import usage
from fusefs.layers.waste import waste
from fusefs.tree.walk import ROOT
from tests.conftest import TakeWarnings
from tests.support.changesets import all_indexed, numbers
from tests.support.drawn_layers import LAYERS, Drawn, shown_ones, tar


@given(layers=LAYERS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_no_layer_hides_is_there(take_warnings: TakeWarnings, layers: list[list[Drawn]]) -> None:
    with all_indexed([tar(shown_ones(layer)) for layer in layers]) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        there = {b"/" + path: number for path, number in numbers(tree).items()}
        every = [*chain.from_iterable(layer_files(tree.indexes, number) for number in range(len(files)))]
        seen = [file for file in every if file.fate is None and not stat.S_ISDIR(file.record.mode)]
        links = {file.path for file in seen if file.record.flags & LOWER_LINK}
        # A link to nothing is skipped.
        assert len({file.path for file in seen}) == len(seen)
        assert {file.path for file in seen} - links <= there.keys()
        shown = {path for path, number in there.items() if not stat.S_ISDIR(tree.stat(number).mode)}
        assert shown <= {file.path for file in seen}
        for file in seen:
            if file.path not in links:
                assert there[file.path] == tree.node_number(file.layer, file.record.inode)
        found = waste(tree)
        *_, top = usage(tree, [ROOT])
        assert 0 <= found.efficiency <= 1
        assert found.size + top.total.size == found.total
    take_warnings()
