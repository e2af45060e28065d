"""The cache: what engines saved, and what was made of images, kept for the next mount.

``saved/<key>`` is an engine's image, ``files/<key>`` what is known of an archive that a user named.
Every decision - who uses an entry, who makes it, what is removed - is made under the lock of the
cache's own directory, held for milliseconds; who uses an entry holds the entry's lock for as long
as it is mounted.  A directory of another user, or that others may write, is refused; no link is followed.
"""

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fusefs.cache.entry import INDEX, CacheEntry, clean, clear, read_index, remove
from fusefs.cache.location import open_root, unusable
from fusefs.cache.sealed_file import Altered, Facts, lock, new_file, open_directory, read_document
from fusefs.cache.survey import SurveyedEntry, each, taken
from fusefs.text import printable

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 10 << 30
"""Bytes of the disk that the cache may take."""
_KINDS = SAVED, FILES = "saved", "files"
_RESERVE = 10
"""A tenth of the disk stays free."""
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
"""What a kernel or a file system says that knows no files without a name."""
_RECENT = 10.0
"""Seconds for which what was found of all entries stands, for what is small beside the room that was left."""
_SHARE = 8
"""Of that room an eighth: as many others may fill the cache at the same time."""

Waiting = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """An entry as `list` shows it."""

    kind: str
    key: str
    about: Facts
    """What its maker says of it."""
    size: int
    """Bytes of the disk that it takes."""
    used_ns: int
    """When it was used last, in nanoseconds since 1970."""
    in_use: bool


