"""The files of imgfs on the machine: locks that nobody else can take, modes whatever the umask is, no secrets."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.changesets import About, changeset, file
from tests.support.mounts import COMMAND, Bench, Finished, without_figures
from tests.support.processes import umask_of, until
from tests.support.requirements import need
from tests.support.users import USER, users_bench

__all__ = ["users_bench"]

_LOCKER = """
import fcntl, os, sys
for place, folders, files in os.walk(sys.argv[1]):
    for name in (".", *files):
        try:
            fcntl.flock(os.open(os.path.join(place, name), os.O_RDONLY | os.O_NONBLOCK), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """A small image."""
    return Archive().write(imgfs.folder / "image.tar")


@contextmanager
def locked_by_another_user(folder: Path) -> Iterator[None]:
    """Let another user lock whatever they can open in *folder*."""
    need("setpriv")
    words = ["setpriv", f"--reuid={USER}", "--clear-groups", "/usr/bin/env", "python3", "-c", _LOCKER, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
        assert locker.stdout is not None
        assert locker.stdout.readline() == b"ready\n"
        yield
        locker.communicate(b"")


def test_another_users_locks_on_a_readable_cache_keep_nobody_waiting(imgfs: Bench, archive: Path) -> None:
    imgfs.cache.mkdir(0o755)
    mountpoint = imgfs.mount(archive)
    until(lambda: list(imgfs.cache.glob("files/*/index")), "the index is kept")
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()
    with locked_by_another_user(imgfs.cache):
        imgfs.mount(archive, at=mountpoint)
        assert len(json.loads(imgfs.run("cache", "list", "--json").out)) == 1
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "the mount ends")
        assert imgfs.run("cache", "prune", "--all").err == ""
    assert list(imgfs.cache.glob("files/*")) == []


def test_so_do_locks_from_before_the_modes_of_a_cache_were_set(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    until(lambda: list(imgfs.cache.glob("files/*/index")), "the index is kept")
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()
    subprocess.run(["chmod", "-R", "a+rX", imgfs.cache], check=True)
    with locked_by_another_user(imgfs.cache):
        done = imgfs.run("mount", "-q", "--log-file", imgfs.log, archive, mountpoint)
        assert (done.status, done.out) == (0, "")
        assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
        assert _modes(imgfs.cache / "files") == {0o700}
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.log_is_quiet = False


def _modes(*folders: Path) -> set[int]:
    return {stat.S_IMODE(folder.stat().st_mode) for folder in folders}


def _all_modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize("umask", [0, 0o777])
def test_a_users_cache_and_log_are_theirs_alone_whatever_the_umask_is(user: Bench, umask: int) -> None:
    archive = Archive().write(user.folder / "image.tar")
    mountpoint = user.mountpoint()
    os.chown(mountpoint, USER, USER)
    state, cache = user.folder / "home" / "a" / "state", user.folder / "home" / "b" / "cache"
    words = ("mount", "-q", "--cache-dir", cache, "--log-file", state.parent.parent / "log", archive, mountpoint)
    with umask_of(umask):
        assert user.run(*words) == Finished(0, "", "")
    until(lambda: list(cache.glob("files/*/index")), "the index is kept")
    assert user.run("umount", mountpoint) == Finished(0, "", "")
    user.nothing_left()
    assert _all_modes(user.folder / "home" / "b") == {0o700, 0o600}
    assert _modes(user.folder / "home" / "log") == {0o600}
    assert user.run(*words) == Finished(0, "", "")
    assert [one["inUse"] for one in json.loads(user.run("cache", "list", "--json", "--cache-dir", cache).out)] == [True]


_PID = "import os; print(os.getxattr(os.environ['MNT'], 'user.imgfs.pid').decode())"


def test_on_a_read_only_var_an_image_is_mounted_with_a_warning(imgfs: Bench, archive: Path) -> None:
    need("unshare")
    mountpoint = imgfs.mountpoint()
    script = """
        mount --rbind /var /var && mount -o remount,bind,ro /var && test ! -e /dev/log
        ! mountpoint -q /var/tmp || mount -o remount,bind,ro /var/tmp
        unset IMGFS_CACHE_DIR IMGFS_TMPDIR
        "$@"; echo $?
        cat "$MNT/rootfs/etc/motd"
        grep CapPrm "/proc/$("$PYTHON" -c "$PID")/status"
        umount "$MNT"
    """
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    command = [COMMAND, "mount", str(archive), str(mountpoint)]
    environment = {**imgfs.environment, "MNT": str(mountpoint), "PYTHON": sys.executable, "PID": _PID}
    done = subprocess.run([*words, *command], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0\nhello\nCapPrm:\t0000000000200000\n"  # CAP_SYS_ADMIN alone
    *warnings, said = done.stderr.splitlines()
    assert without_figures(said) == f"imgfs: mounted {archive} on {mountpoint}"
    log = "cannot write the log /var/log/imgfs/imgfs.log: Read-only file system; choose another file with --log-file"
    assert f"imgfs: warning: continuing without a log: {log}" in warnings
    assert len(warnings) == 2
    assert any(line.startswith("imgfs: warning: continuing without a cache: ") for line in warnings)


@pytest.mark.parametrize(
    "host",
    [
        "tcp://me:secret@127.0.0.1:1", "http://me:secret@127.0.0.1", "ssh://me:secret@h", "me:secret@127.0.0.1:x",
        "tcp://me:s/secret@h:1", "tcp://:secret@h:1", "https://me:se@secret@h",
    ],
)  # fmt: skip
def test_a_password_of_an_engine_is_refused_and_shown_nowhere(imgfs: Bench, host: str) -> None:
    mountpoint = imgfs.mountpoint()
    for words, environment in ((("-H", host), {}), ((), {"DOCKER_HOST": host})):
        done = imgfs.run("mount", "-v", "--log-file", imgfs.log, *words, "img", mountpoint, **environment)
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
        assert ":***@" in done.err
        assert "secret" not in done.err


def test_nor_is_one_in_the_name_of_an_image(imgfs: Bench) -> None:
    done = imgfs.run("ls", "https://me:secret@h/x.tar")
    said = "imgfs: bad URL 'https://me:***@h/x.tar': it must not contain a user"
    assert done == Finished(2, "", f"{said}\n")


_NAMES = "import os, sys; print(*os.listxattr(sys.argv[1]))"


def test_trusted_attributes_are_for_administrators(imgfs: Bench) -> None:
    need("setpriv", "unshare")
    attributes = {b"trusted.secret": b"1", b"user.open": b"2"}
    archive = Archive(layers=[changeset(file("x", b"", About(xattrs=attributes)))]).write(imgfs.folder / "image.tar")
    path = imgfs.mount(archive, "-o", "allow_other") / "rootfs" / "x"
    assert sorted(os.listxattr(path)) == ["trusted.secret", "user.open"]
    assert os.getxattr(path, "trusted.secret") == b"1"
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    for words in (
        ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *reading],
        ["setpriv", "--bounding-set=-sys_admin"],
        ["unshare", "--user", "--map-root-user"],
    ):
        names = subprocess.run(
            [*words, sys.executable, "-c", _NAMES, str(path)], capture_output=True, text=True, check=True
        )
        assert names.stdout == "user.open\n", words
        values = [sys.executable, "-c", "import os, sys; os.getxattr(sys.argv[1], 'trusted.secret')", str(path)]
        refused = subprocess.run([*words, *values], capture_output=True, text=True, check=False)
        assert os.strerror(errno.ENODATA) in refused.stderr
