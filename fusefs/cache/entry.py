"""One cache entry: a locked directory of sealed files.

A file is written without a name, synced and linked.  Then its *seal* is written: a document with the size, inode,
mtime and ctime of the file.  A kill at any moment therefore leaves either a valid file or a file without a seal, which
is ignored.  A file that was modified, truncated or replaced no longer matches its seal.  The lock is an flock(2) on
the open directory: the background process inherits it with the descriptor, and it ends when the last copy is closed.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Protocol

from fusefs.cache.sealed_file import (
    SEAL,
    Altered,
    Facts,
    link,
    new_file,
    open_sealed,
    read_document,
    stated,
    write_document,
)
from fusefs.errors import NoSpace
from fusefs.log import logger
from fusefs.private import lock_within, try_lock
from fusefs.text import printable

log = logger(__name__)

INDEX = "index"
"""The document that marks an entry as complete."""
BLOB = "blob"
"""The whole blob of a registry."""
PARTS = ("part", *(f"part-{number}" for number in range(2, 9)))
"""The files in which a blob arrives, before it is whole; each fetch looks at all of them.

Beside each, where other files have their seal, are notes of what is there (`part`).
"""
_PART_FILES = frozenset((*PARTS, *(name + SEAL for name in PARTS)))
TAR = "tar"
"""The tar of an engine's image; the document `INDEX` describes it."""


class OwningCache(Protocol):
    """The operations that an entry needs from its cache."""

    def room(self, need: int, total: int = 0) -> int:
        """Make room for *need* bytes, the first of *total*; return how many more may be cached, 0 if these may not."""

    def admitting(self) -> contextlib.AbstractContextManager[Callable[[int, int], bool]]:
        """Hold the lock of the cache; give a function that makes room for a complete file, see `Cache.admitting`."""

    def trim(self) -> None:
        """Evict entries until the cache is within its limit."""

    def later(self, work: Callable[[], None]) -> None:
        """Do *work* in the background."""

    def deciding(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of the cache: nobody else adds or removes files during the block, which must be short."""


class CacheEntry:
    """A cache entry in use.

    Safe under concurrency: only `_lost` and `_closed` change, from False to True.
    """

    def __init__(self, path: str, directory: int, cache: OwningCache, *, of_user: bool) -> None:
        """Use the open and locked *directory* at *path*.

        *of_user*: the entry belongs to a user's archive, which others may change.
        """
        self.path = path
        self.of_user = of_user
        self.directory = directory
        self._cache = cache
        self._lost = self._closed = False

    def room(self, need: int, total: int = 0) -> int:
        """Make room for *need* bytes; return how many more may be cached, 0 if these may not.

        0, too, if they are the beginning of *total* bytes for which there can never be room.
        """
        return 0 if self._lost else self._cache.room(need, total)

    def later(self, work: Callable[[], None]) -> None:
        """Do *work* on the entry in the background, unless the entry was abandoned or closed by then."""
        self._cache.later(lambda: None if self._lost else work())

    def new_file(self) -> int:
        """Return the descriptor of a new file without a name, for `add`; NoSpace if it cannot be created."""
        try:
            return new_file(self.directory)
        except OSError as error:
            raise NoSpace(f"cannot write in {printable(self.path)}: {error.strerror}") from None

    def deciding(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of the cache."""
        return self._cache.deciding()

    def add(self, name: str, descriptor: int, *, of_parts: bool = False) -> None:
        """Cache the file *descriptor*, which must be complete, as *name*.

        It has no name, or, if it replaces all `PARTS`, the name of one of them.  If there is no room, or after an
        error, which is logged, the file is used once and not cached.
        """
        try:
            os.fsync(descriptor)
            with self._cache.admitting() as admits:
                present = dict(files(self.directory))
                replaced = sorted(_PART_FILES & present.keys(), reverse=True) if of_parts else ()  # notes first
                if self._lost:
                    return
                if name + SEAL in present:  # another mount was faster
                    self._unlink(*replaced)
                    return
                if not admits(*_growth(os.fstat(descriptor), present, replaced)):
                    log.info("%s: no room for %s", printable(self.path), name)
                    was = self.name_of(descriptor)
                    self._unlink(*(() if was is None else (was + SEAL, was)))
                    return
                if name in present:  # left by a killed process: a living one links and seals under the lock
                    os.unlink(name, dir_fd=self.directory)
                link(descriptor, self.directory, name)
                self._unlink(*replaced)  # before the file is sealed: its ctime changes
                write_document(self.directory, name + SEAL, {"file": stated(descriptor)})
        except OSError as error:
            log.warning("%s: cannot cache %s: %s", printable(self.path), name, error.strerror)

    def open_cached(self, name: str) -> int | None:
        """Return the descriptor of the cached file *name*, None if there is none; the caller closes it.

        A file that does not match its seal is dropped.
        """
        try:
            seal = read_document(self.directory, INDEX if name == TAR else name + SEAL)
            return None if seal is None else open_sealed(self.directory, name, seal)
        except Altered as error:
            if name != TAR:  # whoever opens the entry discards it
                self.drop(name, str(error))
            return None
        except OSError as error:
            log.warning("%s: cannot use %s: %s", printable(self.path), name, error.strerror)
            return None

    def name_of(self, descriptor: int) -> str | None:
        """Return the name of the cached file that is open as *descriptor*, None if the entry does not have it."""
        status = os.fstat(descriptor)
        found = (name for name, about in files(self.directory) if os.path.samestat(about, status))
        return next(found, None)

    def drop(self, name: str, why: str) -> None:
        """Remove the cached file *name*; readers that have it open can continue."""
        log.warning("%s: dropped %s: %s", printable(self.path), name, why)
        with contextlib.suppress(OSError), self._cache.deciding():
            self._unlink(name + SEAL, name)

    def _unlink(self, *names: str) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.directory)

    def complete(self, facts: Facts, tar: int | None = None) -> None:
        """Mark the entry as complete, with *facts* in its document `INDEX` and *tar* as its tar.

        Other processes may use the entry from now on.  Errors are logged and abandon the entry.
        """
        try:
            if tar is not None:
                os.fsync(tar)
            with self._cache.admitting() as admits:
                admitted = tar is None or admits(*_growth(os.fstat(tar), {}, ()))
                if admitted:
                    if tar is not None:
                        link(tar, self.directory, TAR)
                        facts = facts | {"file": stated(tar)}
                    with contextlib.suppress(FileExistsError):  # another mount completed the same archive first
                        write_document(self.directory, INDEX, facts, sync=True)
                    lock_within(self.directory, fcntl.LOCK_SH, 0)  # its own exclusive lock becomes a shared one
        except OSError as error:
            log.warning("cannot cache the image in %s: %s", printable(self.path), error.strerror)
            admitted = False
        if admitted:
            self._cache.trim()
        else:
            log.info("%s: not cached", printable(self.path))
            self.abandon()

    def replace(self, facts: Facts) -> None:
        """Replace the document `INDEX`, if there is one; errors are logged."""
        try:
            with self._cache.deciding():
                write_document(self.directory, INDEX, facts, sync=True, replace=True)
        except OSError as error:
            log.warning("cannot cache %s: %s", printable(self.path), error.strerror)

    def discard(self, why: str) -> None:
        """Mark the entry as incomplete, because something in it is wrong."""
        log.warning("%s: dropped: %s", printable(self.path), why)
        with contextlib.suppress(OSError), self._cache.deciding():
            os.unlink(INDEX, dir_fd=self.directory)

    def close(self) -> None:
        """Stop using the entry and release its lock; closing twice is allowed."""
        if not self._closed:
            self._lost = self._closed = True
            os.close(self.directory)

    def abandon(self) -> None:
        """Stop using an incomplete entry: remove it unless others use it, and release its lock."""
        if self._lost:
            return
        self._lost = True
        with contextlib.suppress(OSError, Altered), self._cache.deciding():
            if try_lock(self.directory, fcntl.LOCK_EX) and read_index(self.directory) is None:
                remove(self.path, self.directory)
            fcntl.flock(self.directory, fcntl.LOCK_UN)


