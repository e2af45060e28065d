"""Files of a cache entry that fill bit by bit, over several processes: bytes of a blob, and notes about each.

One mount at a time owns a file: it holds the flock(2) of the file, which ends with the process.  Only the owner writes;
others copy what the notes name instead of asking a registry for it.  A file whose owner ended is the next one's, with
all that is in it.

The notes of ``part`` are in ``part.seal``: a header, and a record for each range that arrived or was dropped, in this
order.  They are written after the bytes, so a kill leaves notes that are right.  A crash of the machine may leave notes
that name too much: who uses the bytes must compare their digest.
"""

import contextlib
import fcntl
import os
import stat
import struct
import threading
from enum import IntEnum
from typing import NamedTuple

from fusefs.cache.entry import BLOB, PARTS, CacheEntry
from fusefs.cache.sealed_file import SEAL
from fusefs.private import private_file, try_lock
from fusefs.ranges import Range, Ranges

_MAGIC = b"imgfs p1"
_HEADER = struct.Struct("<8s2Q16sQ")
"""The magic, the inode of the file, the size of the blob in bytes, a random stamp, and a `Fetching`."""
_STATE = struct.Struct("<Q")
"""The last number of the header."""
_RECORD = struct.Struct("<QQ")
"""The first byte of a range and the one behind its last; the other way around if it was dropped."""
_STEP = 4096 * _RECORD.size
"""Bytes of notes that are read at once."""
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Fetching(IntEnum):
    """What the owner of a file does."""

    PIECES = 0
    """It fetches what is read."""
    EVERYTHING = 1
    """It fetches all that is missing."""
    VERIFIED = 2
    """All bytes are there, and were compared with the digest."""


class _Header(NamedTuple):
    inode: int
    size: int
    stamp: bytes
    """What tells these notes from later ones in the same files: a file system may use numbers of inodes again."""
    fetching: int


class Part:
    """A file that this mount owns as long as `descriptor` is open.

    Safe under concurrency: `_lock` guards the notes.
    """

    def __init__(self, name: str, descriptor: int, notes: int) -> None:
        """Use the locked file *descriptor*, and its open *notes*."""
        self.name = name
        self.descriptor = descriptor
        self.present = Ranges()
        """The bytes that were there when it became ours."""
        self._notes = notes
        self._end = _HEADER.size
        self._last = (0, 0)
        self._lock = threading.Lock()

    def begin(self, size: int) -> None:
        """Look at what is there of a blob of *size* bytes.  Raises OSError."""
        status = os.fstat(self.descriptor)
        header = _header(self._notes)
        if header is None or header[:2] != (status.st_ino, size) or not status.st_size:
            os.truncate(self.descriptor, 0)
            os.truncate(self._notes, 0)
            os.pwrite(self._notes, _HEADER.pack(_MAGIC, status.st_ino, size, os.urandom(16), Fetching.PIECES), 0)
            return
        self.tell(Fetching.PIECES)
        noted = Ranges()
        self._end = _read_records(self._notes, self._end, noted)
        self.present = Ranges(noted.within(0, status.st_size))  # a crash of the machine may have taken the last bytes

    def add(self, start: int, end: int) -> None:
        """Note that the bytes from *start* up to *end* are there.  Raises OSError."""
        with self._lock:
            if start and start == self._last[1]:  # bytes in order are one record
                start, self._end = self._last[0], self._end - _RECORD.size
            self._last = start, end
            self._append(start, end)

    def remove(self, start: int, end: int) -> None:
        """Note that the bytes from *start* up to *end* are not there any more.  Raises OSError."""
        with self._lock:
            self._last = (0, 0)
            self._append(end, start)

    def tell(self, fetching: Fetching) -> None:
        """Note what this mount does.  Raises OSError."""
        with self._lock:
            if self._notes >= 0:
                os.pwrite(self._notes, _STATE.pack(fetching), _HEADER.size - _STATE.size)

    def close(self) -> None:
        """Note nothing any more; `descriptor` stays open."""
        with self._lock:
            if self._notes >= 0:
                os.close(self._notes)
            self._notes = -1

    def _append(self, first: int, last: int) -> None:
        if self._notes >= 0:
            os.pwrite(self._notes, _RECORD.pack(first, last), self._end)
            self._end += _RECORD.size


def own_part(entry: CacheEntry, size: int) -> Part | None:
    """Become the owner of a file of a blob of *size* bytes: the fullest that is free, otherwise a new one.

    Other free files are removed if it has all of their bytes.  Returns None if there are too many, or if the whole blob
    is there.  Raises OSError.
    """
    directory = entry.directory
    free: list[Part] = []
    with entry.deciding():
        if _has_blob(directory):
            return None
        names = part_names(directory)
        try:
            for name in names:
                _take(directory, name, size, free)
            if not free:
                for name in [name for name in PARTS if name not in names][:1]:
                    _take(directory, name, size, free)
            best = max(free, key=lambda part: part.present.total, default=None)
            for part in free:
                if best is not None and part is not best and all(best.present.cover(*each) for each in part.present):
                    os.unlink(part.name + SEAL, dir_fd=directory)
                    os.unlink(part.name, dir_fd=directory)
        except BaseException:
            best = None
            raise
        finally:
            for part in free:
                if part is not best:
                    part.close()
                    os.close(part.descriptor)
    return best


