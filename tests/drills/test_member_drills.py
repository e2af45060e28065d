"""The drill of many members, with fewer."""

import pytest

from tests.drills import member_drills
from tests.support.mounts import Bench

_COUNT = 200_000


@pytest.mark.parametrize("layers", [1, 2])
def test_each_of_200_000_members_takes_a_bounded_share_of_memory(imgfs: Bench, layers: int) -> None:
    found = member_drills.members(imgfs, _COUNT, layers)
    assert found.peak < 60_000_000 + 150 * _COUNT
