"""Other users' mounts and directories: nothing that they name, move or never answer decides what root's imgfs does."""

import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs.mount.mountinfo import mounts
from fusefs.mount.unmounting import unmount_all
from tests.drills.hostile_environment import has_locales, latin1
from tests.programs import planted, silent_server
from tests.support.builders import Archive, layer
from tests.support.file_systems import tmpfs
from tests.support.mounts import COMMAND, Bench, Finished, mounted_below
from tests.support.processes import mounts_at, until
from tests.support.requirements import give_up, need
from tests.support.users import USER, users_bench

__all__ = ["users_bench"]

_PATIENCE = 10.0
"""Seconds for each command, also on a busy machine; the mounts of others never answer."""


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """A small image."""
    return Archive().write(imgfs.folder / "image.tar")


@contextmanager
def silent(mountpoint: Path) -> Iterator[subprocess.Popen[str]]:
    """Mount what never answers, as another user's imgfs."""
    words = [sys.executable, silent_server.__file__, str(mountpoint), str(USER)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield server
        finally:
            server.kill()  # which ends the connection and all who wait
            server.wait()
            subprocess.run(["umount", "-l", mountpoint], check=False, stderr=subprocess.DEVNULL)


def _in_time(imgfs: Bench, *words: str | Path) -> Finished:
    began = time.monotonic()
    done = imgfs.run(*words)
    assert time.monotonic() - began < _PATIENCE
    return done


def test_list_does_not_wait_for_a_server_that_never_answers(imgfs: Bench) -> None:
    mountpoint = imgfs.mountpoint()
    with silent(mountpoint):
        done = _in_time(imgfs, "list")
        assert (done.status, done.err) == (0, "")
        (line,) = (line for line in done.out.splitlines() if line.startswith(f"{mountpoint} "))
        assert line.endswith("  stuck")


def test_nothing_is_mounted_on_another_users_mount_and_it_is_not_asked(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mountpoint()
    with silent(mountpoint):
        for path in (mountpoint, mountpoint / "below"):
            done = _in_time(imgfs, "mount", "--log-file", imgfs.log, archive, path)
            assert (done.status, done.out, done.err.count("\n")) == (9, "", 1)
            assert done.err.startswith(f"imgfs: cannot mount on {path}: ")


def test_a_mount_of_the_table_that_is_gone_by_now_is_no_failure(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    (listed,) = (mount for mount in mounts() if mount.mountpoint == str(mountpoint))
    assert imgfs.run("umount", mountpoint).status == 0
    assert unmount_all([listed], lazily=False) == []
    assert unmount_all([str(mountpoint)], lazily=False) != []


def test_umount_goes_on_behind_a_path_that_never_answers(imgfs: Bench, archive: Path) -> None:
    mountpoint, other = imgfs.mountpoint("silent"), imgfs.mount(archive)
    with silent(mountpoint):
        paths = [mountpoint / "below", mountpoint / "beside"]
        done = _in_time(imgfs, "umount", paths[0], other, paths[1])
        reasons = "; ".join(f"cannot unmount {path}: it does not answer" for path in paths)
        assert done == Finished(9, "", f"imgfs: {reasons}\n")
        assert not mounts_at(other)


@pytest.mark.parametrize("options", [[], ["-l"]])
def test_umount_takes_away_a_mount_that_never_answers(imgfs: Bench, options: list[str]) -> None:
    mountpoint = imgfs.mountpoint()
    with silent(mountpoint):
        assert _in_time(imgfs, "umount", *options, mountpoint) == Finished(0, "", "")
        assert mounted_below(mountpoint) == []


def test_umount_aborts_another_users_mount_in_which_somebody_waits(imgfs: Bench) -> None:
    mountpoint = imgfs.mountpoint()
    with silent(mountpoint):
        client = subprocess.Popen(["stat", mountpoint / "x"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: "wait_answer" in Path(f"/proc/{client.pid}/wchan").read_text(), "a client waits")
        assert _in_time(imgfs, "umount", mountpoint) == Finished(0, "", "")
        assert client.wait(10) == 1
        assert mounted_below(mountpoint) == []


def _swapped(imgfs: Bench) -> tuple[Path, Path, str]:
    """Return a directory whose parent another user owns, a victim's, and the fault that leads from one to the other."""
    mountpoint = imgfs.folder / "theirs" / "here" / "mnt"
    victim = imgfs.folder / "victim" / "mnt"
    for path in (mountpoint, victim):
        path.mkdir(parents=True)
    os.chown(mountpoint.parent.parent, USER, USER)
    return mountpoint, victim, f"swap={mountpoint.parent}={victim.parent}"


@pytest.mark.parametrize("options", [["-a"], ["-a", "-l"], ["PATH"], ["-l", "PATH"]])
def test_umount_takes_what_it_looked_at_though_a_link_leads_elsewhere(
    imgfs: Bench, archive: Path, options: list[str]
) -> None:
    need("unshare")
    mountpoint, victim, fault = _swapped(imgfs)
    imgfs.mount(archive, at=mountpoint)
    command = [sys.executable, planted.__file__, fault, "umount", *options]
    command = [str(mountpoint) if word == "PATH" else word for word in command]
    with tmpfs(victim):
        # In a namespace of its own, so that it takes none of other tests' or people's.
        script = '"$@"; exec cat /proc/self/mountinfo'
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]
        done = subprocess.run(
            words, env=imgfs.environment, capture_output=True, text=True, check=True, errors="replace"
        )
        assert f" {victim} " in done.stdout
        assert mountpoint.parent.is_symlink()
    moved = mountpoint.parent.with_name("here.moved") / "mnt"
    assert imgfs.run("umount", moved) == Finished(0, "", "")


def test_a_mount_is_on_the_directory_that_was_checked(imgfs: Bench, archive: Path) -> None:
    mountpoint, victim, _ = _swapped(imgfs)
    fifo = imgfs.folder / "fifo.tar"
    os.mkfifo(fifo)
    process = imgfs.start("mount", "--log-file", imgfs.log, fifo, mountpoint)

    def opened() -> int | None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None

    writer = until(opened, "the image is read, after the check") or 0
    planted.swap(str(mountpoint.parent), str(victim.parent))
    os.set_blocking(writer, True)
    with open(writer, "wb") as pipe:
        pipe.write(archive.read_bytes())
    process.communicate(timeout=20)
    assert process.returncode == 0
    moved = mountpoint.parent.with_name("here.moved") / "mnt"
    assert mounted_below(imgfs.folder) == [str(moved)]
    assert imgfs.run("umount", moved) == Finished(0, "", "")
    imgfs.nothing_left()


def test_a_lock_on_the_directory_keeps_nobody_from_it(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mountpoint()
    need("flock", "setpriv")
    words = ["setpriv", f"--reuid={USER}", "--clear-groups", "flock", "-x", str(mountpoint), "sh", "-c", "echo; cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
        assert locker.stdout is not None
        assert locker.stdout.readline() == b"\n"
        imgfs.mount(archive, at=mountpoint)
        locker.communicate(b"")


@pytest.mark.parametrize("name", ["a\rb", "a\x85b", os.fsdecode(b"a\xffb"), "a\x0cb"])
def test_the_mounts_of_users_are_listed_and_taken_away_whatever_they_are_called(user: Bench, name: str) -> None:
    archive = Archive().write(user.folder / "image.tar")
    mountpoint = user.mountpoint(name)
    os.chown(mountpoint, USER, USER)
    assert user.run("mount", "-q", "--log-file", user.log, archive, mountpoint) == Finished(0, "", "")
    user.command = (COMMAND,)
    done = user.run("list")
    assert (done.status, done.err) == (0, "")
    assert user.run("umount", mountpoint) == Finished(0, "", "")


def test_without_proc_there_is_one_line(imgfs: Bench) -> None:
    need("unshare")
    script = 'umount -l /proc; for c in list "umount -a" "umount /" "mount x.tar /mnt"; do "$0" $c; echo $?; done'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, COMMAND]
    done = subprocess.run(words, env=imgfs.environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["9"] * 4
    assert done.stderr.count("\n") == 4
    assert "Traceback" not in done.stderr


def _with_signals(setup: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import os, signal, sys; {setup}; os.execv(sys.argv[1], sys.argv[1:])", COMMAND)


def test_an_ignored_sigchld_of_the_caller_changes_nothing(imgfs: Bench, archive: Path) -> None:
    imgfs.command = _with_signals("signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    mountpoint = imgfs.mount(archive)
    with (mountpoint / "config").open("rb"):
        assert imgfs.run("umount", mountpoint).status == 9
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU])
def test_a_blocked_signal_of_the_caller_still_ends_the_mount(
    imgfs: Bench, archive: Path, number: signal.Signals
) -> None:
    imgfs.command = _with_signals(f"signal.pthread_sigmask(signal.SIG_BLOCK, [{number:d}, signal.SIGCHLD])")
    process = imgfs.foreground(archive)
    process.send_signal(number)
    assert (*process.communicate(timeout=10), process.returncode) == ("", "", 0)
    imgfs.nothing_left()


@pytest.mark.parametrize("length", [1000, 3000])
def test_an_image_with_a_long_path_is_mounted(imgfs: Bench, length: int) -> None:
    folder = imgfs.folder.joinpath(*["é" * 100] * (length // 200))
    folder.mkdir(parents=True)
    archive = Archive().write(folder / "image.tar")
    mountpoint = imgfs.mount(archive)
    assert os.getxattr(mountpoint, "user.imgfs.image") == os.fsencode(archive)


_MAX_SOURCE = 1024
"""Bytes of the device's name as libfuse gets it."""


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize(("unit", "escaped"), [("x", 1), ("é", 6), (",", 2)])
@pytest.mark.parametrize("mounter", ["imgfs", "user"])
def test_a_device_of_just_too_long_a_name_is_shortened(
    request: pytest.FixtureRequest, mounter: str, unit: str, escaped: int, over: int
) -> None:
    bench: Bench = request.getfixturevalue(mounter)
    room = _MAX_SOURCE + over - len(f"{bench.folder}/")
    name = unit * ((room - 100) // escaped)  # the rest is in the name of the file
    path = bench.folder.joinpath(*(name[at : at + 100] for at in range(0, len(name), 100)))
    path.mkdir(parents=True)
    length = sum(escaped if char == unit else 1 for char in f"{path}/")
    archive = Archive().write(path / ("a" * (_MAX_SOURCE + over - length)))
    mountpoint = bench.mountpoint()
    os.chown(mountpoint, USER, USER)
    done = bench.run("mount", "-q", "--log-file", bench.log, archive, mountpoint)
    assert done == Finished(0, "", "")
    (mount,) = mounts_at(mountpoint)
    assert mount.source.startswith("%E2%80%A6") == (over > 0)


@pytest.mark.parametrize("files", [10, 12, 14, 16])
def test_too_few_files_are_one_line_or_enough(imgfs: Bench, archive: Path, files: int) -> None:
    imgfs.command = ("sh", "-c", f'ulimit -n {files}; exec "$0" "$@"', COMMAND)
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--no-cache", "--log-file", imgfs.log, archive, mountpoint)
    (line,) = done.err.splitlines()
    assert done.status in (0, 10)
    if done.status == 0:
        assert (mountpoint / "config").read_bytes() == Archive().config_data
        imgfs.command = (COMMAND,)
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        return
    assert "oo many open files" in line
    assert "bug" not in line


def test_in_a_locale_of_latin_1_a_warning_in_other_letters_does_not_decide_what_is_read(imgfs: Bench) -> None:
    need("localedef")
    if not has_locales():
        give_up("needs the sources of locales, /usr/share/i18n")
    imgfs.log_is_quiet = False
    imgfs.environment |= {name: str(value) for name, value in latin1(imgfs).items()}
    codeset = "import locale; locale.setlocale(locale.LC_ALL, ''); print(locale.nl_langinfo(locale.CODESET))"
    words = [sys.executable, "-c", codeset]
    assert subprocess.run(words, env=imgfs.environment, capture_output=True, check=True).stdout == b"ISO-8859-1\n"
    data = layer({"zeros": bytes(16 << 20), "\u4e00/.wh.": b""})
    mountpoint = imgfs.mount(Archive(layers=(data,)).write(imgfs.folder / "image.tar"))
    assert (mountpoint / "layers" / "0" / "zeros").stat().st_size == 16 << 20
    assert (mountpoint / "rootfs" / "zeros").read_bytes() == bytes(16 << 20)
    assert "the first: \u4e00/.wh.: a whiteout without a name" in imgfs.log.read_text(encoding="utf-8")


def test_made_up_file_handles_are_stale_and_leave_nothing_in_the_log(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    number = os.stat(mountpoint / "rootfs" / "etc").st_ino
    folder = os.open(mountpoint, os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        for inode in (number | 0xFFFF_FFFF, number | 0xFFFF_0000_0000, number | 12345, 1 << 62, 999_999, (1 << 64) - 1):
            handle = struct.pack("=IiIII", 12, 0x81, inode >> 32, inode & 0xFFFF_FFFF, 0)  # fs/fuse/inode.c
            assert libc.open_by_handle_at(folder, handle, os.O_RDONLY) == -1
            assert ctypes.get_errno() == errno.ESTALE
    finally:
        os.close(folder)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    assert not imgfs.log.exists() or imgfs.log.read_text() == ""