class OthersPart(NamedTuple):
    """A file that somebody else owns, who fetches the whole blob."""

    written_ns: int
    """Changes with each byte that is written: when that was, by a clock that may jump."""
    descriptor: int | None
    """The file, open for reading, if its owner has verified all bytes; None: not yet."""


def others_part(entry: CacheEntry) -> OthersPart | None:
    """Return the file of somebody else who fetches the whole blob, the last one that was written; None if nobody does.

    Raises OSError.
    """
    found = None
    with entry.deciding():
        for name in part_names(entry.directory):
            notes = _open_notes(entry.directory, name)
            if notes is None:
                continue
            os.close(notes.descriptor)
            header = notes.header
            descriptor = open_noted(entry.directory, name, header.inode)
            if descriptor is None:
                continue
            written_ns = os.fstat(descriptor).st_mtime_ns
            owned = not try_lock(descriptor, fcntl.LOCK_SH)
            if owned and header.fetching == Fetching.VERIFIED:
                return OthersPart(written_ns, descriptor)
            os.close(descriptor)
            if owned and header.fetching == Fetching.EVERYTHING and (found is None or written_ns > found.written_ns):
                found = OthersPart(written_ns, None)
    return found


def part_names(directory: int) -> list[str]:
    """Return the names of the files in the entry *directory*.  Raises OSError."""
    return [name for name in os.listdir(directory) if name in PARTS]


class Notes:
    """What the notes of a file name, as far as they were read.  Not safe under concurrency."""

    def __init__(self, header: _Header) -> None:
        """Start with nothing; see `read_notes`."""
        self.inode, _, self._stamp, _ = header
        self.ranges = Ranges()
        self._end = _HEADER.size

    def read(self, notes: int) -> None:
        """Read what was added to the open file *notes*.  Raises OSError."""
        begin = max(_HEADER.size, self._end - _RECORD.size)  # the last record may have grown
        self._end = _read_records(notes, begin, self.ranges)

    def goes_on_in(self, header: _Header) -> bool:
        """Return whether these notes were read from the file with this *header*."""
        return self._stamp == header.stamp


def read_notes(directory: int, name: str, before: Notes | None) -> Notes | None:
    """Return the notes of the file *name*, which are *before* and what was added; None if there are none.

    Raises OSError.
    """
    opened = _open_notes(directory, name)
    if opened is None:
        return None
    try:
        notes = before if before is not None and before.goes_on_in(opened.header) else Notes(opened.header)
        notes.read(opened.descriptor)
    finally:
        os.close(opened.descriptor)
    return notes


def open_noted(directory: int, name: str, inode: int) -> int | None:
    """Return the file *name*, open for reading; None if it is gone, or not that with this *inode*.  Raises OSError."""
    try:
        descriptor = os.open(name, _READ_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_ino == inode:
        return descriptor
    os.close(descriptor)
    return None


class PartSize(NamedTuple):
    """How much of a blob is there, in bytes."""

    present: int
    total: int


def part_size(directory: int, size: int) -> PartSize | None:
    """Return how much of a blob of *size* bytes is in the entry *directory*, None if all of it is.  Raises OSError."""
    if not size or _has_blob(directory):
        return None
    notes = [found for name in part_names(directory) if (found := read_notes(directory, name, None)) is not None]
    return PartSize(Ranges(each for found in notes for each in found.ranges).total, size)


def _has_blob(directory: int) -> bool:
    return BLOB + SEAL in os.listdir(directory)


def _take(directory: int, name: str, size: int, taken: list[Part]) -> None:
    """Append the file *name*, made if it is missing, to *taken*, unless it has an owner."""
    descriptor = private_file(name, directory)
    try:
        if not try_lock(descriptor, fcntl.LOCK_EX):
            os.close(descriptor)
            return
        notes = private_file(name + SEAL, directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    taken.append(Part(name, descriptor, notes))
    taken[-1].begin(size)


class _OpenNotes(NamedTuple):
    descriptor: int
    header: _Header


def _open_notes(directory: int, name: str) -> _OpenNotes | None:
    """Open the notes of the file *name*; None if there are none."""
    try:
        descriptor = os.open(name + SEAL, _READ_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        header = _header(descriptor) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except BaseException:
        os.close(descriptor)
        raise
    if header is None:
        os.close(descriptor)
        return None
    return _OpenNotes(descriptor, header)


def _header(notes: int) -> _Header | None:
    """Return the header of *notes*; None if it has none."""
    data = os.pread(notes, _HEADER.size, 0)
    if len(data) < _HEADER.size:
        return None
    magic, *header = _HEADER.unpack(data)
    return _Header(*header) if magic == _MAGIC else None


def _read_records(notes: int, offset: int, ranges: Ranges) -> int:
    """Change *ranges* by the records from *offset* on; return where the last one ends."""
    arrived: list[Range] = []
    while len(data := os.pread(notes, _STEP, offset)) >= _RECORD.size:
        data = data[: len(data) // _RECORD.size * _RECORD.size]
        for first, last in _RECORD.iter_unpack(data):
            if first < last:
                arrived.append((first, last))
            else:
                ranges.add_all(arrived)
                arrived.clear()
                ranges.remove(last, first)
        offset += len(data)
    ranges.add_all(arrived)
    return offset
