"""Directories and files that nobody else can open, and waits for their locks."""

import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusefs.private import lock_within, make_parents, open_private, private_directory, private_file, try_lock
from tests.support.conformance import closing_what_is_opened
from tests.support.processes import umask_of
from tests.support.requirements import ROOT, need

UMASKS = [0, 0o022, 0o077, 0o377, 0o777]


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


@pytest.fixture(name="folder")
def an_open_folder(tmp_path: Path) -> int:
    """The open directory of the test."""
    return os.open(tmp_path, os.O_RDONLY)


def mode(path: Path) -> int:
    """Return the modes of a file or directory."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", UMASKS)
def test_directories_and_files_have_their_modes_whatever_the_umask_is(tmp_path: Path, folder: int, umask: int) -> None:
    with umask_of(umask):
        make_parents(f"{tmp_path}/a/b/c")
        private_directory("d", folder)
        private_file("f", folder)
    assert {path.name: oct(mode(path)) for path in tmp_path.rglob("*")} == {
        "a": "0o700", "b": "0o700", "d": "0o700", "f": "0o600",
    }  # fmt: skip


def test_parents_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o755)
    make_parents(f"{tmp_path}/a/b")
    make_parents("relative")
    assert mode(tmp_path / "a") == 0o755


@pytest.mark.parametrize("wrong", [0, 0o500, 0o711, 0o755, 0o777])
def test_a_directory_of_ours_gets_its_mode_back(tmp_path: Path, folder: int, wrong: int) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(wrong)
    open_private("d", folder)
    assert mode(tmp_path / "d") == 0o700


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    need(ROOT)
    (tmp_path / "d").mkdir(0o755)
    os.chown(tmp_path / "d", 1234, 0)
    with pytest.raises(PermissionError, match="it belongs to another user"):
        private_directory(f"{tmp_path}/d")
    assert mode(tmp_path / "d") == 0o755


def test_a_link_in_the_place_of_a_directory_is_not_followed(tmp_path: Path, folder: int) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real").chmod(0o755)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(NotADirectoryError):
        private_directory("link", folder)
    assert mode(tmp_path / "real") == 0o755


def _readable(path: Path) -> None:
    path.touch()
    path.chmod(0o644)


def _closed(path: Path) -> None:
    path.touch()
    path.chmod(0)


def _link(path: Path) -> None:
    path.symlink_to("victim")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [_readable, _closed, _link, os.mkfifo, _socket])
def test_what_others_may_have_opened_or_is_no_file_is_replaced(
    tmp_path: Path, folder: int, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "lock")
    file = private_file("lock", folder)
    assert os.fstat(file).st_ino == os.lstat(tmp_path / "lock").st_ino
    assert stat.S_ISREG(os.fstat(file).st_mode)
    assert mode(tmp_path / "lock") == 0o600
    assert not (tmp_path / "victim").exists()


def test_a_private_file_stays_the_same(tmp_path: Path, folder: int) -> None:
    first, second = private_file("lock", folder), private_file("lock", folder)
    assert os.fstat(first).st_ino == os.fstat(second).st_ino
    assert os.listdir(tmp_path) == ["lock"]


def test_a_directory_in_the_place_of_a_file_is_an_error(tmp_path: Path, folder: int) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(IsADirectoryError):
        private_file("lock", folder)


def test_a_wait_for_a_lock_ends(folder: int) -> None:
    holder, waiter = private_file("lock", folder), private_file("lock", folder)
    assert try_lock(holder, fcntl.LOCK_EX)
    assert not try_lock(waiter, fcntl.LOCK_SH)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=re.escape(f"[Errno {errno.ETIMEDOUT}] another process holds its lock")):
        lock_within(waiter, fcntl.LOCK_SH, 0.1)
    assert time.monotonic() - began >= 0.1
    os.close(holder)
    lock_within(waiter, fcntl.LOCK_SH, 0)
