"""Where bytes come from."""

import errno
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fusefs.content.file import Extent, OpenFile
from fusefs.content.protocol import Literal, chunks
from tests.support.conformance import check_reads, open_file
from tests.support.pagecache import PAGE, drop_from_cache
from tests.support.requirements import give_up

DATA = random.Random(1).randbytes(64 * PAGE)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OpenFile]:
    """Return an open file with `DATA`."""
    path = tmp_path / "x.tar"
    path.write_bytes(DATA)
    with open_file(path) as opened:
        yield opened


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (0, 1), (7, 5000), (0, len(DATA)), (PAGE, PAGE), (len(DATA), 0)])
def test_an_extent_is_a_run_of_bytes_of_the_file(file: OpenFile, offset: int, size: int) -> None:
    extent = Extent(file, offset, size)
    assert b"".join(chunks(extent)) == DATA[offset : offset + size]
    check_reads(extent)


def test_an_extent_ends_where_it_ends_and_not_where_the_file_does(file: OpenFile) -> None:
    extent = Extent(file, 100, 50)
    assert bytes(extent.read_at(40, 1000)) == DATA[140:150]
    assert extent.read_cached(40, 1000) in (None, DATA[140:150])
    assert [extent.read_at(50, 10), extent.read_at(1 << 40, 10)] == [b"", b""]


def test_a_read_behind_the_largest_offset_is_empty(file: OpenFile) -> None:
    extent = Extent(file, 100, 50)
    assert extent.read_cached((1 << 63) - 1, 10) == b""
    assert extent.read_at((1 << 63) - 1, 10) == b""


def test_what_is_cached_is_read_at_once(file: OpenFile) -> None:
    os.pread(file.descriptor, len(DATA), 0)
    found = Extent(file, 5, 5000).read_cached(10, 100)
    if found is None:
        assert not file._nowait, "the page cache has the file, but it is not used"
        give_up("this file system knows no RWF_NOWAIT")
    assert found == DATA[15:115]


def attempts(file: OpenFile) -> Iterator[None]:
    """Drop *file* from the page cache and yield, as often as the test wants it, then skip the test.

    A virtual disk may answer before whoever asked looks: for a while, not forever.
    """
    os.fsync(file.descriptor)
    os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no page is read ahead
    for _ in range(50):
        if not drop_from_cache(file.descriptor):
            give_up("this file system keeps what it is told to drop")
        yield
        time.sleep(0.1)
    give_up("each read of this file system is answered at once")


def test_a_partly_cached_range_is_never_a_short_read(file: OpenFile) -> None:
    extent = Extent(file, 0, len(DATA))
    for _ in attempts(file):
        found = []
        for offset in range(0, len(DATA), 2 * PAGE):
            assert bytes(extent.read_at(offset, PAGE)) == DATA[offset : offset + PAGE]
            cached = extent.read_cached(offset, 2 * PAGE)
            assert cached is None or cached == DATA[offset : offset + 2 * PAGE]
            found.append(cached)
            assert bytes(extent.read_at(offset, 2 * PAGE)) == DATA[offset : offset + 2 * PAGE]
        if not file._nowait:
            give_up("this file system knows no RWF_NOWAIT")
        if None in found:
            break


def test_what_is_not_cached_is_not_waited_for(file: OpenFile) -> None:
    extent = Extent(file, 0, len(DATA))
    for _ in attempts(file):
        found = [extent.read_cached(offset, 8 * PAGE) for offset in range(0, len(DATA), 8 * PAGE)]
        if not file._nowait:
            give_up("this file system knows no RWF_NOWAIT")
        if None in found:
            break
    # What did not wait is right, and what waits is it, too.
    assert all(part in (None, DATA[at * 8 * PAGE :][: 8 * PAGE]) for at, part in enumerate(found))
    assert bytes(extent.read_at(0, len(DATA))) == DATA


def test_a_file_system_without_nowait_is_asked_once_and_read_by_waiting() -> None:
    with open_file("/proc/version") as file:
        expected = Path("/proc/version").read_bytes()
        extent = Extent(file, 0, len(expected))
        try:
            os.preadv(file.descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP  # noqa: PT017 - the premise of what follows
        else:
            give_up("even /proc knows RWF_NOWAIT here")
        assert extent.read_cached(0, 10) is None
        assert file._nowait is False
        assert extent.read_cached(0, 10) is None
        assert extent.read_at(0, 1000) == expected


def test_a_read_that_the_kernel_cuts_short_is_completed() -> None:
    # A seq_file gives out a page or so for each read, wherever its end is.
    size = 20 * PAGE
    if not os.access("/proc/kallsyms", os.R_OK):
        give_up("needs /proc/kallsyms")
    with open_file("/proc/kallsyms") as file:
        assert 0 < len(os.pread(file.descriptor, size, 0)) < size
        assert bytes(file.read_at(0, size)) == Path("/proc/kallsyms").read_bytes()[:size]


def test_a_file_that_ends_before_its_extent_is_an_input_output_error(file: OpenFile) -> None:
    extent = Extent(file, len(DATA) - 10, 100)
    assert bytes(extent.read_at(0, 10)) == DATA[-10:]
    for offset in (0, 5, 10, 50):
        assert extent.read_cached(offset, 50) is None
        with pytest.raises(OSError, match=r"x\.tar ends before offset") as caught:
            extent.read_at(offset, 50)
        assert (caught.value.errno, caught.value.strerror) == (
            errno.EIO,
            f"x.tar ends before offset {len(DATA) + 90}",
        )


def test_a_file_that_is_truncated_under_us_is_an_input_output_error(file: OpenFile, tmp_path: Path) -> None:
    extent = Extent(file, 100, 5000)
    assert bytes(extent.read_at(0, 5000)) == DATA[100:5100]
    os.truncate(tmp_path / "x.tar", 1100)
    assert bytes(extent.read_at(0, 1000)) == DATA[100:1100]
    with pytest.raises(OSError, match=r"x\.tar ends before offset 5100"):
        extent.read_at(0, 1001)
    assert extent.read_cached(900, 200) is None


def test_a_descriptor_that_is_gone_is_an_error_and_no_empty_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    with open_file(tmp_path / "x") as file:
        extent = Extent(OpenFile(file.descriptor, "x"), 0, 5)
    with pytest.raises(OSError, match="Bad file descriptor"):
        extent.read_at(0, 5)
    with pytest.raises(OSError, match="Bad file descriptor"):
        extent.read_cached(0, 5)


def test_many_threads_read_one_file(file: OpenFile) -> None:
    extent = Extent(file, 0, len(DATA))

    def read(seed: int) -> bool:
        numbers = random.Random(seed)
        places = [(numbers.randrange(len(DATA)), numbers.randrange(3 * PAGE)) for _ in range(200)]
        return all(bytes(extent.read_at(*place)) == DATA[place[0] :][: place[1]] for place in places)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(16))) == [True] * 16


def test_the_length_of_an_open_file_is_what_it_is_now(file: OpenFile, tmp_path: Path) -> None:
    assert file.length() == len(DATA)
    os.truncate(tmp_path / "x.tar", 5)
    assert file.length() == 5


@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_a_literal_is_its_bytes(data: bytes) -> None:
    literal = Literal(data)
    assert literal.size == len(data)
    check_reads(literal)


def test_chunks_are_at_most_a_mebibyte() -> None:
    assert [len(chunk) for chunk in chunks(Literal(bytes((2 << 20) + 1)))] == [1 << 20, 1 << 20, 1]
