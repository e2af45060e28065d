"""A remote file: reads return its bytes, and fetch each of them at most once, in windows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from fusefs.content.file import OpenFile
from fusefs.content.pieces import FetchFailed, Pieces, Room, Take
from fusefs.content.protocol import Content
from fusefs.content.remote_file import RemoteFile
from fusefs.content.spool import unlinked_file
from fusefs.errors import RegistryError, Unavailable

DATA = Random(3).randbytes(20_000_000)


class Far:
    """The other machine: what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.error: Exception | None = None
        self.bad: int | None = None
        """The offset of a byte that no answer may have."""
        self.sends = False
        """Whether an answer that would have it ends before it, instead of none."""

    def receive(self, start: int, end: int, take: Take) -> None:
        self.asked.append((start, end))
        if self.error is not None:
            raise self.error
        if self.bad is not None and start <= self.bad < end:
            if self.sends:
                take(start, DATA[start : self.bad])
            raise RegistryError("there is no such byte")
        take(start, DATA[start:end])

    def check(self) -> None:
        if isinstance(self.error, Unavailable):
            raise self.error


@pytest.fixture(name="far")
def far_fixture() -> Far:
    return Far()


@pytest.fixture(name="file")
def file_fixture(far: Far, tmp_path: Path) -> Iterator[RemoteFile]:
    local = OpenFile(unlinked_file(str(tmp_path)), "far.tar")
    file = RemoteFile(Pieces(Room(local, str(tmp_path)), len(DATA), far.receive), far.check)
    yield file
    file.close()


def test_reads_return_the_bytes_and_fetch_each_once(far: Far, file: RemoteFile) -> None:
    random = Random(1)
    for _ in range(500):
        offset, size = random.randrange(len(DATA) + 10), random.choice((1, 512, 5000, 300_000))
        assert file.read_at(offset, size) == DATA[offset : offset + size]
        assert file.slice(offset, 1).size == 1
    fetched = sum(end - start for start, end in far.asked)
    assert fetched <= 1.02 * len(DATA)  # small gaps are fetched again


@pytest.mark.parametrize(
    ("step", "requests", "size"),
    [(1000, 14, len(DATA)), (900_000, 14, len(DATA)), (1_100_000, 19, 19 * 16_384)],
)
def test_a_scan_fetches_small_windows_or_everything(
    far: Far, file: RemoteFile, step: int, requests: int, size: int
) -> None:
    for offset in range(0, len(DATA), step):
        assert file.read_at(offset, 512) == DATA[offset : offset + 512]
    assert (len(far.asked) <= requests, sum(end - start for start, end in far.asked) <= size) == (True, True), far.asked


def test_two_readers_do_not_disturb_each_other(far: Far, file: RemoteFile) -> None:
    for offset in range(0, 4_000_000, 100_000):
        for start in (0, 10_000_000):
            assert file.read_at(start + offset, 100_000) == DATA[start + offset : start + offset + 100_000]
    assert len(far.asked) <= 16


def test_a_fetch_asks_for_exactly_what_is_missing(far: Far, file: RemoteFile) -> None:
    extent = file.slice(1_000_000, 2_000_000)
    assert extent.read_cached(0, 10) is None
    assert extent.read_at(0, 10) == DATA[1_000_000:1_000_010]
    extent.slice(0, 2_000_000).fetch()
    assert far.asked == [(1_000_000, 1_016_384), (1_016_384, 3_000_000)]
    assert extent.read_at(1_999_990, 20) == DATA[2_999_990:3_000_000]
    assert extent.read_cached(5, 5) == DATA[1_000_005:1_000_010]
    content: Content = extent
    assert content.file_place() is None
    assert len(far.asked) == 2


@pytest.mark.parametrize("error", [RegistryError("silent"), Unavailable("changed")])
def test_what_is_here_stays_readable_after_an_error(far: Far, file: RemoteFile, error: Exception) -> None:
    assert file.read_at(0, 10) == DATA[:10]
    far.error = error
    with pytest.raises(FetchFailed, match=str(error)):
        file.read_at(1_000_000, 10)
    assert file.read_at(0, 10) == DATA[:10]
    check: Callable[[], None] = file.slice(0, 1).check
    if isinstance(error, Unavailable):
        with pytest.raises(Unavailable):
            check()
    else:
        check()


@pytest.mark.parametrize("sends", [False, True])
@pytest.mark.parametrize("step", [20_000, 131_072])
def test_a_byte_that_is_not_to_be_had_costs_no_others(far: Far, file: RemoteFile, step: int, *, sends: bool) -> None:
    far.bad, far.sends = 7_000_000, sends
    for _ in range(2):
        for offset in range(0, len(DATA), step):
            if offset <= far.bad < offset + step:
                with pytest.raises(FetchFailed, match="no such byte"):
                    file.read_at(offset, step)
            else:
                assert file.read_at(offset, step) == DATA[offset : offset + step]
    failed = [asked for asked in far.asked if asked[0] <= far.bad < asked[1]]
    assert len(failed) <= 12
    assert len(far.asked) <= 60 + 2 * (4 << 20) // step


@pytest.mark.parametrize("step", [512, 1 << 17])
def test_windows_grow_again_after_an_outage(far: Far, file: RemoteFile, step: int) -> None:
    position = 0
    while position < 8 << 20:
        file.read_at(position, step)
        position += step
    while file.has(position, step):
        position += step
    far.error = RegistryError("out")
    with pytest.raises(FetchFailed, match="out"):
        file.read_at(position, step)
    far.error = None
    far.asked.clear()
    for offset in range(position, len(DATA) - step, step):
        assert file.read_at(offset, step) == DATA[offset : offset + step]
    assert len(far.asked) <= 16


def test_a_long_failure_is_one_of_fewer_bytes_unless_these_came(
    far: Far, file: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusefs.content.remote_file._LONG", -1.0)  # each is
    far.bad = 10_000
    with pytest.raises(FetchFailed, match="no such byte"):
        file.read_at(5000, 100)
    assert len(far.asked) == 1
    far.sends = True
    assert file.read_at(8000, 100) == DATA[8000:8100]
    assert file.read_at(5000, 100) == DATA[5000:5100]
