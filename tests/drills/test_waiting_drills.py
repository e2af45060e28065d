"""The drill of reads that wait, in seconds instead of minutes."""

from tests.drills import waiting_drills
from tests.support.mounts import Bench


def test_a_thousand_waiting_reads_do_not_stop_who_needs_no_read(imgfs: Bench) -> None:
    waiting_drills.wait_for_a_file(imgfs, waiting=1000)


def test_reads_that_wait_for_a_disk_do_not_stop_those_of_what_is_in_memory(imgfs: Bench) -> None:
    served = waiting_drills.wait(imgfs, waiting=waiting_drills.MOST, seconds=1)
    assert served.count > 0
    assert served.slowest < 10  # it is served at all: without room for others it never would be
