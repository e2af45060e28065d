"""Mounts of a user who is not root, where fusermount3 lets one."""

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.file_systems import tmpfs
from tests.support.mounts import COMMAND, Bench, Finished, mounted_below, the_mount, without_figures
from tests.support.processes import until
from tests.support.requirements import give_up
from tests.support.users import USER


def _mountpoint(user: Bench) -> Path:
    mountpoint = user.mountpoint()
    os.chown(mountpoint, USER, USER)
    return mountpoint


@pytest.fixture(name="archive")
def small_archive(user: Bench) -> Path:
    """A small image."""
    return Archive().write(user.folder / "image.tar")


def _reads(user: Bench, path: Path) -> bytes:
    return subprocess.run(
        [*user.command[: user.command.index(COMMAND)], "cat", path], capture_output=True, check=True
    ).stdout


def test_a_user_mounts_reads_and_unmounts(user: Bench, archive: Path) -> None:
    mountpoint = user.mount(archive, at=_mountpoint(user))
    assert _reads(user, mountpoint / "config") == Archive().config_data
    mount = the_mount(mountpoint)
    assert {"ro", "nosuid", "nodev"} <= mount.options
    assert mount.super_options == {"ro", f"user_id={USER}", f"group_id={USER}"}
    assert user.run("umount", mountpoint) == Finished(0, "", "")
    user.nothing_left()


