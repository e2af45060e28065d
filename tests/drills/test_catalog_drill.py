"""Images that come and go, for a few seconds; ``scripts/soak catalog`` does the same for ten minutes."""

from tests.drills.catalog_drill import come_and_go
from tests.support.mounts import Bench


def test_images_come_and_go_while_programs_look_into_them(imgfs: Bench) -> None:
    imgfs.log_is_quiet = False  # an image may be gone before it is saved
    found = come_and_go(imgfs, 8, 1)
    assert found.reads == 3 * found.changes > 100
    assert found.missing < found.reads
    assert found.memory[1] < found.memory[0] + 20_000
    assert found.descriptors[1] < found.descriptors[0] + 60
