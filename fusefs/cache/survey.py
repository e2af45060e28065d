"""A look at all entries of a cache, without a descriptor for each: there may be more than a process may open files.

All here is done under the lock of `Cache.deciding`.
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
"""What opening says of a name that is no entry, or no longer."""


@dataclass(slots=True)
class SurveyedEntry:
    """An entry in the course of a decision."""

    kind: str
    key: str
    identity: tuple[int, int]
    """Its directory's device and inode."""
    size: int
    used_ns: int
    """0: it is incomplete and goes first."""
    free: bool
    """Nobody uses it."""
    leftovers: bool
    """There are files in it that do not count."""


def each(folders: Mapping[str, int]) -> Iterator[tuple[SurveyedEntry, int]]:
    """Yield all entries, each with its directory: open until the next one, and locked for us if nobody uses it.

    *folders*: for each kind its open folder.
    """
    for kind, folder in folders.items():
        for key in os.listdir(folder):
            directory = _opened(folder, key)
            if directory is None:  # what is no directory is none of ours
                continue
            try:
                yield _found(kind, key, directory), directory
            finally:
                os.close(directory)


@contextlib.contextmanager
def taken(folders: Mapping[str, int], entry: SurveyedEntry) -> Iterator[int | None]:
    """Give the directory of *entry*, locked for us; None if it is another one by now, or in use."""
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
    """Return the directory of the entry *key*, None if there is none."""
    try:
        return open_directory(folder, key)
    except OSError as error:
        if error.errno in _NO_ENTRY:
            return None
        raise


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def _found(kind: str, key: str, directory: int) -> SurveyedEntry:
    """Return what there is to say of an entry, and lock it if nobody uses it."""
    free = lock(directory, fcntl.LOCK_EX)
    present = dict(files(directory))
    size = sum(status.st_blocks for status in present.values()) * 512
    used_ns = present[INDEX].st_mtime_ns if INDEX in present and "." not in key else 0
    return SurveyedEntry(kind, key, _identity(directory), size, used_ns, free, has_leftovers(present))
