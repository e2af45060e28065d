"""The drills with engines, in seconds instead of minutes."""

from tests.drills import engine_drills
from tests.support.mounts import Bench


def test_a_kill_while_an_engine_sends_and_the_image_is_kept(imgfs: Bench) -> None:
    imgfs.log_is_quiet = False  # an indexer that was killed is said there
    found = engine_drills.kill(imgfs, rounds=5)
    assert {moment.partition(",")[0] for moment in found} == set(engine_drills.MOMENTS)
