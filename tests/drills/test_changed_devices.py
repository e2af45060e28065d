"""What readers of a kernel mount see if its device changes, which is why imgfs gives it files that do not."""

from collections import Counter

import pytest

from fusefs.mount.kernel.support import Backing
from tests.drills.changed_devices import CHANGES, READS, drill
from tests.support.erofs_mounts import need_kernel_mounts

FILES = 40
_EIO = "Input/output error"


@pytest.mark.parametrize("backing", Backing)
def test_what_is_in_memory_stays_and_the_rest_is_new_or_an_error(backing: Backing) -> None:
    need_kernel_mounts(backing)
    rows = {(row.change, row.reads): row for row in drill(FILES, backing)}
    assert list(rows) == [(change, reads) for change in CHANGES for reads in READS]
    for change in CHANGES:
        assert rows[change, "in memory"].seen == Counter(right=FILES)
        assert rows[change, "in memory"].mapped == Counter({"a byte": 4})
    for reads in ("not read before", "dropped from memory"):
        assert rows["overwritten", reads].seen == Counter(new=FILES)
        assert rows["overwritten", reads].mapped == Counter({"a byte": 4})
        assert rows["truncated to 0", reads].seen == Counter({_EIO: FILES})
        assert rows["truncated to 0", reads].mapped == Counter(SIGBUS=4)
        half = rows["truncated to half", reads]
        # A loop device repeats the bytes before the end of its file, if they are no whole block.
        assert set(half.seen) - {"wrong"} == {"right", _EIO}
        assert half.seen["wrong"] <= (backing is Backing.LOOP)
        assert abs(half.seen["right"] - FILES / 2) <= 1
        assert set(half.mapped) == {"a byte", "SIGBUS"}
