"""The life of a mount: how it begins, what serves it, how it ends."""

import contextlib
import errno
import logging
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.errors import ImgfsError
from fusefs.mount.background import in_background
from tests.support.builders import Archive, layer
from tests.support.mounts import Bench, Finished, mounted_below, tree, without_figures
from tests.support.processes import until
from tests.support.requirements import need

PLANTED = (sys.executable, str(Path(__file__).parents[2] / "programs" / "planted.py"))
STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """A small image."""
    return Archive().write(imgfs.folder / "image.tar")


def _held(process: Path) -> list[str]:
    """Return what a process has open, but not libffi's own file, which some versions of that keep open."""
    found = []
    for entry in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed by now
            target = os.readlink(entry)
            if target.startswith("/") and int(entry.name) > 2 and "/libffi.so." not in target:
                found.append(target)
    return sorted(found)


def test_the_process_in_the_background_has_let_go_of_everything(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive, "--no-cache")
    process = Path(f"/proc/{imgfs.serving(mountpoint)}")
    fields = (process / "stat").read_text().rpartition(") ")[2].split()
    session, terminal = int(fields[3]), int(fields[4])
    assert (session, terminal) == (int(process.name), 0)
    assert os.readlink(process / "cwd") == "/"
    assert [os.readlink(process / "fd" / str(number)) for number in (0, 1, 2)] == ["/dev/null"] * 3
    expected = sorted(["/dev/fuse", str(archive), str(imgfs.log)])
    until(lambda: _held(process) == expected, "nothing else is open, once all modules are imported")


@pytest.mark.parametrize("kind", [ImgfsError, *ImgfsError.__subclasses__()])
def test_an_error_in_the_background_is_the_same_in_the_foreground(kind: type[ImgfsError]) -> None:
    def run(_ready: Callable[[], None]) -> None:
        raise kind("42 is what is wrong: ä\udcff")

    with pytest.raises(ImgfsError, match=r"^42 is what is wrong: ä\\udcff$") as raised:
        in_background(run, logging.NullHandler())
    assert type(raised.value) is kind


def test_the_log_is_for_its_owner_only(imgfs: Bench, archive: Path) -> None:
    imgfs.mount(archive)
    assert stat.filemode(imgfs.log.stat().st_mode) == "-rw-------"


