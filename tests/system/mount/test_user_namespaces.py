"""Mounts by the root of a user namespace, as in ``unshare -rm``, ``podman unshare`` and rootless containers."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.builders import Archive, layer
from tests.support.mounts import COMMAND, Bench, without_figures
from tests.support.readme import REPOSITORY
from tests.support.requirements import give_up, need
from tests.support.users import USER

MAIN = "import sys; from fusefs.cli import main; sys.exit(main())"
SYSTEM = f"/usr/bin/python3.{sys.version_info.minor}"
"""The same version of Python, which every user may run."""
SCRIPT = """
"$@" mount image.tar mnt && cat mnt/rootfs/etc/motd && "$@" list --json && "$@" cache path &&
PATH=/nowhere "$@" umount mnt && exec cat /proc/self/mountinfo
"""


@pytest.fixture(name="rootless")
def users_bench_with_a_namespace(user: Bench) -> Bench:
    """The bench of a user who needs no capability to run imgfs; without a cache of the tests."""
    need("unshare")
    plain = user.command[: user.command.index("--clear-groups") + 1]
    paths = f"{REPOSITORY}:{sysconfig.get_path('purelib')}"
    for command, environment in (((COMMAND,), {}), ((SYSTEM, "-c", MAIN), {"PYTHONPATH": paths})):
        inside = (*plain, "unshare", "-rm", *command)
        done = subprocess.run(
            [*inside, "--version"], env=user.environment | environment, capture_output=True, check=False
        )
        if done.returncode == 0:
            user.environment |= environment
            del user.environment["IMGFS_CACHE_DIR"]
            user.command = (*plain, "unshare", "-rm", "sh", "-c", SCRIPT, "sh", *command)
            return user
    return give_up(f"another user cannot run imgfs in a user namespace: {done.stderr.decode()}")


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
