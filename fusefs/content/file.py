"""Contents in an open file."""

import errno
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import ClassVar

from fusefs.content.pagecache import is_cached
from fusefs.content.protocol import Buffer, Bytes, Content, FilePlace, Slice, clipped


class OpenFile:
    """A descriptor shared by extents, and a name for messages.

    Safe under concurrency: `pread` has no shared position.  `_nowait` changes only from True to False.
    Reads return the right bytes with any value of `_nowait` and `_waiting`.
    """

    _waiting: ClassVar[set[int]] = set()
    """The threads in `read_at` of any file, since all files may be on one disk."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self._nowait = True

    def length(self) -> int:
        """Return the current size of the file in bytes."""
        return os.fstat(self.descriptor).st_size

    def slice(self, offset: int, size: int) -> "Extent":
        """Return a run of bytes, without reading them."""
        return Extent(self, offset, size)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* on, fewer only at the end of the file."""
        thread = threading.get_ident()
        self._waiting.add(thread)
        try:
            return self._read_at(offset, size)
        finally:
            self._waiting.discard(thread)

    def _read_at(self, offset: int, size: int) -> bytes:
        data = os.pread(self.descriptor, size, offset)
        if len(data) in (0, size):
            return data
        # A signal or a network file system may shorten a read; only an empty read means the end of the file.
        parts = [data]
        missing = size - len(data)
        while missing and (data := os.pread(self.descriptor, missing, offset + size - missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return *size* bytes from *offset* on if all of them are in the page cache, else None."""
        if not self._nowait:
            return None
        # RWF_NOWAIT starts to read missing pages, which blocks when the queue of the disk is full.  So while
        # other threads wait for a disk, read only if cachestat(2) reports that all pages are cached.
        if self._waiting and is_cached(self.descriptor, offset, size) is False:
            return None
        data = bytearray(size) if buffer is None or len(buffer) < size else buffer[:size]
        try:
            count = os.preadv(self.descriptor, (data,), offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            self._nowait = False  # the file system does not support RWF_NOWAIT
            return None
        # A short count means a partly cached range or the end of the file; a waiting read distinguishes them.
        return data if count == size else None

    def check(self) -> None:
        """Do nothing: nobody but imgfs writes to the file."""

    def close(self) -> None:
        """Close the descriptor; later reads raise OSError (EBADF).  Closing twice is allowed."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1  # the system reuses the number for the next file


class OwnFile(OpenFile):
    """A file that is closed when nobody refers to it any more."""

    def __del__(self) -> None:
        """Close it."""
        self.close()


class Extent:
    """A run of bytes in an open file."""

    __slots__ = ("file", "offset", "size")

    def __init__(self, file: OpenFile, offset: int, size: int) -> None:
        self.file = file
        self.offset = offset
        self.size = size

    @property
    def stored(self) -> int:
        """All bytes are stored."""
        return self.size

    @property
    def identity(self) -> str:
        """The offset in the file: the layers of an image are in one file, or in one file per digest."""
        return str(self.offset)

    def slice(self, offset: int, size: int) -> "Extent":
        """Return a run of bytes in the same file."""
        return Extent(self.file, self.offset + offset, size)

    @property
    def is_here(self) -> bool:
        """Whether no read waits for another machine."""
        return True

    def file_place(self) -> FilePlace:
        """Return the position of the bytes."""
        return FilePlace(self.file.descriptor, self.offset)

    def fetch(self) -> None:
        """Do nothing: the bytes are here."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes; OSError (EIO) if the file ends before the extent."""
        size = clipped(self.size, offset, size)
        if not size:
            return b""
        data = self.file.read_at(self.offset + offset, size)
        if len(data) < size:
            raise OSError(errno.EIO, f"{self.file.name} ends before offset {self.offset + self.size}")
        return data

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the bytes if all of them are in the page cache, else None."""
        size = clipped(self.size, offset, size)
        return self.file.read_cached(self.offset + offset, size, buffer) if size else b""

    def check(self) -> None:
        """Raise Unavailable if the bytes are known to be gone."""
        self.file.check()

    def close(self) -> None:
        """Close the file, and so all its extents."""
        self.file.close()


class Sparse:
    """A file with holes: runs of stored bytes, and zeros between them.

    The first read loads the runs, which may be many.  Safe under concurrency: two threads that load them
    get the same runs.
    """

    __slots__ = ("_load", "_runs", "size", "stored")

    def __init__(self, size: int, stored: int, load: Callable[[], Sequence[tuple[int, Content]]]) -> None:
        """*load* returns each run with its offset in this file; offsets ascend and runs do not overlap."""
        self.size = size
        self.stored = stored
        self._load = load
        self._runs: tuple[list[int], list[Content]] | None = None

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes."""
        data = self._filled(offset, size, lambda run, start, count: run.read_at(start, count))
        assert data is not None  # `read_at` of a run never returns None
        return data

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:  # noqa: ARG002
        """Return the bytes in new memory if all of them are in the page cache, else None."""
        return self._filled(offset, size, lambda run, start, count: run.read_cached(start, count))

    @property
    def identity(self) -> str:
        """The identity of the first run; all files of one size without a run have the same bytes."""
        return " ".join(["sparse", *(run.identity for run in self._loaded()[1][:1])])

    def runs(self) -> Sequence[tuple[int, Content]]:
        """Return each run of stored bytes with its offset in this file, in order."""
        return list(zip(*self._loaded(), strict=True))

    def slice(self, offset: int, size: int) -> Content:
        """Return a part of the bytes."""
        return Slice(self, offset, size)

    def file_place(self) -> None:
        """Return None: the bytes are not contiguous."""

    def fetch(self) -> None:
        """Fetch the file of the runs."""
        for run in self._loaded()[1][:1]:
            run.fetch()

    def check(self) -> None:
        """Raise Unavailable if the bytes are known to be gone."""
        for run in self._loaded()[1][:1]:  # all runs are in one file
            run.check()

    def close(self) -> None:
        """Close the file of the runs."""
        for run in self._loaded()[1][:1]:
            run.close()

    def _loaded(self) -> tuple[list[int], list[Content]]:
        if self._runs is None:
            pairs = self._load()
            self._runs = [start for start, _ in pairs], [run for _, run in pairs]
        return self._runs

    def _filled(self, offset: int, size: int, read: Callable[[Content, int, int], Buffer | None]) -> Bytes | None:
        offsets, runs = self._loaded()
        size = clipped(self.size, offset, size)
        buffer = bytearray(size)
        for number in range(max(0, bisect_right(offsets, offset) - 1), len(runs)):
            start, run = offsets[number], runs[number]
            if start >= offset + size:
                break
            begin, end = max(start, offset), min(start + run.size, offset + size)
            if begin < end:
                data = read(run, begin - start, end - begin)
                if data is None:
                    return None
                buffer[begin - offset : end - offset] = data
        return buffer
