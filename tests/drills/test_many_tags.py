"""Tags of one app share what they have in common: nothing is fetched or stored twice."""

from tests.drills.first_byte import work_folder
from tests.drills.many_tags import measure
from tests.support.requirements import FUSE, need


def test_tags_with_the_same_base_take_little_more_than_their_distinct_bytes() -> None:
    need(FUSE)
    with work_folder() as work:
        found = measure(work, tags=4, base_size=8_000_000, app_size=1_000_000)
    assert found.blobs < found.sent < 1.01 * found.blobs  # manifests and configs, too
    assert found.stored < found.on_disk < 1.05 * found.stored