class Cache:
    """An open cache.  Any number of threads and processes may use it."""

    def __init__(
        self,
        path: str,
        limit: int = DEFAULT_LIMIT,
        later: Callable[[Callable[[], None]], None] = lambda work: work(),
        statvfs: Callable[[int], os.statvfs_result] = os.fstatvfs,
    ) -> None:
        """Open the cache at *path*, made if need be; it may take *limit* bytes.

        *later* does work when nobody waits; *statvfs* says how full the disk is.  Raises NoSpace if no cache
        can be there.
        """
        self.path = path
        self._limit = limit
        self.later = later
        self._statvfs = statvfs
        # What the last look at all entries found, under the lock of `deciding`.
        self._in_use = self._spare = 0
        self._stands_until = 0.0
        try:
            self._root = open_root(path)
            for kind in _KINDS:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(kind, 0o700, dir_fd=self._root)
            self._folders = {kind: open_directory(self._root, kind) for kind in _KINDS}
            os.close(new_file(self._folders[SAVED]))
            with self.deciding():  # not every file system has locks
                pass
        except OSError as error:
            why = "its file system has no O_TMPFILE" if error.errno in _NO_TMPFILE else error.strerror
            raise unusable(path, why or str(error)) from None

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Keep all others, also threads, from adding and removing for as long as the block takes."""
        directory = open_directory(self._root, ".")
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def saved(self, key: str, waiting: Waiting) -> tuple[CacheEntry, Facts | None]:
        """Return the entry of an engine's image and its index, to use; or None for the index: to make it.

        Whoever is to make it has it alone until then; others wait here, *waiting* telling so.
        """
        while True:
            with self.deciding():
                path, directory = self._open(SAVED, key)
                with _closing_if_it_fails(directory):
                    if lock(directory, fcntl.LOCK_SH):
                        facts = _index(path, directory)
                        if facts is None:
                            directory = self._alone(path, directory)
                        return CacheEntry(path, directory, self, of_user=False), facts
            try:
                with waiting():
                    fcntl.flock(directory, fcntl.LOCK_SH)
            finally:
                os.close(directory)

    def archive(self, key: str) -> tuple[CacheEntry, Facts | None]:
        """Return the entry of an archive that a user names, and its index, None if that is to be made."""
        with self.deciding():
            path, directory = self._open(FILES, key)
            with _closing_if_it_fails(directory):
                fcntl.flock(directory, fcntl.LOCK_SH)  # at once: nobody has one of these alone but when deciding
                facts = _index(path, directory)
            return CacheEntry(path, directory, self, of_user=True), facts

    def room(self, need: int) -> int:
        """Make room for *need* bytes; return how many more may be kept, 0 if these may not.

        What was not used for longest goes first, nothing that is in use, and nothing at all if it would not do.
        """
        try:
            with self.deciding():
                return self._room(need)
        except OSError as error:
            self._complain(error)
            return 0

    def _room(self, need: int) -> int:
        free = self._free()
        if not self._surely(need):
            found = [entry for entry, _ in each(self._folders)]
            in_use = sum(entry.size for entry in found if not entry.free)
            could_free = sum(entry.size for entry in found if entry.free)
            if in_use + need > self._limit or free + could_free < need:
                return 0
            free += self._evict(found, need)
        return max(0, min(self._limit - self._in_use, free))

    def trim(self, kept: int | None = None) -> None:
        """Remove what is too much, and what is incomplete.

        *kept*: so many bytes were added; nothing has to go for them if there was plenty of room a moment ago.
        """
        try:
            with self.deciding():
                if kept is None or not self._surely(kept):
                    self._evict([entry for entry, _ in each(self._folders)], 0)
        except OSError as error:
            self._complain(error)

    def prune(self, *, everything: bool) -> int:
        """Remove what is broken, incomplete or too much, or *everything* that is not in use; return the bytes freed."""
        freed, found = 0, []
        with self.deciding():
            for entry, directory in each(self._folders):
                path = self._path(entry.kind, entry.key)
                if entry.free and (everything or _is_broken(path, directory)):
                    freed += remove(path, directory)
                    continue
                if entry.free:
                    cleaned = clean(path, directory)
                    entry.size -= cleaned
                    entry.leftovers = False
                    freed += cleaned
                found.append(entry)
            return freed + self._evict(found, 0)

    def entries(self) -> list[ListedEntry]:
        """Return the entries that are complete, the last used first."""
        listed = []
        with self.deciding():
            for entry, directory in each(self._folders):
                path = self._path(entry.kind, entry.key)
                facts = None
                with contextlib.suppress(Altered), _telling(path):
                    facts = read_document(directory, INDEX)
                if facts is not None and entry.used_ns:
                    about = facts["about"]
                    listed.append(ListedEntry(entry.kind, entry.key, about, entry.size, entry.used_ns, not entry.free))
        return sorted(listed, key=lambda one: -one.used_ns)

    def _path(self, kind: str, key: str) -> str:
        return os.path.join(self.path, kind, key)

    def _open(self, kind: str, key: str) -> tuple[str, int]:
        folder = self._folders[kind]
        with contextlib.suppress(FileExistsError):
            os.mkdir(key, 0o700, dir_fd=folder)
        return self._path(kind, key), open_directory(folder, key)

    def _alone(self, path: str, directory: int) -> int:
        """Return the directory at *path*, empty and locked for us alone; *directory* is it, incomplete."""
        if lock(directory, fcntl.LOCK_EX):
            clear(directory)
            return directory
        # A mount still uses what is broken by now.  It keeps that under another name, which a later sweep removes.
        os.rename(path, f"{path}.{os.urandom(4).hex()}")
        _, fresh = self._open(SAVED, os.path.basename(path))
        fcntl.flock(fresh, fcntl.LOCK_EX)
        os.close(directory)
        return fresh

    def _evict(self, found: list[SurveyedEntry], need: int) -> int:
        """Remove what is incomplete, and of the rest as much as *need* more bytes take; return the bytes freed."""
        total, free, freed = sum(entry.size for entry in found), self._free(), 0
        for entry in sorted(found, key=lambda entry: entry.used_ns):
            fits = total + need - freed <= self._limit and free + freed >= need
            if not entry.free or (entry.used_ns and fits and not entry.leftovers):
                continue
            with taken(self._folders, entry) as directory:
                if directory is None:
                    continue
                path = self._path(entry.kind, entry.key)
                if entry.leftovers:
                    freed += clean(path, directory)
                    fits = total + need - freed <= self._limit and free + freed >= need
                if not entry.used_ns or not fits:
                    gone = remove(path, directory)
                    freed += gone
                    if entry.used_ns:
                        log.info("%s: removed, %d bytes", printable(path), gone)
        self._in_use = sum(entry.size for entry in found if not entry.free)
        self._spare = (self._limit - total + freed - need) // _SHARE
        self._stands_until = time.monotonic() + _RECENT
        return freed

    def _surely(self, more: int) -> bool:
        """Return whether *more* bytes fit by what was found a moment ago, and count them.

        Each layer that is indexed asks, and a look takes up to 0.1 ms an entry.
        """
        fits = time.monotonic() < self._stands_until and more <= min(self._spare, self._free())
        if fits:
            self._spare -= more
        return fits

    def _complain(self, error: OSError) -> None:
        if error.errno != errno.ENOENT:  # it was removed
            log.warning("cannot make room in the cache %s: %s", printable(self.path), error.strerror)

    def _free(self) -> int:
        """Return how many bytes of the disk may still be taken, less than 0 if it is too full already."""
        disk = self._statvfs(self._root)
        return disk.f_bavail * disk.f_frsize - disk.f_blocks * disk.f_frsize // _RESERVE


@contextlib.contextmanager
def _closing_if_it_fails(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


def _index(path: str, directory: int) -> Facts | None:
    """Return the index of the locked entry, used just now; None, the reason logged, if it does not count."""
    try:
        facts = read_index(directory)
        if facts is not None:
            os.utime(INDEX, dir_fd=directory, follow_symlinks=False)
    except Altered as error:
        log.warning("%s: dropped: %s", printable(path), error)
        os.unlink(INDEX, dir_fd=directory)
        return None
    return facts


def _is_broken(path: str, directory: int) -> bool:
    try:
        with _telling(path):
            return read_index(directory) is None
    except Altered:
        return True
    return False


@contextlib.contextmanager
def _telling(path: str) -> Iterator[None]:
    """Log that a disk does not give what is at *path*, and go on: what is there may be whole."""
    try:
        yield
    except OSError as error:
        log.warning("%s cannot be read: %s", printable(path), error.strerror)