def _growth(file: os.stat_result, present: Mapping[str, os.stat_result], replaced: Iterable[str]) -> tuple[int, int]:
    """Return the size of a complete *file*, and how much larger an entry with the files *present* becomes by it.

    It counts by its bytes, and not once more if it is in the entry.  The documents there are taken off: a file that
    just fits is not refused for these.
    """
    size = file.st_size
    inside = {name for name, about in present.items() if os.path.samestat(about, file)}
    documents = {name for name in present if name == INDEX or name.endswith(SEAL)}
    return size, size - sum(present[name].st_blocks * 512 for name in {*inside, *documents, *replaced})


def read_index(directory: int) -> Facts | None:
    """Return the document `INDEX` of an entry, None for an incomplete entry; Altered if it or the tar is damaged."""
    facts = read_document(directory, INDEX)
    if facts is not None and "file" in facts:
        os.close(open_sealed(directory, TAR, facts))
    return facts


def clear(directory: int) -> int:
    """Remove all files in *directory*, `INDEX` first; return the freed disk space in bytes."""
    return unlink(directory, sorted(os.listdir(directory), key=lambda name: name != INDEX))


def unlink(directory: int, names: Iterable[str]) -> int:
    """Remove the files *names* in *directory*; return the freed disk space in bytes."""
    freed = 0
    for name in names:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # skip subdirectories: imgfs makes none
            blocks = os.stat(name, dir_fd=directory, follow_symlinks=False).st_blocks
            os.unlink(name, dir_fd=directory)
            freed += blocks * 512
    return freed


def remove(path: str, directory: int) -> int:
    """Remove the entry at *path*, open as *directory*, with all files; return the freed disk space in bytes."""
    freed = clear(directory)
    with contextlib.suppress(OSError):
        if os.path.samestat(os.lstat(path), os.fstat(directory)):
            os.rmdir(path)
    return freed


def files(directory: int) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name and the stat result of each file in *directory*."""
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            yield name, os.stat(name, dir_fd=directory, follow_symlinks=False)


def has_leftovers(names: Collection[str]) -> bool:
    """Return whether an entry with these file *names* has a file without a seal, or a seal without a file."""
    return any(
        name not in (INDEX, TAR) and (name.removesuffix(SEAL) if name.endswith(SEAL) else name + SEAL) not in names
        for name in names
    )


def unsealed(path: str, directory: int, *, parts: bool) -> dict[str, int]:
    """Return the files without a valid seal in the unused entry at *path*, with their disk space in bytes.

    A file that cannot be read is not among them, with a warning: it may be valid.  *parts*: those are, too, although
    the next mount would go on with them.
    """
    present = {name: stat.st_blocks * 512 for name, stat in files(directory)}
    known = {INDEX, TAR} if parts else {INDEX, TAR, *_PART_FILES}
    for name in present:
        if not name.endswith(SEAL):
            continue
        try:
            facts = read_document(directory, name)
            if facts is None:
                continue
            os.close(open_sealed(directory, name.removesuffix(SEAL), facts))
        except Altered:
            continue
        except OSError as error:
            log.warning("%s: %s cannot be read: %s", printable(path), name, error.strerror)
        known |= {name, name.removesuffix(SEAL)}
    return {name: size for name, size in present.items() if name not in known}
