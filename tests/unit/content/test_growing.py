"""A file that another process writes."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fusefs.content.file import OpenFile
from fusefs.content.growing import GrowingFile, report


class Writer:
    """The other process: writes the file and reports."""

    def __init__(self, start: int = 0) -> None:
        self.file = OpenFile(os.memfd_create("growing"), "growing")
        os.write(self.file.descriptor, bytes(start))
        self._reports, self._pipe = os.pipe()
        self.growing = GrowingFile(self.file, start)
        self._following = threading.Thread(target=self.growing.follow, args=(self._reports,))
        self._following.start()
        self._written = 0

    def write(self, data: bytes, *, complete: bool = False, pieces: int = 8) -> None:
        """Write *data*, and report in *pieces* of so many bytes."""
        os.write(self.file.descriptor, data)
        self._written += len(data)
        self.report(self._written, complete=complete, pieces=pieces)

    def report(self, written: int, *, complete: bool, pieces: int = 8) -> None:
        """Report alone."""
        message = report(written, complete=complete)
        for start in range(0, len(message), pieces):
            os.write(self._pipe, message[start : start + pieces])

    def close(self) -> None:
        """End."""
        os.close(self._pipe)
        self._following.join()
        os.close(self._reports)
        self.file.close()


@pytest.fixture
def writer() -> Iterator[Writer]:
    """Return a writer."""
    writer = Writer(start=3)
    yield writer
    writer.close()


@pytest.mark.parametrize("pieces", [1, 3, 8])
def test_reads_wait_for_their_bytes_and_for_the_end(writer: Writer, pieces: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        first, second = pool.submit(writer.growing.read_at, 0, 2), pool.submit(writer.growing.read_at, 2, 10)
        length = pool.submit(writer.growing.length)
        writer.write(b"ab", pieces=pieces)
        assert first.result() == b"ab"
        writer.write(b"cde", pieces=pieces)
        assert not second.done()
        assert not length.done()
        writer.write(b"", complete=True, pieces=pieces)
        assert (second.result(), length.result()) == (b"cde", 5)
    assert writer.growing.read_at(5, 1) == writer.growing.read_at(9, 1) == b""


def test_a_file_that_is_shorter_than_reported_is_a_read_error(writer: Writer) -> None:
    writer.write(b"ab")
    writer.report(4, complete=True)
    with pytest.raises(OSError, match="growing ends before"):
        writer.growing.read_at(0, 4)
