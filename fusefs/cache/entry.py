"""One entry of the cache: a directory of files that count once they are sealed, and its lock.

A file is written without a name, synced and linked; then its *seal*, a document that says what
the file system says of the file (size, inode, mtime, ctime) and how it is to be used.  So a kill at any
moment leaves either a whole file or one that does not count, and a file that was touched, cut or replaced
no longer fits its seal.  The lock is that of the open directory (flock(2)): it passes to the
process in the background with the descriptor, and ends with the last of them.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from fusefs.cache.sealed_file import (
    SEAL,
    Altered,
    Facts,
    link,
    lock,
    new_file,
    open_sealed,
    read_document,
    stated,
    write_document,
)
from fusefs.errors import NoSpace
from fusefs.text import printable

log = logging.getLogger(__name__)

INDEX = "index"
"""The document whose presence makes an entry complete."""
TAR = "tar"
"""The tar of an engine's image, which the index tells of."""


class OwningCache(Protocol):
    """What an entry needs of the cache that it is in."""

    def room(self, need: int) -> int:
        """Make room for *need* bytes; return how many more may be kept, 0 if these may not."""

    def trim(self, kept: int | None = None) -> None:
        """Remove what is too much, after so many bytes were *kept*."""

    def later(self, work: Callable[[], None]) -> None:
        """Do *work* when nobody waits for it."""

    def deciding(self) -> contextlib.AbstractContextManager[None]:
        """Keep all others from adding and removing for as long as the block takes, which is short."""