def test_the_log_says_which_signal_ended_the_mount(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    os.kill(imgfs.serving(mountpoint), signal.SIGTERM)
    imgfs.nothing_left()
    assert [line.split("]: ")[1] for line in imgfs.log.read_text().splitlines()] == ["INFO: SIGTERM: unmounting"]


def test_quiet_says_nothing(imgfs: Bench, archive: Path) -> None:
    assert imgfs.run("mount", "-q", "--log-file", imgfs.log, archive, imgfs.mountpoint()) == Finished(0, "", "")


def test_a_full_stderr_changes_neither_what_is_done_nor_the_exit_status(imgfs: Bench, archive: Path) -> None:
    with Path("/dev/full").open("wb") as full:

        def status(*words: object) -> int:
            command = [*imgfs.command, *map(str, words)]
            return subprocess.run(command, env=imgfs.environment, stderr=full, check=False).returncode

        mountpoint = imgfs.mountpoint()
        assert status("mount", "--log-file", imgfs.log, archive, mountpoint) == 0
        assert (mountpoint / "config").read_bytes() == Archive().config_data
        assert status("ls", imgfs.folder / "no.tar") == 4
        assert status("mount", "--log-file", imgfs.log, archive, mountpoint) == 9
        assert status("umount", mountpoint) == 0


def test_paths_may_be_relative_and_through_a_link(imgfs: Bench, archive: Path) -> None:
    (imgfs.folder / "link").symlink_to(imgfs.mountpoint())
    done = imgfs.run("mount", "--log-file", "log", f"./{archive.name}", "link/")
    assert (done.status, without_figures(done.err)) == (0, "imgfs: mounted ./image.tar on link/; log: log\n")
    assert (imgfs.folder / "mnt" / "config").read_bytes() == Archive().config_data
    assert imgfs.run("umount", "link") == Finished(0, "", "")
    imgfs.nothing_left()


@pytest.mark.parametrize(
    "name",
    ["a b", "a,b", "back\\slash", "tab\t", "new\nline", "-o", "hash#", "ü", b"\xff".decode(errors="surrogateescape")],
)
def test_a_mountpoint_may_be_called_anything(imgfs: Bench, archive: Path, name: str) -> None:
    mountpoint = imgfs.mountpoint(name)
    assert imgfs.run("mount", "-q", "--log-file", "log", archive, mountpoint) == Finished(0, "", "")
    assert (mountpoint / "config").read_bytes() == Archive().config_data
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()


@pytest.mark.parametrize("closed", ["0<&-", "0<&- 1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_parent_may_have_closed_the_standard_streams(imgfs: Bench, archive: Path, closed: str) -> None:
    mountpoint = imgfs.mountpoint()
    script = f"exec {shlex.join(imgfs.command)} mount -v --log-file log {archive} {mountpoint} {closed}"
    done = subprocess.run(["sh", "-c", script], env=imgfs.environment, cwd=imgfs.folder, check=False, timeout=60)
    assert done.returncode == 0
    assert tree(mountpoint)["config"] == Archive().config_data
    os.kill(imgfs.serving(mountpoint), signal.SIGTERM)
    imgfs.nothing_left()
    assert "SIGTERM: unmounting" in imgfs.log.read_text()


def test_a_mount_outlives_its_terminal(imgfs: Bench, archive: Path) -> None:
    need("script")
    mountpoint = imgfs.mountpoint()
    command = shlex.join([*imgfs.command, "mount", "-q", "--log-file", str(imgfs.log), str(archive), str(mountpoint)])
    subprocess.run(
        ["script", "-qec", command, "/dev/null"], env=imgfs.environment, check=True, stdin=subprocess.DEVNULL
    )
    assert (mountpoint / "config").read_bytes() == Archive().config_data
    os.kill(imgfs.serving(mountpoint), 0)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_ends_the_foreground_with_status_0(imgfs: Bench, archive: Path, number: int) -> None:
    process = imgfs.foreground(archive)
    process.send_signal(number)
    assert (*process.communicate(timeout=10), process.returncode) == ("", "", 0)
    imgfs.nothing_left()


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_ends_the_background_while_files_are_open(imgfs: Bench, archive: Path, number: int) -> None:
    mountpoint = imgfs.mount(archive)
    file, folder = os.open(mountpoint / "config", os.O_RDONLY), os.open(mountpoint / "blobs", os.O_RDONLY)
    os.kill(imgfs.serving(mountpoint), number)
    imgfs.nothing_left()
    with pytest.raises(OSError, match=r".") as raised:
        os.stat("sha256", dir_fd=folder)
    assert raised.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    for descriptor in (file, folder):
        with contextlib.suppress(OSError):  # closing is a request too, and nobody answers
            os.close(descriptor)


def test_signals_while_unmounting_leave_nothing_behind(imgfs: Bench, archive: Path) -> None:
    process = imgfs.foreground(archive)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        process.send_signal(number)
    out, err = process.communicate(timeout=10)
    # One that comes when all is done, just before the end, may have its usual effect.
    assert out == ""
    assert "Traceback" not in err
    imgfs.nothing_left()


@pytest.mark.parametrize("program", [["umount"], ["fusermount3", "-u"], ["umount", "-l"], ["umount", "-f"]])
def test_other_programs_unmount_and_the_process_ends(imgfs: Bench, archive: Path, program: list[str]) -> None:
    mountpoint = imgfs.mount(archive)
    subprocess.run([*program, mountpoint], check=True)
    imgfs.nothing_left()


def test_the_mount_ends_well_while_many_files_are_closed(imgfs: Bench) -> None:
    names = [f"f{number}" for number in range(900)]
    archive = Archive([layer(dict.fromkeys(names, b"x"))]).write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mountpoint()
    for _ in range(12):  # the kernel takes a request back that is being read in one of some eight
        imgfs.mount(archive, at=mountpoint)
        with contextlib.ExitStack() as files:
            for name in names:
                files.callback(os.close, os.open(mountpoint / "rootfs" / name, os.O_RDONLY))
            subprocess.run(["umount", "-l", mountpoint], check=True)
        imgfs.nothing_left()


def test_the_foreground_ends_with_status_0_when_it_is_unmounted(imgfs: Bench, archive: Path) -> None:
    process = imgfs.foreground(archive)
    assert imgfs.run("umount", imgfs.folder / "mnt") == Finished(0, "", "")
    assert (*process.communicate(timeout=10), process.returncode) == ("", "", 0)


def test_the_foreground_may_have_a_log_too(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mountpoint()
    process = imgfs.start("mount", "-f", "--log-file", imgfs.log, archive, mountpoint)
    assert process.stderr is not None
    said = without_figures(process.stderr.readline())
    assert said == f"imgfs: mounted {archive} on {mountpoint}; log: {imgfs.log}\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "INFO: SIGTERM: unmounting" in imgfs.log.read_text()


def test_mounting_works_again_after_unmounting(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mountpoint()
    for _ in range(3):
        imgfs.mount(archive, at=mountpoint)
        assert (mountpoint / "config").read_bytes() == Archive().config_data
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()


def test_twenty_mounts_at_once_all_work(imgfs: Bench, archive: Path) -> None:
    mountpoints = [imgfs.mountpoint(f"mnt{number}") for number in range(20)]
    started = [imgfs.start("mount", "-q", "--log-file", "log", archive, path) for path in mountpoints]
    assert [(*process.communicate(timeout=60), process.returncode) for process in started] == [("", "", 0)] * 20
    assert len(mounted_below(imgfs.folder)) == 20
    for path in mountpoints:
        assert (path / "config").read_bytes() == Archive().config_data
    ended = [imgfs.start("umount", path) for path in mountpoints]
    assert [(*process.communicate(timeout=60), process.returncode) for process in ended] == [("", "", 0)] * 20
    imgfs.nothing_left()


def test_of_many_mounts_on_one_directory_one_wins(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mountpoint()
    started = [imgfs.start("mount", "-q", "--log-file", "log", archive, mountpoint) for _ in range(8)]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert [mount.rstrip("/") for mount in mounted_below(mountpoint)] == [str(mountpoint)]
    assert sorted(status for _, status in ended) == [0, *[9] * 7]
    assert (mountpoint / "config").read_bytes() == Archive().config_data


def test_a_mount_keeps_nothing_open_that_its_caller_had(imgfs: Bench, archive: Path) -> None:
    reader, writer = os.pipe()
    mountpoint = imgfs.mountpoint()
    process = imgfs.start("mount", "-q", "--log-file", "log", archive, mountpoint, pass_fds=[writer])
    os.close(writer)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b""  # comes to an end, while the mount is there
    assert (mountpoint / "config").read_bytes() == Archive().config_data


def test_a_crash_of_a_handler_is_an_io_error_for_one_caller(imgfs: Bench, archive: Path) -> None:
    imgfs.command = (*PLANTED, "crash")
    imgfs.log_is_quiet = False
    mountpoint = imgfs.mount(archive)
    with pytest.raises(OSError, match=r".") as raised:
        tree(mountpoint)
    assert raised.value.errno == errno.EIO
    assert (mountpoint / "config").read_bytes() == Archive().config_data
    log = imgfs.log.read_text()
    assert "ERROR: read: a bug\nTraceback (most recent call last):\n" in log
    assert "ZeroDivisionError: planted at 0\n" in log
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")


@pytest.fixture(name="gate")
def fifo(imgfs: Bench) -> Path:
    """What a slow start waits for."""
    path = imgfs.folder / "gate"
    os.mkfifo(path)
    imgfs.command = (*PLANTED, f"slow-start={path}")
    return path


def _opened(gate: Path) -> int:
    """Return *gate*, open for writing, once somebody waits at it."""

    def attempt() -> int | None:
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    return until(attempt, "the mount starts") or 0


def test_no_mount_stays_when_the_parent_is_killed_before_it_is_ready(imgfs: Bench, archive: Path, gate: Path) -> None:
    parent = imgfs.start("mount", "--log-file", imgfs.log, archive, imgfs.mountpoint())
    opened = _opened(gate)
    parent.kill()
    parent.wait()
    assert len(imgfs.processes()) == 2  # the child that is going to try the mount, too
    os.close(opened)
    imgfs.nothing_left()


def test_no_mount_stays_when_the_parent_is_interrupted_before_it_is_ready(
    imgfs: Bench, archive: Path, gate: Path
) -> None:
    parent = imgfs.start("mount", "--log-file", imgfs.log, archive, imgfs.mountpoint())
    opened = _opened(gate)
    parent.send_signal(signal.SIGINT)
    os.close(opened)
    assert (*parent.communicate(timeout=10), parent.returncode) == ("", "imgfs: interrupted\n", 130)
    imgfs.nothing_left()


def test_the_parent_waits_until_the_mount_is_usable(imgfs: Bench, archive: Path, gate: Path) -> None:
    mountpoint = imgfs.mountpoint()
    parent = imgfs.start("mount", "-q", "--log-file", imgfs.log, archive, mountpoint)
    opened = _opened(gate)
    assert parent.poll() is None
    os.close(opened)
    assert parent.wait(10) == 0
    assert (mountpoint / "config").read_bytes() == Archive().config_data
