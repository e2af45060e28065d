"""The headers of a tar, and all else of it but the data of files, in a file with holes.

To write each to its place takes longer than to scan them all, and hardly anybody reads them.  So they lie one behind
the other, behind the end of the tar.
"""

import errno
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate

from fusefs.content.file import Extent, OpenFile
from fusefs.content.protocol import Buffer, Bytes, Content, FilePlace, Slice, clipped
from fusefs.content.window import Window
from fusefs.errors import NO_ROOM, NoSpace

_MAX_RUN = 1 << 20
_TOGETHER = 1 << 10
"""Runs that are written at once."""
_MAX_HELD, _MAX_RUNS = 16 << 20, 1 << 15
"""Bytes of headers, those of 20,000 members, that are held in memory until the scan; more are written at once."""


class HeldHeaders(Window):
    """The headers in memory, as a scan reads them: a byte source, and its window."""

    def __init__(self, name: str) -> None:
        """*name* is that of the tar."""
        self.data, self.start = b"", 0  # not those of a window that refers to itself: memory would be freed late
        self.name = name
        self.size = 0
        """Of the tar."""
        self.runs: list[bytes] = []
        self.starts = array("Q")
        """Their offsets in the tar."""
        self.total = 0
        """The bytes of all runs."""

    def add(self, start: int, run: bytes) -> None:
        """Add a run behind the others."""
        self.starts.append(start)
        self.runs.append(run)
        self.total += len(run)

    def reach(self, offset: int, least: int) -> bool:
        """Move to the run of *offset*; return whether it has *least* bytes from there on."""
        number = bisect_right(self.starts, offset) - 1
        if number < 0:
            return False
        self.start, self.data = self.starts[number], self.runs[number]
        return offset - self.start <= len(self.data) - least

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return bytes, zeros between the runs; fewer only at the end."""
        data = bytearray(clipped(self.size, offset, size))
        end = offset + len(data)
        for number in range(max(0, bisect_right(self.starts, offset) - 1), bisect_right(self.starts, end)):
            start, run = self.starts[number], self.runs[number]
            first, last = max(start, offset), min(start + len(run), end)
            if first < last:
                data[first - offset : last - offset] = run[first - start : last - start]
        return data

    def length(self) -> int:
        """Return the size of the tar."""
        return self.size


class HeaderTar:
    """The tar with holes: headers, and zeros in place of what nobody has written.  Safe under concurrency.

    The bytes that were written to their places in the file are there, besides.
    """

    def __init__(self, file: OpenFile, size: int, starts: "array[int]", sizes: Iterable[int]) -> None:
        """Find the runs of headers that begin at *starts* one behind the other, behind the tar's *size* bytes."""
        self.file = file
        self.size = self.stored = size
        self._tar = Extent(file, 0, size)
        self._starts = starts
        self._places = array("Q", accumulate(sizes, initial=size))

    @property
    def identity(self) -> str:
        """Always the same: the digest alone distinguishes the bytes."""
        return "0"

    def slice(self, offset: int, size: int) -> Content:
        """Return a part of the bytes."""
        return Slice(self, offset, size)

    def file_place(self) -> FilePlace | None:
        """Return the position of the bytes, None if they are not contiguous."""
        return None if self._starts else self._tar.file_place()

    def fetch(self) -> None:
        """Do nothing: the bytes are here."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes; OSError if they cannot be read."""
        data = self._tar.read_at(offset, size)
        runs = self._runs(offset, len(data))
        if not runs:
            return data
        mixed = bytearray(data)
        base = self._places[runs.start]
        stored = memoryview(self.file.read_at(base, self._places[runs.stop] - base))
        for number in runs:
            run = stored[self._places[number] - base : self._places[number + 1] - base]
            at = self._starts[number] - offset
            run = run[max(0, -at) : len(data) - at]
            mixed[max(0, at) : max(0, at) + len(run)] = run
        return mixed

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the bytes if they are in the page cache and none is of a header behind the end, else None."""
        return None if self._runs(offset, size) else self._tar.read_cached(offset, size, buffer)

    def _runs(self, offset: int, size: int) -> range:
        """Return the numbers of the runs that overlap a part of the tar."""
        first = bisect_right(self._starts, offset) - 1
        if first < 0 or self._starts[first] + self._places[first + 1] - self._places[first] <= offset:
            first += 1
        return range(first, bisect_left(self._starts, offset + size))

    def check(self) -> None:
        """Do nothing: the file is one of this process."""

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Headers:
    """Takes the bytes of a tar in order.  For use by one thread."""

    def __init__(self, file: OpenFile) -> None:
        """Write into *file*, a new one."""
        self.size = 0
        """Of the tar, so far."""
        self._file = file
        self._held: HeldHeaders | None = HeldHeaders(file.name)
        self._run: list[bytes] = []
        """Bytes one behind the other that belong to no run yet, and how many they are."""
        self._run_size = 0

    def add(self, data: bytes) -> None:
        """Add *data*.  Raises NoSpace."""
        self._run.append(data)
        self._run_size += len(data)
        self.size += len(data)
        if self._run_size > _MAX_RUN:
            self._end_run()

    def skip(self, size: int) -> None:
        """Leave a hole for *size* bytes.  Raises NoSpace."""
        if size:
            self._end_run()
            self.size += size

    def _end_run(self) -> None:
        start, run = self.size - self._run_size, b"".join(self._run)
        self._run.clear()
        self._run_size = 0
        if not run:
            return
        if self._held is None:
            write_at(self._file, start, run)
            return
        self._held.add(start, run)
        if self._held.total > _MAX_HELD or len(self._held.runs) > _MAX_RUNS:
            for start, run in zip(self._held.starts, self._held.runs, strict=True):
                write_at(self._file, start, run)
            self._held = None

    def end(self, size: int) -> tuple[HeaderTar, HeldHeaders | None]:
        """Write all that are not written; return the tar, of *size* bytes, and all headers in memory if they are held.

        Raises NoSpace.
        """
        self._end_run()
        resize(self._file, size)
        held, self._held = self._held, None
        if held is None:
            return HeaderTar(self._file, size, array("Q"), ()), None
        held.size = size
        at = size
        for number in range(0, len(held.runs), _TOGETHER):
            data = b"".join(held.runs[number : number + _TOGETHER])
            write_at(self._file, at, data)
            at += len(data)
        return HeaderTar(self._file, size, held.starts, map(len, held.runs)), held


def write_at(file: OpenFile, offset: int, data: Bytes) -> None:
    """Write *data* into *file* at *offset*; NoSpace if there is no room."""
    view = memoryview(data)
    try:
        while view:
            count = os.pwrite(file.descriptor, view, offset)
            view, offset = view[count:], offset + count
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise NoSpace(f"no space for pieces of {file.name}: {error.strerror}; choose another directory") from None
    except OverflowError:
        raise OSError(errno.EFBIG, f"{file.name} is too large") from None


def resize(file: OpenFile, size: int) -> None:
    """Let *file* have *size* bytes; what was not written reads as zeros."""
    try:
        os.ftruncate(file.descriptor, size)
    except OSError as error:
        raise NoSpace(f"no space for {size} bytes of {file.name}: {error.strerror}; choose another directory") from None
