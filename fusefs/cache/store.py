"""The cache: images from engines, layer indexes and plain tars, for the next mount.

``saved/<key>`` holds an engine's image, ``files/<key>`` the layer indexes and plain tars of a user's archive,
``blobs/<key>`` a blob of registries, ``tags/<key>`` the digest of a tag.
The lock of the file ``lock`` guards every decision (use, create or remove an entry) and is held for milliseconds.  A
FUSE mount holds the locks of the entries that it uses; a kernel mount has no process, and holds open files alone.
Files and directories are private, so that no other user can lock them, and every wait ends.  A root directory that
belongs to another user, or that other users may write, is refused.  Symbolic links are not followed.

The next format of the documents takes folders of its own, ``saved-2`` and so on: a cache counts and lists the
entries of other formats, and evicts them in their turn, but neither reads nor repairs them (`survey.FOLDERS`).
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from fusefs.cache.entry import INDEX, CacheEntry, clear, read_index, remove, unlink, unsealed
from fusefs.cache.location import open_root, unusable
from fusefs.cache.sealed_file import SEAL, Altered, Facts, new_file, open_sealed, read_document
from fusefs.errors import limit_reached
from fusefs.log import logger
from fusefs.private import lock_within, open_private, private_directory, private_file, try_lock
from fusefs.text import printable

if TYPE_CHECKING:
    from fusefs.cache.survey import ListedEntry, Removal, SurveyedEntry

log = logger(__name__)

DEFAULT_LIMIT = 10 << 30
"""Default limit of the cache: disk space in bytes."""
_KINDS = SAVED, FILES, BLOBS, TAGS = "saved", "files", "blobs", "tags"
"""The folders of this format (`sealed_file.FORMAT`)."""
_LOCK = "lock"
"""The file whose lock all formats share."""
_LOCK_WAIT = 10.0
"""Seconds to wait for the lock of the cache, which a stopped process may hold."""
_MAKER_WAIT = 900.0
"""Seconds to wait for a process that receives the same image; a save of 15 minutes is rare."""
_RESERVE = 10
"""The fraction of the disk that stays free: one tenth."""
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
"""Errors of kernels and file systems without O_TMPFILE."""
_RECENT = 10.0
"""Seconds for which the result of a survey is used again, for files that are small beside the spare room."""
_SHARE = 8
"""The fraction of the spare room to use without a new survey: an eighth, since other processes add files too."""

Waiting = Callable[[], contextlib.AbstractContextManager[None]]


class Cache:
    """An open cache.  Any number of threads and processes may use it."""

    def __init__(
        self,
        path: str,
        limit: int = DEFAULT_LIMIT,
        later: Callable[[Callable[[], None]], None] = lambda work: work(),
        statvfs: Callable[[int], os.statvfs_result] = os.fstatvfs,
    ) -> None:
        """Open the cache at *path*, created if missing; its limit is *limit* bytes.

        *later* does work in the background; *statvfs* returns how full the disk is.  Raises NoSpace if the
        directory cannot be used.
        """
        self.path = path
        self._limit = limit
        self.later = later
        self._statvfs = statvfs
        # The result of the last survey, guarded by the lock of `deciding`.
        self._in_use = self._spare = 0
        self._stands_until = 0.0
        try:
            self._root = open_root(path)
            os.close(private_file(_LOCK, self._root))
            self._folders = {kind: private_directory(kind, self._root) for kind in _KINDS}
            os.close(new_file(self._folders[SAVED]))
            with self.deciding():  # fails on a file system without locks
                pass
        except OSError as error:
            why = "its file system has no O_TMPFILE" if error.errno in _NO_TMPFILE else error.strerror
            raise limit_reached(error) or unusable(path, why or str(error)) from None

    def close(self) -> None:
        """Close the folders; the cache and its entries may not be used any more."""
        for folder in (self._root, *self._folders.values()):
            os.close(folder)

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Hold the lock of the cache: no other process or thread adds or removes files during the block.

        Raises OSError if the cache was removed, or if another process holds the lock for too long.
        """
        file = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
        try:
            lock_within(file, fcntl.LOCK_EX, _LOCK_WAIT)
            yield
        finally:
            os.close(file)

    @contextlib.contextmanager
    def _surveying(self) -> Iterator[Mapping[str, int]]:
        """Hold the lock of the cache, and give the open folders of all formats."""
        from fusefs.cache.survey import all_folders  # noqa: PLC0415 - a cached image needs no survey

        with self.deciding(), all_folders(self._root, self._folders) as folders:
            yield folders

    def saved(self, key: str, waiting: Waiting) -> tuple[CacheEntry, Facts | None]:
        """Return the entry of an engine's image and its document `INDEX`, None if the caller has to fill the entry.

        The caller that fills an entry has it exclusively until it is complete; others wait here, within *waiting*.
        Raises OSError if the entry cannot be used, or if the wait takes too long.
        """
        while True:
            with self.deciding():
                path, directory = self._open(SAVED, key)
                with _closing_if_it_fails(directory):
                    if try_lock(directory, fcntl.LOCK_SH):
                        facts = _index(path, directory)
                        if facts is None:
                            directory = self._alone(path, directory)
                        return CacheEntry(path, directory, self, of_user=False), facts
            try:
                with waiting():
                    lock_within(directory, fcntl.LOCK_SH, _MAKER_WAIT)
            finally:
                os.close(directory)

    def complete(self, kind: str, key: str) -> tuple[CacheEntry, Facts] | None:
        """Return a complete entry and its document `INDEX`; None without one, or while another process fills it.

        Raises OSError if it cannot be used.
        """
        with self.deciding():
            try:
                directory = open_private(key, self._folders[kind])
            except FileNotFoundError:
                return None
            with _closing_if_it_fails(directory):
                path = self._path(kind, key)
                facts = _index(path, directory) if try_lock(directory, fcntl.LOCK_SH) else None
            if facts is None:
                os.close(directory)
                return None
            return CacheEntry(path, directory, self, of_user=kind == FILES), facts

    def has_saved(self, key: str) -> bool:
        """Return whether the entry of an engine's image seems to be complete; nobody holds it meanwhile."""
        try:
            os.stat(f"{key}/{INDEX}", dir_fd=self._folders[SAVED], follow_symlinks=False)
        except OSError:
            return False
        return True

    def archive(self, key: str) -> tuple[CacheEntry, Facts | None]:
        """Return the entry of a user's archive and its document `INDEX`, None for an incomplete entry."""
        return self.shared(FILES, key)

    def shared(self, kind: str, key: str) -> tuple[CacheEntry, Facts | None]:
        """Return an entry that several processes may fill, and its document `INDEX`, None for an incomplete entry."""
        with self.deciding():
            path, directory = self._open(kind, key)
            with _closing_if_it_fails(directory):
                lock_within(directory, fcntl.LOCK_SH, 0)  # exclusive locks here are held only while deciding
                facts = _index(path, directory)
            return CacheEntry(path, directory, self, of_user=kind == FILES), facts

    def room(self, need: int, total: int = 0) -> int:
        """Make room for *need* bytes; return how many more may be cached, 0 if these may not.

        Least recently used entries are evicted first; entries in use are never evicted.  Nothing is evicted if
        even that would not make enough room, nor for the beginning of *total* bytes that exceed the limit.
        """
        if total > self._limit:
            return 0
        try:
            with self._surveying() as folders:
                free = self._free() if self._surely(need) else self._make_room(need, need, folders)
                return 0 if free is None else max(0, min(self._limit - self._in_use, free))
        except OSError as error:
            self._complain(error)
            return 0

    @contextlib.contextmanager
    def admitting(self) -> Iterator[Callable[[int, int], bool]]:
        """Hold the lock of the cache as `deciding` does, and give a function that makes room for a complete file.

        The file is on the disk already.  Its arguments are the size of the file in bytes, and how much larger its entry
        becomes by it, which is negative if it replaces other files.  It returns whether the file may be cached, and
        raises OSError if the disk is too full.
        """
        with self._surveying() as folders:

            def admits(size: int, more: int) -> bool:
                admitted = self._surely(size, on_disk=True) or self._make_room(more, 0, folders) is not None
                if not admitted and self._free() < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return admitted

            yield admits

    def _make_room(self, need: int, disk_space: int, folders: Mapping[str, int]) -> int | None:
        """Make room for *need* bytes, of which *disk_space* are not on the disk yet.

        Return how many bytes the disk has for the cache after that; None if there is no room.
        """
        from fusefs.cache.survey import each  # noqa: PLC0415 - a cached image needs no survey

        entries, free = [entry for entry, _ in each(folders, _KINDS)], self._free()
        in_use = sum(entry.size for entry in entries if not entry.free)
        could_free = sum(entry.size for entry in entries if entry.free)
        if in_use + need > self._limit or free + could_free < disk_space:
            return None
        return free + self._evict(entries, need, disk_space, folders)

    def trim(self) -> None:
        """Evict entries until the cache is within its limit, and remove incomplete ones."""
        from fusefs.cache.survey import each  # noqa: PLC0415 - a cached image needs no survey

        try:
            with self._surveying() as folders:
                self._evict([entry for entry, _ in each(folders, _KINDS)], 0, 0, folders)
        except OSError as error:
            self._complain(error)

    def prune(self, *, everything: bool) -> int:
        """Remove broken, incomplete and excess entries, or *everything* that is not in use; return the bytes freed."""
        from fusefs.cache.survey import taken  # noqa: PLC0415 - a cached image needs no survey

        freed = 0
        with self._surveying() as folders:
            for entry, _, names in self._removals(folders, everything=everything):
                with taken(folders, entry) as directory:
                    if directory is not None:
                        path = self._path(entry.kind, entry.key)
                        freed += remove(path, directory) if names is None else unlink(directory, names)
        return freed

    def prunable(self, *, everything: bool) -> "list[Removal]":
        """Return what `prune` would remove."""
        with self._surveying() as folders:
            return self._removals(folders, everything=everything)

    def _removals(self, folders: Mapping[str, int], *, everything: bool) -> "list[Removal]":
        from fusefs.cache.survey import Removal, each  # noqa: PLC0415 - a cached image needs no survey

        removals, others = [], []
        for entry, directory in each(folders, _KINDS):
            path, may_clean = self._path(entry.kind, entry.key), entry.free and entry.ours
            if entry.free and (everything or (may_clean and _is_broken(path, directory))):
                removals.append(Removal(entry, entry.size))
            else:
                sizes = unsealed(path, directory, parts=True) if may_clean else {}
                others.append(Removal(entry, sum(sizes.values()), tuple(sizes)))
        total = sum(entry.size - cleaned for entry, cleaned, _ in others)
        free = self._free() + sum(removal.size for removal in (*removals, *others))
        for entry, cleaned, names in sorted(others, key=lambda other: other.entry.used_ns):
            if entry.free and (not entry.used_ns or total > self._limit or free < 0):
                total -= entry.size - cleaned
                free += entry.size - cleaned
                removals.append(Removal(entry, entry.size))
            elif names:
                removals.append(Removal(entry, cleaned, names))
        return removals

    def remove(self, doomed: Collection[tuple[str, str]]) -> int:
        """Remove the entries with these kinds and keys that are not in use; return the bytes freed."""
        from fusefs.cache.survey import each  # noqa: PLC0415 - a cached image needs no survey

        freed = 0
        with self._surveying() as folders:
            for entry, directory in each(folders, _KINDS):
                if entry.free and (entry.kind, entry.key) in doomed:
                    freed += remove(self._path(entry.kind, entry.key), directory)
        return freed

    def entries(self, *, silent: bool = False) -> "list[ListedEntry]":
        """Return the complete entries, and all of other formats, the most recently used first.

        One that cannot be read is left out, with a warning unless *silent*.
        """
        from fusefs.cache.part import part_size  # noqa: PLC0415 - only a list needs it
        from fusefs.cache.survey import ListedEntry, description, each  # noqa: PLC0415

        listed = []
        with self._surveying() as folders:
            for entry, directory in each(folders, _KINDS):
                about = part = None
                told = contextlib.suppress(OSError) if silent else _telling(self._path(entry.kind, entry.key))
                with contextlib.suppress(Altered), told:
                    about = description(directory, ours=entry.ours)
                    part = part_size(directory, (about or {}).get("blobSize", 0)) if entry.kind == BLOBS else None
                if about is not None and entry.used_ns:
                    listed.append(
                        ListedEntry(
                            entry.kind, entry.key, about, entry.size, entry.used_ns, not entry.free, entry.ours, part
                        )
                    )
        return sorted(listed, key=lambda entry: -entry.used_ns)

    def read(self, kind: str, key: str, name: str) -> bytes:
        """Return the file *name* of an entry, empty if it cannot be read; this does not count as a use of the entry."""
        with contextlib.suppress(OSError, Altered):
            directory = open_private(key, self._folders[kind])
            try:
                with open(open_sealed(directory, name, read_document(directory, name + SEAL) or {}), "rb") as file:
                    return file.read()
            finally:
                os.close(directory)
        return b""

    def _path(self, kind: str, key: str) -> str:
        return os.path.join(self.path, kind, key)

    def _open(self, kind: str, key: str) -> tuple[str, int]:
        return self._path(kind, key), private_directory(key, self._folders[kind])

    def _alone(self, path: str, directory: int) -> int:
        """Return the incomplete entry's *directory* at *path*, or a new one, empty and exclusively locked."""
        if try_lock(directory, fcntl.LOCK_EX):
            clear(directory)
            return directory
        # A mount still uses the broken entry: rename it; a later survey removes it.
        os.rename(path, f"{path}.{os.urandom(4).hex()}")
        _, fresh = self._open(SAVED, os.path.basename(path))
        lock_within(fresh, fcntl.LOCK_EX, 0)
        os.close(directory)
        return fresh

    def _evict(self, entries: "list[SurveyedEntry]", need: int, disk_space: int, folders: Mapping[str, int]) -> int:
        """Remove incomplete entries, then others to make room, see `_make_room`; return the bytes freed."""
        from fusefs.cache.survey import taken  # noqa: PLC0415 - a cached image needs no survey

        total, free, freed = sum(entry.size for entry in entries), self._free(), 0
        for entry in sorted(entries, key=lambda entry: entry.used_ns):
            fits = total + need - freed <= self._limit and free + freed >= disk_space
            if not entry.free or (entry.used_ns and fits and not entry.leftovers):
                continue
            with taken(folders, entry) as directory:
                if directory is None:
                    continue
                path = self._path(entry.kind, entry.key)
                if entry.leftovers:
                    freed += unlink(directory, unsealed(path, directory, parts=False))
                    fits = total + need - freed <= self._limit and free + freed >= disk_space
                if not entry.used_ns or not fits:
                    removed = remove(path, directory)
                    freed += removed
                    if entry.used_ns:
                        log.info("%s: removed, %d bytes", printable(path), removed)
        self._in_use = sum(entry.size for entry in entries if not entry.free)
        self._spare = (self._limit - total + freed - need) // _SHARE
        self._stands_until = time.monotonic() + _RECENT
        return freed

    def _surely(self, more: int, *, on_disk: bool = False) -> bool:
        """Return whether *more* bytes fit according to the last survey, and count them if so.

        Each indexed layer asks, and a survey takes up to 0.1 ms an entry.
        """
        fits = time.monotonic() < self._stands_until and more <= self._spare
        fits = fits and self._free() >= (0 if on_disk else more)
        if fits:
            self._spare -= more
        return fits

    def _complain(self, error: OSError) -> None:
        if error.errno != errno.ENOENT:  # the cache was removed
            log.warning("cannot make room in the cache %s: %s", printable(self.path), error.strerror)

    def _free(self) -> int:
        """Return how many bytes the cache may still write, negative if the disk is too full already."""
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
    """Return the document `INDEX` of the locked entry and record its use; None, with a warning, for a damaged entry."""
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
    """Log errors of reading the entry at *path*, and go on: the entry itself may be valid."""
    try:
        yield
    except OSError as error:
        log.warning("%s cannot be read: %s", printable(path), error.strerror)