def test_the_files_belong_to_the_user(user: Bench, archive: Path) -> None:
    mountpoint = user.mount(archive, at=_mountpoint(user))
    command = [
        *user.command[: user.command.index(COMMAND)],
        "stat",
        "-c",
        "%u %g %A",
        str(mountpoint),
        str(mountpoint / "config"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{USER} {USER} dr-xr-xr-x\n{USER} {USER} -r--r--r--\n"


def test_not_even_root_gets_in(user: Bench, archive: Path) -> None:
    mountpoint = user.mount(archive, at=_mountpoint(user))
    with pytest.raises(PermissionError):
        os.listdir(mountpoint)


def test_root_may_unmount_what_a_user_has_mounted(user: Bench, archive: Path) -> None:
    mountpoint = user.mount(archive, at=_mountpoint(user))
    user.command = (COMMAND,)
    assert user.run("umount", mountpoint) == Finished(0, "", "")
    user.nothing_left()


def test_a_user_may_not_unmount_what_root_has_mounted(user: Bench, archive: Path) -> None:
    mountpoint = user.mountpoint()
    as_user, user.command = user.command, (COMMAND,)
    user.mount(archive, at=mountpoint)
    user.command = as_user
    done = user.run("umount", mountpoint)
    assert (done.status, done.out) == (9, "")
    assert done.err.startswith(f"imgfs: cannot unmount {mountpoint}: ")
    assert "in use" not in done.err
    assert mounted_below(mountpoint) == [str(mountpoint)]


def test_allow_other_needs_a_line_in_fuse_conf(user: Bench, archive: Path) -> None:
    conf = Path("/etc/fuse.conf")
    if conf.exists() and "\nuser_allow_other" in conf.read_text():
        give_up("needs an /etc/fuse.conf without user_allow_other")
    mountpoint = _mountpoint(user)
    done = user.run("mount", "--log-file", user.log, "-o", "allow_other", archive, mountpoint)
    said = (
        f"imgfs: cannot mount on {mountpoint}: option allow_other only allowed if "
        "'user_allow_other' is set in /etc/fuse.conf; add that line there as root\n"
    )
    assert done == Finished(9, "", said)
    user.nothing_left()


def test_a_user_cannot_mount_on_a_directory_of_root(user: Bench, archive: Path) -> None:
    mountpoint = user.mountpoint()
    done = user.run("mount", "--log-file", user.log, archive, mountpoint)
    assert (done.status, done.out, done.err.count("\n")) == (9, "", 1)
    assert done.err.startswith(f"imgfs: cannot mount on {mountpoint}: ")
    assert "no write access" in done.err
    user.nothing_left()


def test_a_stale_mount_of_a_user_is_cleared_by_the_next(user: Bench, archive: Path) -> None:
    mountpoint = user.mount(archive, at=_mountpoint(user))
    os.kill(user.serving(mountpoint), signal.SIGKILL)
    until(lambda: not user.processes(), "the process ends")
    user.mount(archive, at=mountpoint)
    assert mounted_below(mountpoint) == [str(mountpoint)]
    assert _reads(user, mountpoint / "config") == Archive().config_data


def test_a_name_with_commas_smuggles_nothing_past_fusermount(user: Bench) -> None:
    image = Archive().write(user.folder / "a,b\\,suid c.tar")
    mountpoint = user.mount(image, at=_mountpoint(user))
    mount = the_mount(mountpoint)
    assert mount.source == str(image)
    assert mount.super_options == {"ro", f"user_id={USER}", f"group_id={USER}"}


@pytest.mark.parametrize("named", [True, False])
def test_without_syslog_the_log_is_in_the_users_state_folder(user: Bench, archive: Path, *, named: bool) -> None:
    if os.path.exists("/dev/log"):
        give_up("needs a machine without /dev/log")
    state = user.folder / "home" / ".local" / "state"
    if named:
        state = user.folder / "home" / "xdg"
        user.environment["XDG_STATE_HOME"] = str(state)
    mountpoint = _mountpoint(user)
    log = state / "imgfs" / "imgfs.log"
    done = user.run("mount", archive, mountpoint)
    said = without_figures(done.err)
    assert (done.status, said) == (0, f"imgfs: mounted {archive} on {mountpoint}; log: {log}\n")
    assert stat.filemode(log.stat().st_mode) == "-rw-------"
    assert (log.stat().st_uid, log.parent.stat().st_mode & 0o777) == (USER, 0o700)


def test_a_user_has_a_cache_of_their_own(user: Bench) -> None:
    archive = Archive().write(user.folder / "image.tar")
    del user.environment["IMGFS_CACHE_DIR"]
    mountpoint = _mountpoint(user)
    user.mount(archive, at=mountpoint)
    cache = user.folder / "home" / ".cache" / "imgfs"
    (index,) = until(lambda: list(cache.glob("files/*/index")), "the index is kept")
    assert (index.stat().st_uid, stat.S_IMODE(cache.stat().st_mode)) == (USER, 0o700)


def test_without_a_place_for_a_cache_nothing_is_kept_and_that_is_said(user: Bench) -> None:
    archive = Archive().write(user.folder / "image.tar")
    del user.environment["IMGFS_CACHE_DIR"]
    user.environment["XDG_CACHE_HOME"] = str(user.folder / "caches")
    (user.folder / "caches" / "imgfs").mkdir(parents=True)  # root's
    mountpoint = _mountpoint(user)
    done = user.run("mount", "--log-file", user.log, archive, mountpoint)
    cache = user.folder / "caches" / "imgfs"
    hint = "choose another directory with --cache-dir, or --no-cache"
    said = (
        f"imgfs: warning: continuing without a cache: cannot use the cache {cache}: it belongs to another user; {hint}"
    )
    assert (done.status, done.err.splitlines()[0]) == (0, said)
    assert the_mount(mountpoint).file_system == "fuse.imgfs"
    assert os.listdir(cache) == []
    user.end_mounts()
    named = user.run("mount", "--cache-dir", cache, archive, mountpoint)
    assert (named.status, named.err) == (8, f"imgfs: {said.partition('without a cache: ')[2]}\n")


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("was_there", [True, False])
def test_a_read_only_disk_where_caches_are_is_one_warning_and_nothing_is_kept(
    user: Bench, archive: Path, variable: str, *, was_there: bool
) -> None:
    del user.environment["IMGFS_CACHE_DIR"]
    mountpoint = _mountpoint(user)
    with tmpfs(user.mountpoint("disk")) as disk:
        os.chown(disk, USER, USER)
        user.environment[variable] = str(disk)
        cache = disk / "imgfs" if variable == "XDG_CACHE_HOME" else disk / ".cache" / "imgfs"
        if was_there:
            user.mount(archive, at=mountpoint)
            user.end_mounts()
            until(lambda: not user.processes(), "all is kept")
            assert list(cache.glob("files/*/index"))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        done = user.run("mount", "--log-file", user.log, archive, mountpoint)
        why = "Read-only file system; choose another directory with --cache-dir, or --no-cache"
        assert done.status == 0
        assert without_figures(done.err).replace(f"; log: {user.log}", "").splitlines() == [
            f"imgfs: warning: continuing without a cache: cannot use the cache {cache}: {why}",
            f"imgfs: mounted {archive} on {mountpoint}",
        ]
        assert _reads(user, mountpoint / "config") == Archive().config_data
        assert _reads(user, mountpoint / "rootfs" / "etc" / "motd") == b"hello\n"
        assert user.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not user.processes(), "all processes end")


def test_a_users_process_may_still_start_what_unmounts_for_it(user: Bench, archive: Path) -> None:
    mountpoint = user.mount(archive, at=_mountpoint(user))
    serving = user.serving(mountpoint)
    assert "NoNewPrivs:\t0\n" in Path(f"/proc/{serving}/status").read_text()
    os.kill(serving, signal.SIGTERM)
    user.nothing_left()
