"""A user who is not root, and mounts of theirs."""

import os
import stat
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.mounts import COMMAND, Bench, bench
from tests.support.requirements import FUSE, give_up, need

USER = 65534
_AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
# The interpreter may lie in root's home: then the user may read what root may, but nothing else.
_READING = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


@pytest.fixture
def users_may_mount() -> Iterator[None]:
    """Every user may open /dev/fuse, as on a machine with udev; without udev it is root's alone."""
    need(FUSE)
    mode = stat.S_IMODE(os.stat(FUSE).st_mode)
    os.chmod(FUSE, 0o666)
    yield
    os.chmod(FUSE, mode)


@pytest.fixture(name="user")
def users_bench(users_may_mount: None) -> Iterator[Bench]:  # noqa: ARG001 - for what it does
    """A bench for a user who is not root."""
    need("setpriv")
    with bench() as made:
        for path in (made.folder, made.spool, made.folder / "home"):
            os.chown(path, USER, USER)
        made.command = _command(made)
        yield made
        made.end_mounts()


def reads_all(user: Bench) -> bool:
    """Return whether the user of the bench may read everything, which an interpreter in a closed folder requires."""
    return all(word in user.command for word in _READING)


def _command(made: Bench) -> tuple[str, ...]:
    for words in ((*_AS_USER, COMMAND), (*_AS_USER, *_READING, COMMAND)):
        done = subprocess.run([*words, "--version"], env=made.environment, capture_output=True, check=False)
        if done.returncode == 0:
            return words
    return give_up(f"another user cannot run imgfs: {done.stderr.decode()}")
