"""Surveys all entries of a cache, with one open directory at a time: there may be more entries than descriptors.

Every function needs the lock of `Cache.deciding`.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fusefs.cache.entry import INDEX, files, has_leftovers
from fusefs.cache.sealed_file import lock, open_directory

_NO_ENTRY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of opening a name that is not an entry, or was removed."""


@dataclass(slots=True)
class SurveyedEntry:
    """The state of an entry, valid while the caller holds the lock of the cache."""

    kind: str
    key: str
    identity: tuple[int, int]
    """Device and inode of its directory."""
    size: int
    """Disk space in bytes."""
    used_ns: int
    """Time of the last use in nanoseconds since 1970; 0 for an incomplete entry, which is evicted first."""
    free: bool
    """Nobody uses it."""
    leftovers: bool
    """It has files without a seal, or seals without a file."""


def each(folders: Mapping[str, int]) -> Iterator[tuple[SurveyedEntry, int]]:
    """Yield all entries with their directories: each is open until the next one, and locked if nobody uses it.

    *folders*: the open folder of each kind.
    """
    for kind, folder in folders.items():
        for key in os.listdir(folder):
            directory = _opened(folder, key)
            if directory is None:  # not a directory: not made by imgfs
                continue
            try:
                yield _survey(kind, key, directory), directory
            finally:
                os.close(directory)


@contextlib.contextmanager
def taken(folders: Mapping[str, int], entry: SurveyedEntry) -> Iterator[int | None]:
    """Give the locked directory of *entry*; None if it was replaced since, or is in use."""
    directory = _opened(folders[entry.kind], entry.key)
    try:
        if directory is None or _identity(directory) != entry.identity or not lock(directory, fcntl.LOCK_EX):
            yield None
        else:
            yield directory
    finally:
        if directory is not None:
            os.close(directory)


def _opened(folder: int, key: str) -> int | None:
    """Return the directory of the entry *key*, None if it does not exist."""
    try:
        return open_directory(folder, key)
    except OSError as error:
        if error.errno in _NO_ENTRY:
            return None
        raise


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def _survey(kind: str, key: str, directory: int) -> SurveyedEntry:
    """Return the state of an entry, and lock the entry if nobody uses it."""
    free = lock(directory, fcntl.LOCK_EX)
    present = dict(files(directory))
    size = sum(status.st_blocks for status in present.values()) * 512
    used_ns = present[INDEX].st_mtime_ns if INDEX in present and "." not in key else 0
    return SurveyedEntry(kind, key, _identity(directory), size, used_ns, free, has_leftovers(present))
