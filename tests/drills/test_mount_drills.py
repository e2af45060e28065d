"""The drills of ``scripts/soak``, in seconds instead of minutes."""

import os
from contextlib import ExitStack

from tests.drills import mount_drills
from tests.support.mounts import COMMAND, Bench, Finished
from tests.support.requirements import need


def test_a_kill_at_any_moment_leaves_nothing_and_the_next_mount_is_right(imgfs: Bench) -> None:
    imgfs.log_is_quiet = False  # an indexer that was killed is said there
    assert mount_drills.kill(imgfs, rounds=6).total() == 6


def test_under_load_every_byte_is_right_and_nothing_grows(imgfs: Bench) -> None:
    found = mount_drills.load(imgfs, clients=6, seconds=4)
    assert found.operations > 100
    assert found.descriptors[1] <= found.descriptors[0]
    assert found.memory[1] - found.memory[0] < 30_000


def test_mounts_in_a_loop_and_at_once_leave_nothing(imgfs: Bench) -> None:
    mount_drills.mounts(imgfs, loops=4, at_once=8)


def test_a_busy_mount_is_not_unmounted_but_ends_at_a_signal(imgfs: Bench) -> None:
    mount_drills.unmount_busy(imgfs, rounds=3)


def test_sixty_four_descriptors_are_enough_whatever_is_open(imgfs: Bench) -> None:
    need("prlimit")
    imgfs.command = ("prlimit", "--nofile=64", COMMAND)
    mountpoint = imgfs.mount(mount_drills.zipped_archive().write(imgfs.folder / "image.tar"))
    assert mount_drills.check_rootfs(mountpoint) > 17 << 20  # three layers are decompressed, one indexed by a child
    with ExitStack() as stack:
        for name in [*mount_drills.ROOTFS] * 3:
            stack.enter_context((mountpoint / "rootfs" / name).open("rb"))
        assert mount_drills.check_blobs(mountpoint) > 0
        assert len(os.listdir(mountpoint / "layers" / "0")) == 1
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
