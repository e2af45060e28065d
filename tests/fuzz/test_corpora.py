"""What coverage-guided fuzzers once found worth keeping, again: see ``scripts/soak corpus``."""

import pytest

from tests.conftest import TakeWarnings
from tests.fuzz.corpora import kept
from tests.fuzz.oracles import TARGETS
from tests.fuzz.processes import Target, name_of


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_what_was_kept_is_refused_or_can_be_used(target: Target, take_warnings: TakeWarnings) -> None:
    inputs = list(kept(target))
    assert len(inputs) > 20
    for data in inputs:
        target(data)
    assert all(warning.isprintable() for warning in take_warnings())
