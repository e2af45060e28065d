"""The headers of a tar, and all else of it but the data of files, in a file with holes.

To write each to its place takes longer than to scan them all, and hardly anybody reads them.  So they lie one behind
the other, behind the end of the tar, until somebody does.
"""

import errno
import os
import threading
from array import array
from bisect import bisect_right

from fusefs.content.file import Extent, OpenFile
from fusefs.content.protocol import Bytes, clipped
from fusefs.content.window import Window
from fusefs.errors import NO_ROOM, NoSpace
from fusefs.layers.scan import LayerScan

_MAX_RUN = 1 << 20
_TOGETHER = 1 << 10
"""Runs that are written at once."""
_MAX_HELD, _MAX_RUNS = 16 << 20, 1 << 15
"""Bytes of headers, those of 20,000 members, that are held in memory until the scan; more are written at once."""


class HeldHeaders(Window):
    """The headers in memory, as a scan reads them: a byte source, and its window."""

    def __init__(self, name: str) -> None:
        """*name* is that of the tar."""
        super().__init__(self)
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


class Headers:
    """Takes the bytes of a tar in order.  For use by one thread up to `end`; `tar` is safe under concurrency."""

    def __init__(self, file: OpenFile) -> None:
        """Write into *file*, a new one."""
        self.file = file
        self.size = 0
        """Of the tar, so far."""
        self.are_placed = False
        """Whether all of them are at their places in the file."""
        self._held: HeldHeaders | None = HeldHeaders(file.name)
        self._run: list[bytes] = []
        """Bytes one behind the other that belong to no run yet, and how many they are."""
        self._run_size = 0
        self._starts, self._sizes = array("Q"), array("Q")
        """Where the runs belong that lie behind the end."""
        self._placing = threading.Lock()

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
            write_at(self.file, start, run)
            return
        self._held.add(start, run)
        if self._held.total > _MAX_HELD or len(self._held.runs) > _MAX_RUNS:
            for start, run in zip(self._held.starts, self._held.runs, strict=True):
                write_at(self.file, start, run)
            self._held = None

    def end(self, size: int) -> None:
        """Write all that are not written.  The tar has *size* bytes.  Raises NoSpace."""
        self._end_run()
        self.size = size
        resize(self.file, size)
        if self._held is None:
            self.are_placed = True
            return
        self._held.size = size
        self._starts, self._sizes = self._held.starts, array("Q", map(len, self._held.runs))
        for number in range(0, len(self._sizes), _TOGETHER):
            data = b"".join(self._held.runs[number : number + _TOGETHER])
            write_at(self.file, size, data)
            size += len(data)

    def scan(self) -> LayerScan | None:
        """Return a scan of them if they are held, the first time; None if they must be read from the file."""
        held, self._held = self._held, None
        return None if held is None else LayerScan(held, held)

    def place(self) -> None:
        """Write all to their places, after the end.  Raises NoSpace, or OSError."""
        with self._placing:
            if self.are_placed:
                return
            at = self.size
            for start, size in zip(self._starts, self._sizes, strict=True):
                write_at(self.file, start, Extent(self.file, at, size).read_at(0, size))
                at += size
            self.are_placed = True
            self._starts, self._sizes = array("Q"), array("Q")
            resize(self.file, self.size)


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
