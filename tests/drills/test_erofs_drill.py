"""Random stacks as EROFS metadata; the long form is ``scripts/soak erofs``."""

from tests.conftest import TakeWarnings
from tests.drills import erofs_drill
from tests.support.fsck_erofs import Fsck


def test_random_stacks_are_what_the_kernel_and_fsck_find(fsck: Fsck, take_warnings: TakeWarnings) -> None:
    found = erofs_drill.compare(200, 0, every=20, fsck=fsck)
    take_warnings()
    assert found.images["written"] > 150
    assert found.images["mounted"] == found.images["fsck"] >= 5
    assert found.paths > 2000
