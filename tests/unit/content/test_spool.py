"""The temporary file that one thread writes and another follows."""

import errno
import os
import resource
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fusefs.content.spool import Spool, free_space, megabytes, no_space
from tests.support.processes import unprivileged
from tests.support.spools import fill, refusal, spool_in

_TIMEOUT = 20


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        spool.write(b"hello ", 11)
        spool.write(b"world", 11)
        spool.finish()
        assert (spool.written, spool.length(), spool.file.length()) == (11, 11, 11)
        assert [bytes(spool.read_at(*place)) for place in ((0, 11), (6, 100), (11, 5), (100, 5))] == [
            b"hello world",
            b"world",
            b"",
            b"",
        ]


def test_the_file_has_no_name_and_is_ours_alone(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        status = os.fstat(spool.file.descriptor)
        assert (status.st_nlink, status.st_mode & 0o777, status.st_uid) == (0, 0o600, os.geteuid())
        assert list(tmp_path.iterdir()) == []
        assert not os.get_inheritable(spool.file.descriptor)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_without_o_tmpfile_the_file_is_unlinked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    # NFS, for one, knows no O_TMPFILE; none such can be mounted here.
    real = os.open
    names = []

    def without_tmpfile(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        names.append(os.path.relpath(path, tmp_path))
        return real(path, flags, mode)

    monkeypatch.setattr("fusefs.content.spool.os.open", without_tmpfile)
    with spool_in(tmp_path) as spool:
        monkeypatch.undo()
        status = os.fstat(spool.file.descriptor)
        assert (status.st_nlink, status.st_mode & 0o777) == (0, 0o600)
        assert list(tmp_path.iterdir()) == []
        spool.write(b"hello", 5)
        spool.finish()
        assert bytes(spool.read_at(0, 5)) == b"hello"
    assert len(names) == 1
    assert names[0].startswith(f"imgfs-{os.getpid()}-")


@pytest.mark.parametrize(
    ("directory", "reason"),
    [
        ("gone", "No such file or directory"),
        ("file", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_directory_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    message = f"cannot write in {directory}: {reason}; choose another directory with --tmpdir"
    assert refusal(lambda: Spool(directory, "nginx")) == message


def test_a_file_system_that_takes_no_files_is_named() -> None:
    reason = os.strerror(errno.ENOENT if os.geteuid() == 0 else errno.EACCES)
    message = f"cannot write in /proc: {reason}; choose another directory with --tmpdir"
    assert refusal(lambda: Spool("/proc", "nginx")) == message


def test_a_directory_that_we_may_not_write_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    message = f"cannot write in {folder}: Permission denied; choose another directory with --tmpdir"
    with unprivileged():
        assert refusal(lambda: Spool(str(folder), "nginx")) == message


def test_the_follower_waits_for_what_is_still_to_come(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool, ThreadPoolExecutor(1) as pool:
        spool.write(b"01234", 15)
        first = pool.submit(spool.read_at, 0, 10)
        assert waits(first)
        spool.write(b"56789", 15)
        assert first.result(_TIMEOUT) == b"0123456789"
        spool.write(b"abcde", 15)
        last = pool.submit(spool.read_at, 8, 10)
        assert waits(last)
        spool.finish()
        assert last.result(_TIMEOUT) == b"89abcde"


def test_the_length_is_known_at_the_end(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool, ThreadPoolExecutor(1) as pool:
        spool.write(b"hello", 5)
        length = pool.submit(spool.length)
        assert waits(length)
        spool.finish()
        assert length.result(_TIMEOUT) == 5


def waits(future: "Future[Any]") -> bool:
    """Return whether *future* has no result soon."""
    return not wait([future], timeout=0.05).done


def test_the_follower_sees_each_byte_once_and_in_order(tmp_path: Path) -> None:
    chunks = [bytes([n % 251]) * (n % 4000) for n in range(2000)]

    with spool_in(tmp_path) as spool, ThreadPoolExecutor(1) as pool:

        def follow() -> bytes:
            parts: list[bytes] = []
            offset = 0
            while part := bytes(spool.read_at(offset, 1000)):
                parts.append(part)
                offset += len(part)
            return b"".join(parts)

        followed = pool.submit(follow)
        for chunk in chunks:
            spool.write(chunk, 0)
        spool.finish()
        assert followed.result(_TIMEOUT) == b"".join(chunks)


def test_an_error_closes_the_file_and_success_does_not(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Spool(str(tmp_path), "nginx") as failed:
        raise ZeroDivisionError
    with pytest.raises(OSError, match="Bad file descriptor"):
        failed.file.length()
    with Spool(str(tmp_path), "nginx") as kept:
        kept.write(b"hello", 5)
        kept.finish()
    with closing(kept.file):
        assert bytes(kept.file.read_at(0, 5)) == b"hello"


def test_a_limit_on_the_size_of_files_is_an_error_too(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with spool_in(tmp_path) as spool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            message = refusal(lambda: fill(spool, needed=1000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # Not "not enough space": there is, and a message with both numbers would contradict itself.
    assert message == f"cannot write in {tmp_path}: File too large; choose another directory with --tmpdir"


def test_the_free_space_of_no_directory_is_an_error(tmp_path: Path) -> None:
    message = f"cannot write in {tmp_path}/gone: No such file or directory; choose another directory with --tmpdir"
    assert refusal(lambda: free_space(f"{tmp_path}/gone")) == message


def test_sizes_are_told_in_megabytes() -> None:
    assert [megabytes(size) for size in (0, 49_999, 1_250_000_000_000)] == ["0.0 MB", "0.0 MB", "1,250,000.0 MB"]
    assert str(no_space("a", "/b", 2_000_000, 1_000_000)) == (
        "not enough space for a in /b: need 2.0 MB, have 1.0 MB; choose another directory with --tmpdir"
    )
