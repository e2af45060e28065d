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
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fusefs.cacheentry import (
    INDEX,
    Altered,
    Document,
    Entry,
    clean,
    clear,
    files,
    has_leftovers,
    link,
    lock,
    new_file,
    open_directory,
    read_document,
    read_index,
    remove,
)
from fusefs.errors import NoSpace, printable

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 10 << 30
"""Bytes of the disk that the cache may take."""
_KINDS = SAVED, FILES = "saved", "files"
_RESERVE = 10
"""A tenth of the disk stays free."""
_TAG = "CACHEDIR.TAG"
"""Tells backup programs that this can be made anew (bford.info/cachedir)."""
_TAG_DATA = b"Signature: 8a477f597d28d172789f06886806bc55\n# imgfs keeps container images here: imgfs cache --help\n"
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
"""What a kernel or a file system says that knows no files without a name."""

Waiting = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry as `list` shows it."""

    kind: str
    key: str
    about: Document
    """What its maker says of it."""
    size: int
    """Bytes of the disk that it takes."""
    used_ns: int
    """When it was used last, in nanoseconds since 1970."""
    in_use: bool


@dataclass(slots=True)
class _Found:
    """An entry in the course of a decision."""

    path: str
    directory: int
    size: int
    used_ns: int
    """0: it is incomplete and goes first."""
    free: bool
    """Nobody uses it, and it is locked for us."""
    leftovers: bool = False
    """There are files in it that do not count."""


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
        try:
            self._root = _open_root(path)
            for kind in _KINDS:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(kind, 0o700, dir_fd=self._root)
            self._folders = {kind: open_directory(self._root, kind) for kind in _KINDS}
            os.close(new_file(self._folders[SAVED]))
            with self.deciding():  # not every file system has locks
                pass
        except OSError as error:
            why = "its file system has no O_TMPFILE" if error.errno in _NO_TMPFILE else error.strerror
            raise _unusable(path, why or str(error)) from None

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Keep all others, also threads, from adding and removing for as long as the block takes."""
        directory = open_directory(self._root, ".")
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def saved(self, key: str, waiting: Waiting) -> tuple[Entry, Document | None]:
        """Return the entry of an engine's image and its index, to use; or None for the index: to make it.

        Whoever is to make it has it alone until then; others wait here, *waiting* telling so.
        """
        while True:
            with self.deciding():
                path, directory = self._open(SAVED, key)
                if lock(directory, fcntl.LOCK_SH):
                    facts = _index(path, directory)
                    if facts is None:
                        directory = self._alone(path, directory)
                    return Entry(path, directory, self, of_user=False), facts
            try:
                with waiting():
                    fcntl.flock(directory, fcntl.LOCK_SH)
            finally:
                os.close(directory)

    def archive(self, key: str) -> tuple[Entry, Document | None]:
        """Return the entry of an archive that a user names, and its index, None if that is to be made."""
        with self.deciding():
            path, directory = self._open(FILES, key)
            fcntl.flock(directory, fcntl.LOCK_SH)  # at once: nobody has one of these alone but when deciding
            facts = _index(path, directory)
            return Entry(path, directory, self, of_user=True), facts

    def room(self, need: int) -> int:
        """Make room for *need* bytes; return how many more may be kept, 0 if these may not.

        What was not used for longest goes first, nothing that is in use, and nothing at all if it would not do.
        """
        try:
            with self.deciding(), self._entries() as found:
                return self._room(found, need)
        except OSError:  # it was removed, say
            return 0

    def _room(self, found: "list[_Found]", need: int) -> int:
        free = self._free()
        in_use = sum(entry.size for entry in found if not entry.free)
        could_free = sum(entry.size for entry in found if entry.free)
        if in_use + need > self._limit or free + could_free < need:
            return 0
        free += self._evict(found, need)
        return max(0, min(self._limit - in_use, free))

    def trim(self) -> None:
        """Remove what is too much, and what is incomplete."""
        with contextlib.suppress(OSError), self.deciding(), self._entries() as found:
            self._evict(found, 0)

    def prune(self, *, everything: bool) -> int:
        """Remove what is broken, incomplete or too much, or *everything* that is not in use; return the bytes freed."""
        freed = 0
        with self.deciding(), self._entries() as found:
            for entry in found:
                if not entry.free:
                    continue
                if everything or _is_broken(entry.directory):
                    freed += remove(entry.path, entry.directory)
                    entry.free, entry.size = False, 0
                else:
                    cleaned = clean(entry.directory)
                    entry.size -= cleaned
                    freed += cleaned
            return freed + self._evict(found, 0)

    def kept(self) -> list[Kept]:
        """Return the entries that are complete, the last used first."""
        listed = []
        with self.deciding(), self._entries() as found:
            for entry in found:
                facts = None
                with contextlib.suppress(Altered):
                    facts = read_document(entry.directory, INDEX)
                if facts is not None and entry.used_ns:
                    kind, key = entry.path.split(os.sep)[-2:]
                    listed.append(Kept(kind, key, facts["about"], entry.size, entry.used_ns, not entry.free))
        return sorted(listed, key=lambda one: -one.used_ns)

    def _open(self, kind: str, key: str) -> tuple[str, int]:
        folder = self._folders[kind]
        with contextlib.suppress(FileExistsError):
            os.mkdir(key, 0o700, dir_fd=folder)
        return os.path.join(self.path, kind, key), open_directory(folder, key)

    def _alone(self, path: str, directory: int) -> int:
        """Return the directory at *path*, empty and locked for us alone; *directory* is it, incomplete."""
        if lock(directory, fcntl.LOCK_EX):
            clear(directory)
            return directory
        # A mount still uses what is broken by now.  It keeps that under another name, which a later sweep removes.
        os.rename(path, f"{path}.{os.urandom(4).hex()}")
        os.close(directory)
        _, fresh = self._open(SAVED, os.path.basename(path))
        fcntl.flock(fresh, fcntl.LOCK_EX)
        return fresh

    @contextlib.contextmanager
    def _entries(self) -> Iterator[list[_Found]]:
        """Give all entries, in the order in which they go; those that nobody uses stay locked until then."""
        found: list[_Found] = []
        try:
            for kind, folder in self._folders.items():
                for name in os.listdir(folder):
                    with contextlib.suppress(OSError):  # what is no directory is none of ours
                        directory = open_directory(folder, name)
                        path = os.path.join(self.path, kind, name)
                        found.append(_Found(path, directory, 0, 0, free=lock(directory, fcntl.LOCK_EX)))
                        present = dict(files(directory))
                        found[-1].size = sum(status.st_blocks * 512 for status in present.values())
                        found[-1].leftovers = has_leftovers(present)
                        if INDEX in present and "." not in name:
                            found[-1].used_ns = present[INDEX].st_mtime_ns
            found.sort(key=lambda entry: entry.used_ns)
            yield found
        finally:
            for entry in found:
                os.close(entry.directory)

    def _evict(self, found: list[_Found], need: int) -> int:
        """Remove what is incomplete, and of the rest as much as *need* more bytes take; return the bytes freed."""
        total, free, freed = sum(entry.size for entry in found), self._free(), 0
        for entry in found:
            if entry.free and entry.leftovers:
                cleaned = clean(entry.directory)
                total, freed = total - cleaned, freed + cleaned
                entry.size -= cleaned
            if not entry.free or (entry.used_ns and total + need <= self._limit and free + freed >= need):
                continue
            if entry.used_ns:
                log.info("%s: removed, %d bytes", printable(entry.path), entry.size)
            freed += remove(entry.path, entry.directory)
            total -= entry.size
        return freed

    def _free(self) -> int:
        """Return how many bytes of the disk may still be taken, less than 0 if it is too full already."""
        disk = self._statvfs(self._root)
        return disk.f_bavail * disk.f_frsize - disk.f_blocks * disk.f_frsize // _RESERVE


