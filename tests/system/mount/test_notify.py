"""What a service tells systemd: when the mount is usable, and when it ends."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.mounts import Bench, Finished, mounted_below


@pytest.fixture(name="manager", params=["a path", "an abstract name"])
def service_manager(imgfs: Bench, request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket as systemd's, and its address in the environment."""
    address = f"{imgfs.folder}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        abstract = request.param == "an abstract name"
        manager.bind(f"\0{address}" if abstract else address)
        imgfs.environment["NOTIFY_SOCKET"] = f"@{address}" if abstract else address
        yield manager


def test_a_mount_in_the_foreground_says_when_it_is_usable_and_when_it_ends(
    imgfs: Bench, manager: socket.socket
) -> None:
    archive = Archive().write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mountpoint()
    process = imgfs.start("mount", "-f", archive, mountpoint)
    assert manager.recv(100) == b"READY=1"
    assert (mountpoint / "config").read_bytes() == Archive().config_data
    process.send_signal(signal.SIGTERM)
    assert manager.recv(100) == b"STOPPING=1"
    assert process.wait(20) == 0
    assert mounted_below(mountpoint) == []


def test_a_mount_that_fails_is_never_ready(imgfs: Bench, manager: socket.socket) -> None:
    assert imgfs.run("mount", "-f", imgfs.folder / "none.tar", imgfs.mountpoint()).status == 4
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_one_in_the_background_is_no_service(imgfs: Bench, manager: socket.socket) -> None:
    imgfs.mount(Archive().write(imgfs.folder / "image.tar"))
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_it_is_mounted_also_when_nobody_listens(imgfs: Bench) -> None:
    imgfs.environment["NOTIFY_SOCKET"] = f"{imgfs.folder}/none"
    archive: Path = Archive().write(imgfs.folder / "image.tar")
    process = imgfs.foreground(archive)
    assert process.stderr is not None
    why = "No such file or directory"
    assert process.stderr.readline() == f"imgfs: warning: cannot send READY=1 to the service manager: {why}\n"
    process.send_signal(signal.SIGTERM)
    assert Finished(process.wait(20), "", "").status == 0
