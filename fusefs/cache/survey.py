"""Surveys all entries of a cache, with one open directory at a time: there may be more entries than descriptors.

Entries of other formats are there, too.  All formats have this in common: the names of their folders, a directory for
each entry, its flock(2) while it is in use, and the time of its document `INDEX` as the last use.

Every function needs the lock of `Cache.deciding`.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from fusefs.cache.entry import INDEX, files, has_leftovers
from fusefs.cache.part import PartSize
from fusefs.cache.sealed_file import Altered, Facts, read_document
from fusefs.pattern import pattern
from fusefs.private import open_private, try_lock

FOLDERS = pattern(r"(?:saved|files|blobs|tags)(?:-[0-9]{1,4})?")
"""The names of the folders of all formats."""
_DESCRIBED = {"names": list, "id": str, "platform": str, "storage": str, "engine": str, "path": str, "created_ns": int}
"""The parts of a description that are shown of another format, with their types."""
_NO_ENTRY = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
"""Errors of opening a name that is not an entry, was removed, or belongs to another user."""


class ListedEntry(NamedTuple):
    """An entry as `imgfs cache list` shows it."""

    kind: str
    key: str
    about: Facts
    """The description of the image, from the code that made the entry; empty if another version hides it."""
    size: int
    """Disk space in bytes."""
    used_ns: int
    """Time of the last use, in nanoseconds since 1970."""
    in_use: bool
    ours: bool
    """It has the format of this version of imgfs."""
    part: PartSize | None = None
    """How much of a blob is there, None if all of it is."""


class SurveyedEntry(NamedTuple):
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
    ours: bool
    """It has the format of this version of imgfs."""


class Removal(NamedTuple):
    """What is removed of an entry."""

    entry: SurveyedEntry
    size: int
    """Disk space in bytes."""
    names: tuple[str, ...] | None = None
    """The files; None: the entry."""


@contextlib.contextmanager
def all_folders(root: int, ours: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
    """Give the open folders *ours*, and those of other formats in the cache *root*, by name."""
    with contextlib.ExitStack() as stack:
        others = {}
        for name in os.listdir(root):
            if name not in ours and FOLDERS.fullmatch(name):
                folder = _opened(root, name)
                if folder is not None:
                    stack.callback(os.close, folder)
                    others[name] = folder
        yield {**ours, **others}


def each(folders: Mapping[str, int], ours: Collection[str]) -> Iterator[tuple[SurveyedEntry, int]]:
    """Yield all entries with their directories: each is open until the next one, and locked if nobody uses it.

    *folders*: the open folder of each kind; *ours*: the kinds that have the format of this version.
    """
    for kind, folder in folders.items():
        for key in os.listdir(folder):
            directory = _opened(folder, key)
            if directory is None:  # not a directory: not made by imgfs
                continue
            try:
                yield _survey(kind, key, directory, ours=kind in ours), directory
            finally:
                os.close(directory)


@contextlib.contextmanager
def taken(folders: Mapping[str, int], entry: SurveyedEntry) -> Iterator[int | None]:
    """Give the locked directory of *entry*; None if it was replaced since, or is in use."""
    directory = _opened(folders[entry.kind], entry.key)
    try:
        if directory is None or _identity(directory) != entry.identity or not try_lock(directory, fcntl.LOCK_EX):
            yield None
        else:
            yield directory
    finally:
        if directory is not None:
            os.close(directory)


def _opened(folder: int, key: str) -> int | None:
    """Return the directory of the entry *key*, None if it does not exist."""
    try:
        return open_private(key, folder)
    except OSError as error:
        if error.errno in _NO_ENTRY:
            return None
        raise


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def _survey(kind: str, key: str, directory: int, *, ours: bool) -> SurveyedEntry:
    """Return the state of an entry, and lock the entry if nobody uses it."""
    free = try_lock(directory, fcntl.LOCK_EX)
    present = dict(files(directory))
    size = sum(status.st_blocks for status in present.values()) * 512
    used_ns = present[INDEX].st_mtime_ns if INDEX in present and "." not in key else 0
    if not ours:  # whether it is complete is not known
        used_ns = used_ns or os.fstat(directory).st_mtime_ns
    leftovers = ours and has_leftovers(present)
    return SurveyedEntry(kind, key, _identity(directory), size, used_ns, free, leftovers, ours)


def description(directory: int, *, ours: bool) -> Facts | None:
    """Return the description of the image in an entry, None for an incomplete entry; Altered for a damaged one.

    An entry of another format has at least an empty description.
    """
    if ours:
        facts = read_document(directory, INDEX)
        return facts and facts["about"]
    with contextlib.suppress(Altered, ValueError):
        about = (read_document(directory, INDEX, any_format=True) or {}).get("about")
        if isinstance(about, dict):
            return {name: about[name] for name, kind in _DESCRIBED.items() if isinstance(about.get(name), kind)}
    return {}
