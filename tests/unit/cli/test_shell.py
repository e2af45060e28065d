"""What `imgfs shell` makes of errors, and of what its image's process says."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.cli.commands import shell
from fusefs.container import process
from fusefs.errors import LimitReached, MountError, Unavailable


@pytest.fixture(name="ended")
def process_that_ends() -> Iterator[tuple[int, int]]:
    """Give the descriptor of a process that ends when the second descriptor is closed."""
    reader, writer = os.pipe()
    child = os.posix_spawn("/bin/cat", ["cat"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)])
    os.close(reader)
    served = os.pidfd_open(child)
    yield served, writer
    os.waitpid(child, 0)
    os.close(served)


def test_only_the_message_of_readiness_counts(ended: tuple[int, int]) -> None:
    served, writer = ended
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver, sender:
        for message in (b"STATUS=READY=1", b"", b"READY=0", b"STATUS=x\nREADY=1", b"READY=1x"):
            sender.send(message)
        assert shell._is_ready(receiver, served)
        sender.send(b"READY=1x")
        os.close(writer)
        assert not shell._is_ready(receiver, served)


@pytest.mark.parametrize("runtime", [True, False])
def test_an_error_inside_is_not_one_of_the_place(tmp_path: Path, *, runtime: bool) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)} if runtime else {"XDG_RUNTIME_DIR": "/dev/null"}
    with pytest.raises(BlockingIOError), shell._place(environment):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_an_error_of_the_root_file_system_is_shown(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    for name, message in (
        ("loop", "cannot read the root file system of image: Too many levels of symbolic links"),
        ("file", "image has no root file system"),
        ("none", "image has no root file system"),
    ):
        with pytest.raises(Unavailable) as caught:
            shell._check_directory(str(tmp_path / name), "image")
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OSError(errno.EAGAIN, "x"), LimitReached.exit_code, "cannot start a thread or process; raise the limit"),
        (MemoryError(), LimitReached.exit_code, "out of memory; raise the limit"),
        (OSError(errno.EIO, "x"), MountError.exit_code, "cannot make the container: [Errno 5] x"),
        (ValueError("a\x1b\nb"), MountError.exit_code, r"cannot make the container: ValueError: a\x1b\nb"),
    ],
)
def test_a_process_of_the_container_says_what_has_ended_it(
    capfd: pytest.CaptureFixture[str], error: Exception, status: int, message: str
) -> None:
    assert process._said(error) == status
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"imgfs: {message}")
