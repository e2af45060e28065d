"""A file that its owner changes while it is in use."""

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusefs.content import watched
from fusefs.content.file import Extent, Sparse
from fusefs.content.watched import WatchedFile
from fusefs.errors import Unavailable
from tests.support.conformance import check_reads

DATA = os.urandom(100_000)
Change = Callable[[Path], object]


class Clock:
    """What the file takes for the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that files look at."""
    made = Clock()
    monkeypatch.setattr(watched, "time", made)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return an archive that is an hour old: the clock of files is too coarse for one that is new."""
    path = tmp_path / "x.tar"
    path.write_bytes(DATA)
    os.utime(path, ns=(10**18, 10**18))
    return path


@pytest.fixture
def file(path: Path, clock: Clock) -> Iterator[WatchedFile]:
    """Return it open."""
    assert clock.now
    opened = WatchedFile(os.open(path, os.O_RDONLY), "x.tar")
    yield opened
    opened.close()


def _overwrite(path: Path) -> None:
    with path.open("r+b") as opened:
        opened.write(b"new")


def _overwrite_secretly(path: Path) -> None:
    _overwrite(path)
    os.utime(path, ns=(10**18, 10**18))


def _append(path: Path) -> None:
    with path.open("ab") as opened:
        opened.write(b"more")


def _map(path: Path) -> None:
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[5:8] = b"new"
        mapped.flush()


CHANGES: dict[str, Change] = {
    "truncated": lambda path: os.truncate(path, 10),
    "truncated to nothing": lambda path: os.truncate(path, 0),
    "overwritten": _overwrite,
    "overwritten, its time put back": _overwrite_secretly,
    "written anew": lambda path: path.write_bytes(DATA[::-1]),
    "appended to": _append,
    "grown by a hole": lambda path: os.truncate(path, 1 << 30),
    "touched": os.utime,
    "written through a mapping": _map,
}


def _replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"new")
    path.with_name("new").replace(path)


HARMLESS: dict[str, Change] = {
    "nothing": lambda _: None,
    "read": lambda path: path.read_bytes(),
    "unlinked": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("other")),
    "replaced by renaming": _replace,
    "linked": lambda path: path.with_name("link").hardlink_to(path),
    "closed to others": lambda path: path.chmod(0o600),
    "its folder renamed": lambda path: path.parent.rename(path.parent.with_name("moved")),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_keeps_the_bytes_is_no_change(file: WatchedFile, path: Path, clock: Clock, change: Change) -> None:
    change(path)
    for _ in range(3):
        clock.now += 10
        file.check()
        check_reads(Extent(file, 100, 5000))
        assert bytes(file.read_at(0, len(DATA))) == DATA


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen_when_a_file_is_opened(file: WatchedFile, path: Path, change: Change) -> None:
    extent = Extent(file, 100, 5000)
    extent.check()
    change(path)
    with pytest.raises(Unavailable, match=r"^x\.tar was changed while it is in use; unmount it and mount it again$"):
        extent.check()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen_by_a_read_within_a_second(
    file: WatchedFile, path: Path, clock: Clock, change: Change
) -> None:
    change(path)
    clock.now += 1
    with pytest.raises(Unavailable, match="changed"):
        file.read_at(0, 1)


def test_a_change_is_seen_by_a_cached_read_within_a_second(file: WatchedFile, path: Path, clock: Clock) -> None:
    assert bytes(file.read_at(0, 100)) == DATA[:100]
    _append(path)
    clock.now += 1
    if file._nowait:
        with pytest.raises(Unavailable, match="changed"):
            file.read_cached(0, 1)
    else:
        assert file.read_cached(0, 1) is None


def test_reads_within_a_second_do_not_look(file: WatchedFile, path: Path, clock: Clock) -> None:
    _append(path)
    clock.now += 0.99
    assert bytes(file.read_at(0, 100)) == DATA[:100]
    assert file.read_cached(0, 100) in (None, DATA[:100])


def test_a_read_that_the_file_is_too_short_for_looks_at_once(file: WatchedFile, path: Path) -> None:
    os.truncate(path, 1000)
    assert bytes(file.read_at(0, 1000)) == DATA[:1000]
    with pytest.raises(Unavailable, match="changed"):
        Extent(file, 0, 5000).read_at(0, 5000)


def test_a_file_that_was_too_short_from_the_beginning_is_not_called_changed(file: WatchedFile) -> None:
    with pytest.raises(OSError, match="ends before") as raised:
        Extent(file, 0, len(DATA) + 1).read_at(0, len(DATA) + 1)
    assert raised.value.errno == errno.EIO


def test_a_change_is_for_good_and_always_the_same_error(file: WatchedFile, path: Path, clock: Clock) -> None:
    _append(path)
    errors = []
    for act in (file.check, lambda: file.read_at(0, 1), file.check, lambda: file.read_at(0, 1)):
        with pytest.raises(Unavailable) as raised:
            act()
        errors.append(raised.value)
        os.truncate(path, len(DATA))
        os.utime(path, ns=(10**18, 10**18))
        clock.now += 1
    assert {id(error) for error in errors} == {id(errors[0])}


def test_a_harmless_change_hides_no_other(file: WatchedFile, path: Path, clock: Clock) -> None:
    path.chmod(0o600)
    file.check()
    _overwrite_secretly(path)
    clock.now += 1
    with pytest.raises(Unavailable, match="changed"):
        file.read_at(0, 1)


def test_a_sparse_file_is_looked_at_when_it_is_opened(file: WatchedFile, path: Path) -> None:
    sparse = Sparse(1 << 20, 512, lambda: [(4096, Extent(file, 0, 512))])
    empty = Sparse(1 << 20, 0, list)
    for one in (sparse, empty):
        one.check()
    _append(path)
    empty.check()
    with pytest.raises(Unavailable, match="changed"):
        sparse.check()


def test_a_pipe_is_not_watched() -> None:
    reader, writer = os.pipe()
    pipe = WatchedFile(reader, "standard input")
    os.write(writer, b"hello")
    os.close(writer)
    pipe.check()
    assert os.read(pipe.descriptor, 10) == b"hello"
    pipe.check()
    pipe.close()