class CacheEntry:
    """A directory of the cache in use.

    Safe under concurrency: nothing in it changes but `_lost`, which only ever becomes True.
    """

    def __init__(self, path: str, directory: int, cache: OwningCache, *, of_user: bool) -> None:
        """Use the open and locked *directory*, which is at *path*.

        *of_user*: it tells of a user's archive, which others may change.
        """
        self.path = path
        self.of_user = of_user
        self.directory = directory
        self._cache = cache
        self._lost = False

    def room(self, need: int) -> int:
        """Make room for *need* bytes; return how many more may be kept, 0 if these may not."""
        return 0 if self._lost else self._cache.room(need)

    def later(self, work: Callable[[], None]) -> None:
        """Do *work* on the entry when nobody waits for it, unless it was given up by then."""
        self._cache.later(lambda: None if self._lost else work())

    def new_file(self) -> int:
        """Return the descriptor of a new file without a name, which `add` can link; NoSpace if there can be none."""
        try:
            return new_file(self.directory)
        except OSError as error:
            raise NoSpace(f"cannot write in {printable(self.path)}: {error.strerror}") from None

    def add(self, name: str, descriptor: int) -> None:
        """Cache the file *descriptor*, which must be complete, as *name*.

        Errors are logged: the file is then used once and not cached.
        """
        try:
            os.fsync(descriptor)
            with self._cache.deciding():
                present = os.listdir(self.directory)
                if self._lost or name + SEAL in present:  # another mount was faster
                    return
                if name in present:  # of one that was killed: whoever lives links and seals in one go
                    os.unlink(name, dir_fd=self.directory)
                link(descriptor, self.directory, name)
                write_document(self.directory, name + SEAL, {"file": stated(descriptor)})
        except OSError as error:
            log.warning("%s: cannot cache %s: %s", printable(self.path), name, error.strerror)
            return
        self._cache.trim(os.fstat(descriptor).st_blocks * 512)

    def open_cached(self, name: str) -> int | None:
        """Return the descriptor of the cached file *name*, None if there is none; the caller closes it.

        A file that was altered is dropped.
        """
        try:
            seal = read_document(self.directory, name + SEAL)
            return None if seal is None else open_sealed(self.directory, name, seal)
        except Altered as error:
            self.drop(name, str(error))
            return None
        except OSError as error:
            log.warning("%s: cannot use %s: %s", printable(self.path), name, error.strerror)
            return None

    def drop(self, name: str, why: str) -> None:
        """Remove the kept file *name*; who has it open goes on with it."""
        log.warning("%s: dropped %s: %s", printable(self.path), name, why)
        with contextlib.suppress(OSError), self._cache.deciding():
            for one in (name + SEAL, name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(one, dir_fd=self.directory)

    def complete(self, facts: Facts, tar: int | None = None) -> None:
        """Make the entry count, with *facts* in its index, and *tar* as its tar.

        Others may use the entry from now on.  What goes wrong is logged, and leaves no entry.
        """
        try:
            if tar is not None:
                os.fsync(tar)
            with self._cache.deciding():
                if tar is not None:
                    link(tar, self.directory, TAR)
                    facts = facts | {"file": stated(tar)}
                with contextlib.suppress(FileExistsError):  # an archive's, which another mount has described as well
                    write_document(self.directory, INDEX, facts, sync=True)
                fcntl.flock(self.directory, fcntl.LOCK_SH)
        except OSError as error:
            log.warning("cannot cache the image in %s: %s", printable(self.path), error.strerror)
            self.abandon()
            return
        self._cache.trim()

    def discard(self, why: str) -> None:
        """Make the entry count no longer: something in it is wrong."""
        log.warning("%s: dropped: %s", printable(self.path), why)
        with contextlib.suppress(OSError), self._cache.deciding():
            os.unlink(INDEX, dir_fd=self.directory)

    def close(self) -> None:
        """Use the entry no longer."""
        self._lost = True
        os.close(self.directory)

    def abandon(self) -> None:
        """Give the entry up: remove what nobody else uses, and leave the lock."""
        if self._lost:
            return
        self._lost = True
        with contextlib.suppress(OSError, Altered), self._cache.deciding():
            if lock(self.directory, fcntl.LOCK_EX) and read_index(self.directory) is None:
                remove(self.path, self.directory)
            fcntl.flock(self.directory, fcntl.LOCK_UN)


def read_index(directory: int) -> Facts | None:
    """Return the index of an entry, None if it is not complete; Altered if it, or what it tells of, is."""
    facts = read_document(directory, INDEX)
    if facts is not None and "file" in facts:
        os.close(open_sealed(directory, TAR, facts))
    return facts


def clear(directory: int) -> int:
    """Remove all files in *directory*, the index first; return how many bytes of the disk that frees."""
    freed = 0
    for name in sorted(os.listdir(directory), key=lambda name: name != INDEX):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # what is no file is none of ours
            blocks = os.stat(name, dir_fd=directory, follow_symlinks=False).st_blocks
            os.unlink(name, dir_fd=directory)
            freed += blocks * 512
    return freed


def remove(path: str, directory: int) -> int:
    """Remove the entry at *path*, open as *directory*, with all files; return how many bytes that frees."""
    freed = clear(directory)
    with contextlib.suppress(OSError):
        if os.path.samestat(os.lstat(path), os.fstat(directory)):
            os.rmdir(path)
    return freed


def files(directory: int) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files in *directory*."""
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            yield name, os.stat(name, dir_fd=directory, follow_symlinks=False)


def has_leftovers(names: Collection[str]) -> bool:
    """Return whether one of the *names* in an entry is that of a file without its seal, or of a seal without file."""
    return any(
        name not in (INDEX, TAR) and (name.removesuffix(SEAL) if name.endswith(SEAL) else name + SEAL) not in names
        for name in names
    )


def clean(path: str, directory: int) -> int:
    """Remove files that do not count from the entry at *path*, which nobody uses; return how many bytes that frees.

    What cannot be read stays, with a warning: it may count.
    """
    present = {name: found.st_blocks * 512 for name, found in files(directory)}
    known = {INDEX, TAR}
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
    freed = 0
    for name in present.keys() - known:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(name, dir_fd=directory)
            freed += present[name]
    return freed
