"""What the kernel says of a file's pages."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.content.pagecache import is_cached
from tests.support.pagecache import PAGE, drop_from_cache
from tests.support.requirements import give_up


@pytest.fixture(name="file")
def a_file(tmp_path: Path) -> Iterator[int]:
    """A file of 64 pages and a byte, of which the first and the last two are in the page cache."""
    path = tmp_path / "file"
    with path.open("wb", buffering=0) as file:
        file.write(bytes(64 * PAGE + 1))
        os.fsync(file.fileno())
    descriptor = os.open(path, os.O_RDONLY)
    if is_cached(descriptor, 0, 1) is None:
        give_up("this kernel has no cachestat(2)")
    if not drop_from_cache(descriptor):
        give_up("this file system forgets nothing")
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no page is read ahead
    os.pread(descriptor, 1, 0)
    os.pread(descriptor, PAGE + 1, 63 * PAGE)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("offset", "size", "cached"),
    [
        (0, 1, True),
        (0, PAGE, True),
        (PAGE - 1, 1, True),
        (PAGE - 1, 2, False),
        (0, PAGE + 1, False),
        (PAGE, 1, False),
        (62 * PAGE, PAGE + 1, False),
        (63 * PAGE - 1, 2, False),
        (63 * PAGE, PAGE + 1, True),
        (64 * PAGE, 1, True),
        (0, 64 * PAGE + 1, False),
    ],
)
def test_a_range_is_cached_if_each_of_its_pages_is(file: int, offset: int, size: int, cached: bool) -> None:  # noqa: FBT001
    assert is_cached(file, offset, size) is cached


def test_of_what_is_no_open_file_nothing_is_known() -> None:
    file = os.open("/", os.O_PATH)
    assert is_cached(file, 0, 1) is None
    os.close(file)
