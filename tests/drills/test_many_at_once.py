"""Some images that a real dockerd imports; ``scripts/soak imports`` does the same with 500."""

from tests.drills.many_at_once import look_at_imported
from tests.support.mounts import Bench


def test_imported_images_are_listed_with_one_request_and_opened_at_once(imgfs: Bench) -> None:
    _, found = look_at_imported(imgfs, 20, 10)
    assert found.lists <= 1 + found.listing // 2
    assert (found.saves_for_names, found.saves) == (0, 10)
    assert found.resident < 50_000