def _index(path: str, directory: int) -> Document | None:
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


def _is_broken(directory: int) -> bool:
    try:
        return read_index(directory) is None
    except Altered:
        return True


def _open_root(path: str) -> int:
    """Return the directory at *path*, made if need be; NoSpace if it is not ours alone to write."""
    if not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    if os.path.islink(path):
        raise _unusable(path, "it is a symbolic link")
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(root)
    why = None
    if found.st_uid != os.geteuid():
        why = "it belongs to another user"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = "others may write there"
    elif not _is_ours(root):
        why = "it is not empty, and no cache of imgfs"
    if why is not None:
        os.close(root)
        raise _unusable(path, why)
    return root


def _is_ours(root: int) -> bool:
    """Return whether a directory is a cache, or was empty and is one now: nobody else's files are ever removed."""
    names = os.listdir(root)
    if _TAG not in names:
        if names:
            return _TAG in os.listdir(root)  # another imgfs was just making it
        descriptor = new_file(root)
        try:
            os.write(descriptor, _TAG_DATA)
            with contextlib.suppress(FileExistsError):
                link(descriptor, root, _TAG)
        finally:
            os.close(descriptor)
    try:
        descriptor = os.open(_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except OSError:
        return False
    try:
        return b"imgfs" in os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _unusable(path: str, why: str) -> NoSpace:
    return NoSpace(
        f"cannot use the cache {printable(path)}: {why}; choose another directory with --cache-dir, or --no-cache"
    )
