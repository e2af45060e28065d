"""Mounts by the root of a user namespace, as in ``unshare -rm``, ``podman unshare`` and rootless containers."""

import json
import os
from pathlib import Path

import pytest

from tests.support.builders import Archive, layer
from tests.support.mounts import COMMAND, Bench, without_figures
from tests.support.readable import as_user
from tests.support.requirements import give_up
from tests.support.users import USER

SCRIPT = """
"$@" mount image.tar mnt && cat mnt/rootfs/etc/motd && "$@" list --json && "$@" cache path &&
PATH=/nowhere "$@" umount mnt && exec cat /proc/self/mountinfo
"""


@pytest.fixture(name="rootless")
def users_bench_with_a_namespace(user: Bench) -> Bench:
    """The bench of a user who needs no capability to run imgfs; without a cache of the tests."""
    user.command = (*as_user(user.mountpoint("hold"), ()), "unshare", "-rm", "sh", "-c", SCRIPT, "sh", COMMAND)
    del user.environment["IMGFS_CACHE_DIR"]
    return user


@pytest.mark.parametrize("home", [True, False])
def test_root_of_a_user_namespace_mounts_and_unmounts(rootless: Bench, *, home: bool) -> None:
    if os.path.exists("/dev/log"):
        give_up("needs a machine without /dev/log")
    mountpoint = rootless.mountpoint()
    os.chown(mountpoint, USER, USER)
    Archive([layer({"etc/motd": b"hello\n"})]).write(rootless.folder / "image.tar")
    folder = Path(rootless.environment["HOME"])
    if not home:
        del rootless.environment["HOME"]
        rootless.environment |= {"XDG_CACHE_HOME": str(folder / ".cache"), "XDG_STATE_HOME": str(folder / "state")}
    done = rootless.run()
    log = folder / (".local/state/imgfs/imgfs.log" if home else "state/imgfs/imgfs.log")
    assert (done.status, without_figures(done.err)) == (0, f"imgfs: mounted image.tar on mnt; log: {log}\n")
    motd, rest = done.out.split("\n", 1)
    listed, end = json.JSONDecoder().raw_decode(rest)
    path, *table = rest[end:].split()
    assert (motd, path) == ("hello", str(folder / ".cache/imgfs"))
    (mine,) = (one for one in listed if one["mountpoint"] == str(mountpoint))
    assert (mine["state"], mine["driver"]) == ("mounted", "fuse")
    assert str(mountpoint) not in table
    rootless.nothing_left()
