"""Spools of the tests: opened, filled, and refused."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fusefs.content.spool import Spool
from fusefs.errors import ImgfsError, NoSpace
from fusefs.sources.archive.spooling import spool_tar
from tests.support.builders import archive_of, directory, member, symlink
from tests.support.conformance import open_descriptors

BIG = bytes(range(256)) * 10_000
TAR = archive_of(directory("d"), member("d/a", b"hello"), member("big", BIG), symlink("l", "d/a"), member("empty"))


@contextmanager
def spool_in(directory: Path) -> Iterator[Spool]:
    """Open a spool in *directory* and close it in any case."""
    with Spool(str(directory), "nginx") as spool, closing(spool.file):
        yield spool


def refusal(act: Callable[[], object]) -> str:
    """Return the message of the NoSpace that *act* raises."""
    with pytest.raises(NoSpace) as caught:
        act()
    return str(caught.value)


def fill(spool: Spool, needed: int) -> None:
    """Write until that fails."""
    while True:
        spool.write(bytes(100_000), needed)


def failure(stream: Iterator[bytes], directory: Path) -> Exception:
    """Return what is raised for *stream*; neither a descriptor nor a thread may be left."""
    before, threads = open_descriptors(), threading.active_count()
    with pytest.raises((ImgfsError, OSError)) as caught, Spool(str(directory), "x") as spool:
        spool_tar(stream, spool, 0)
    assert (open_descriptors() <= before, threading.active_count()) == (True, threads)
    return caught.value
