"""Signals and unmounts while the kernel takes over; the long form is ``scripts/soak takeover``."""

import pytest

from fusefs.mount.kernel.support import Backing
from tests.drills import take_over_drill
from tests.support.erofs_mounts import need_kernel_mounts
from tests.support.mounts import Bench


@pytest.mark.parametrize("backing", Backing)
def test_there_is_a_working_mount_or_none_afterwards(imgfs: Bench, backing: Backing) -> None:
    need_kernel_mounts(backing)
    imgfs.log_is_quiet = False  # an indexer that was killed is said there
    memory = imgfs.mountpoint("memory") if backing is Backing.LOOP else None
    assert take_over_drill.drill(imgfs, 4, 0, memory).total() == 4
