"""The drill of many members, with fewer."""

from tests import member_drills
from tests.mounts import Bench

_COUNT = 200_000


def test_each_of_200_000_members_takes_a_bounded_share_of_memory(imgfs: Bench) -> None:
    found = member_drills.members(imgfs, _COUNT)
    assert found.peak < 60_000_000 + 450 * _COUNT
