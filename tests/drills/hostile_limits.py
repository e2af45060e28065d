"""Limits of resources (getrlimit(2), cgroups), from far too little to just enough."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.drills.hostile_drill import REFUSALS, Case, Command, mount_words
from tests.drills.hostile_environment import IMAGE, check_trees, check_what_is_answered, mounting
from tests.support.mounts import Bench, Finished

_MIB = 1 << 20
_LIMITS = {
    "as": [megabytes * _MIB for megabytes in (20, 30, 40, 50, 60, 70, 75, 80, 90, 100, 120, 160, 250, 500, 2000)],
    "data": [megabytes * _MIB for megabytes in (10, 20, 30, 40, 50, 60, 80, 100, 200)],
    "nofile": [6, 8, 10, 11, 12, 13, 14, 15, 16, 18, 20, 24, 32, 64],
    "fsize": [511, 512, 4096, 65536, _MIB],  # the line on stderr is in a file, too
    "stack": [128 << 10, 256 << 10, _MIB, 64 * _MIB, 1024 * _MIB],
    "memlock": [0],
    "core": [0],
    "sigpending": [0],
    "msgqueue": [0],
    "rtprio": [0],
    "nice": [0],
    "locks": [0],
}
"""By the option of prlimit(1): bytes, or a number."""
_ENOUGH = {"stack", "memlock", "core", "sigpending", "msgqueue", "rtprio", "nice", "locks"}
"""Limits that imgfs does not need to know."""
_PIDS = Path("/sys/fs/cgroup/pids")
_USER, _GROUP = 5, 60
"""A user with a name, as fusermount3 needs one, and without other processes: games, in Debian."""
_READING = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
"""For an interpreter in the home directory of root."""


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for name, values in _LIMITS.items():
        for value in values:
            arrange = mounting(wrapper=("prlimit", f"--{name}={value}"))
            if name in _ENOUGH:
                yield Case(f"{name} {value}", arrange, check_trees, frozenset({0}))
            else:
                yield Case(f"{name} {value}", arrange, check_what_is_answered, frozenset({0}) | REFUSALS)
    for value in range(1, 11):
        yield Case(f"nproc {value}", _as_user(f"--nproc={value}"), _check_as_user)
    if os.access(_PIDS, os.W_OK):
        for value in range(1, 11):
            yield Case(f"a cgroup of {value} processes", _in_cgroup(value), check_what_is_answered)


def _as_user(limit: str) -> Callable[[Bench], AbstractContextManager[Command]]:
    """Mount as a user who is not root; root may exceed the limit of processes."""

    @contextmanager
    def arrange(imgfs: Bench) -> Iterator[Command]:
        words = mount_words(imgfs, IMAGE.write(imgfs.folder / "image.tar"), "--no-cache")
        for path in (imgfs.folder, imgfs.folder / "mnt", imgfs.spool, imgfs.folder / "home"):
            os.chown(path, _USER, _GROUP)
        user = ("setpriv", f"--reuid={_USER}", f"--regid={_GROUP}", "--clear-groups", *_READING)
        yield Command(words, ("prlimit", limit, *user))

    return arrange


def _check_as_user(imgfs: Bench, finished: Finished) -> None:
    """Check as the user who has mounted: nobody else has access."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(_GROUP, _GROUP, _GROUP)
            os.setresuid(_USER, _USER, _USER)
            check_what_is_answered(imgfs, finished)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def _in_cgroup(processes: int) -> Callable[[Bench], AbstractContextManager[Command]]:
    @contextmanager
    def arrange(imgfs: Bench) -> Iterator[Command]:
        group = _PIDS / f"imgfs-tests-{os.getpid()}"
        group.mkdir()
        try:
            (group / "pids.max").write_text(str(processes))
            words = mount_words(imgfs, IMAGE.write(imgfs.folder / "image.tar"))
            yield Command(words, ("sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh"))
        finally:
            group.rmdir()

    return arrange
