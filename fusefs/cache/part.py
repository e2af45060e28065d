"""Files of a cache entry that fill bit by bit, over several processes: bytes of a blob, and a document about each.

One mount at a time owns a file: it holds the flock(2) of the file, which ends with the process.  Only the owner
writes; others copy what its document names instead of asking a registry for it.  A file whose owner ended is the next
one's, with all that is in it.  A kill leaves the last document, which may name fewer bytes than there are.  A crash of
the machine may leave a document that names too many: who uses the bytes must compare their digest.
"""

import contextlib
import fcntl
import os
import stat
from typing import NamedTuple

from fusefs.cache.entry import CacheEntry
from fusefs.cache.sealed_file import SEAL, Altered, Facts, read_document, write_document
from fusefs.private import private_file, try_lock

_NAMES = ("part", *(f"part-{number}" for number in range(2, 9)))
"""An entry has no more: each fetch looks at all of them."""
PART_FILES = frozenset((*_NAMES, *(name + SEAL for name in _NAMES)))
"""The names of the files and of their documents."""
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OwnPart(NamedTuple):
    """A file, owned by this process as long as the descriptor is open."""

    name: str
    descriptor: int
    facts: Facts
    """The document; empty for a new file."""


class OthersPart(NamedTuple):
    """A file that somebody else owns, who fetches the whole blob."""

    written_ns: int
    """Changes with each byte that is written: when that was, by a clock that may jump."""
    descriptor: int | None
    """The file, open for reading, if its owner has verified all bytes; None: not yet."""


def own_part(entry: CacheEntry) -> OwnPart | None:
    """Become the owner of a file, the one with the most bytes, made if none is free; None if there are too many.

    Raises OSError.
    """
    with entry.deciding():
        about = {name: _read(entry.directory, name) for name in part_names(entry.directory)}
        new = [name for name in _NAMES if name not in about][:1]
        for name in (*sorted(about, key=lambda name: -_present(about[name])), *new):
            descriptor = private_file(name, entry.directory)
            try:
                if try_lock(descriptor, fcntl.LOCK_EX):
                    facts = about.get(name, {})
                    if not _is_about(facts, descriptor):
                        os.truncate(descriptor, 0)
                        facts = {}
                    return OwnPart(name, descriptor, facts)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    return None


def write_facts(entry: CacheEntry, own: OwnPart, facts: Facts) -> None:
    """Replace the document of *own*.  Raises OSError."""
    inode = os.fstat(own.descriptor).st_ino
    with entry.deciding():
        try:
            if os.stat(own.name, dir_fd=entry.directory, follow_symlinks=False).st_ino != inode:
                return
        except FileNotFoundError:  # the blob is complete, in a file of another process
            return
        write_document(entry.directory, own.name + SEAL, {"inode": inode, **facts}, replace=True)


def others_part(entry: CacheEntry) -> OthersPart | None:
    """Return the file of somebody else who fetches the whole blob, the last one that was written; None if nobody does.

    Raises OSError.
    """
    found = None
    with entry.deciding():
        for name in part_names(entry.directory):
            descriptor = os.open(name, _READ_FLAGS, dir_fd=entry.directory)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and not try_lock(descriptor, fcntl.LOCK_SH):
                facts = _read(entry.directory, name)
                facts = facts if _is_about(facts, descriptor) else {}
                if facts.get("verified") is True:
                    return OthersPart(status.st_mtime_ns, descriptor)
                if facts.get("whole", True) and (found is None or status.st_mtime_ns > found.written_ns):
                    found = OthersPart(status.st_mtime_ns, None)
            os.close(descriptor)
    return found


def part_names(directory: int) -> list[str]:
    """Return the names of the files in the entry *directory*.  Raises OSError."""
    return [name for name in os.listdir(directory) if name in _NAMES]


class ReadPart(NamedTuple):
    """The document of a file as it was read."""

    about: tuple[int, int]
    """Inode and mtime (nanoseconds) of the document: another one has others."""
    facts: Facts


def read_part(directory: int, name: str, before: ReadPart | None) -> ReadPart | None:
    """Return the document of the file *name*, or *before* if it has not changed; None if there is none.

    Raises OSError, also if it cannot be read.
    """
    try:
        status = os.stat(name + SEAL, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    about = status.st_ino, status.st_mtime_ns
    return before if before is not None and before.about == about else ReadPart(about, _read(directory, name))


def open_part(directory: int, name: str, facts: Facts) -> int | None:
    """Return the file *name* that *facts* is about, open for reading; None if it is gone.  Raises OSError."""
    try:
        descriptor = os.open(name, _READ_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return None
    if _is_about(facts, descriptor):
        return descriptor
    os.close(descriptor)
    return None


class PartSize(NamedTuple):
    """How much of a blob is there, in bytes."""

    present: int
    total: int


def part_size(directory: int) -> PartSize | None:
    """Return how much the files in the entry *directory* have together, None if it has none."""
    documents = [facts for name in part_names(directory) if (facts := _read(directory, name))]
    present = reached = 0
    for start, end in sorted(each for facts in documents for each in facts["ranges"]):
        present += max(0, end - max(start, reached))
        reached = max(reached, end)
    return PartSize(present, documents[0]["size"]) if documents else None


def _read(directory: int, name: str) -> Facts:
    """Return the document of the file *name*, empty if it has none."""
    with contextlib.suppress(Altered):
        return read_document(directory, name + SEAL) or {}
    return {}


def _is_about(facts: Facts, descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and facts.get("inode") == status.st_ino


def _present(facts: Facts) -> int:
    """Return how many bytes a document names."""
    return sum(end - start for start, end in facts.get("ranges", ()))
