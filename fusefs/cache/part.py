"""A file of a cache entry that fills bit by bit, over several processes: its bytes, and a document about them.

One process at a time owns the file: it holds the flock(2) of the file, which ends with the process.  Only the owner
writes.  The document names the bytes that are there.  A kill leaves the last document, which may name fewer bytes.
A crash of the machine may leave a document that names too many: who uses the bytes must compare their digest.
"""

import contextlib
import fcntl
import os
import stat
from typing import NamedTuple

from fusefs.cache.entry import CacheEntry
from fusefs.cache.sealed_file import SEAL, Altered, Facts, read_document, write_document
from fusefs.private import private_file, try_lock

PART = "part"


class OwnPart(NamedTuple):
    """The file, owned by this process as long as the descriptor is open."""

    descriptor: int
    facts: Facts
    """The document; empty for a new file."""


class OthersPart(NamedTuple):
    """The file while another process owns it."""

    written_ns: int
    """Changes with each byte that is written: when that was, by a clock that may jump."""
    descriptor: int | None
    """The file, open for reading, if its owner has verified all bytes; None: not yet."""


def own_part(entry: CacheEntry) -> OwnPart | None:
    """Become the owner of the file, made if there is none; None if another process owns it.  Raises OSError."""
    with entry.deciding():
        descriptor = private_file(PART, entry.directory)
        try:
            if not try_lock(descriptor, fcntl.LOCK_EX):
                os.close(descriptor)
                return None
            facts = _facts(entry, descriptor)
            if not facts:
                os.truncate(descriptor, 0)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise
    return OwnPart(descriptor, facts)


def write_facts(entry: CacheEntry, descriptor: int, facts: Facts) -> None:
    """Replace the document of the file *descriptor*, which this process owns.  Raises OSError."""
    inode = os.fstat(descriptor).st_ino
    with entry.deciding():
        try:
            if os.stat(PART, dir_fd=entry.directory, follow_symlinks=False).st_ino != inode:
                return
        except FileNotFoundError:  # another process has completed its own file of the blob
            return
        write_document(entry.directory, PART + SEAL, {"inode": inode, **facts}, replace=True)


def others_part(entry: CacheEntry) -> OthersPart | None:
    """Return the state of the file if another process owns it; None if nobody does.  Raises OSError."""
    with entry.deciding():
        try:
            descriptor = os.open(PART, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.directory)
        except FileNotFoundError:
            return None
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and not try_lock(descriptor, fcntl.LOCK_SH):
            if _facts(entry, descriptor).get("verified") is True:
                return OthersPart(status.st_mtime_ns, descriptor)
            os.close(descriptor)
            return OthersPart(status.st_mtime_ns, None)
        os.close(descriptor)
    return None


class PartSize(NamedTuple):
    """How much of a file is there, in bytes."""

    present: int
    total: int


def part_size(directory: int) -> PartSize | None:
    """Return how much of the file in the entry *directory* is there, None if the entry has no such file."""
    with contextlib.suppress(Altered):
        facts = read_document(directory, PART + SEAL)
        if facts is not None:
            return PartSize(sum(end - start for start, end in facts["ranges"]), facts["size"])
    return None


def _facts(entry: CacheEntry, descriptor: int) -> Facts:
    """Return the document of the file *descriptor*, empty if it has none."""
    with contextlib.suppress(Altered):
        facts = read_document(entry.directory, PART + SEAL)
        if facts is not None and facts.get("inode") == os.fstat(descriptor).st_ino:
            return facts
    return {}
