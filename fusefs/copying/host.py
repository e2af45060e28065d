"""Copies a file or a directory of an image to the host."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from fusefs.copying.attributes import set_attributes
from fusefs.copying.copied import Copied
from fusefs.copying.destination import Destination, kind_of, not_written, open_destination
from fusefs.copying.directories import Way, open_below, open_place, remove
from fusefs.copying.source import Source, checked_name, stored_bytes
from fusefs.errors import NoSpace
from fusefs.log import logger
from fusefs.progress import Advance
from fusefs.text import printable
from fusefs.tree.node import RegularFile, Special, Stat, Symlink
from fusefs.tree.walk import PathNode, children, is_directory

log = logger(__name__)

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINK = (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EACCES)
"""Errors of a file system that has no hard links, or not as many, or of two file systems.

EACCES: the directory of the first name has got its mode, which closes it to this user."""


def copy_to_host(source: Source, path: str | bytes | os.PathLike[str], advance: Advance) -> Copied:
    """Copy *source* to *path* as ``docker cp`` names it, call *advance* with numbers of bytes, and return the sum.

    Existing directories are merged, other existing files replaced.  After an error or an interrupt, no file is
    incomplete, and a directory that was made for the copy is removed again.  Raises NoSpace if something cannot be
    written, OSError if the image cannot be read.
    """
    destination = open_destination(os.fsencode(path), source)
    try:
        return _HostCopy(source, destination, advance).run()
    finally:
        os.close(destination.directory)


class _HostCopy:
    """One copy."""

    def __init__(self, source: Source, destination: Destination, advance: Advance) -> None:
        self._tree = source.tree
        self._source = source
        self._destination = destination
        self._advance = advance
        self._copied = Copied(os.fsdecode(destination.path))
        self._links: dict[int, PathNode] = {}
        """The first names of files with several."""
        self._is_new = False
        """Whether the destination was made by this copy."""

    def run(self) -> Copied:
        """Copy everything."""
        try:
            if self._source.is_directory:
                self._copy_directory()
            else:
                self._copy_file(self._destination.directory, self._destination.name, self._source.top)
        except BaseException:
            if not self._undone():
                log.warning("the copy in %s is incomplete", printable(self._destination.path))
            raise
        return self._copied

    def _undone(self) -> bool:
        """Remove what was made; return whether nothing of the copy is left."""
        if not self._is_new:
            return not self._copied
        try:
            remove(self._destination.name, self._destination.directory)
        except OSError:
            return False
        return True

    def _copy_directory(self) -> None:
        """Copy the directory without recursion: it may be very deep."""
        top = self._source.top
        way = Way(self._destination.directory)
        try:
            if self._destination.name:
                self._enter(way, self._destination.name, top)
            else:
                with self._writing(top):
                    way.enter(b".")
            waiting = [(top, iter(children(self._tree, top)))]
            while waiting:
                directory, rest = waiting[-1]
                entry = next(rest, None)
                if entry is None:
                    waiting.pop()
                    self._leave(way, directory, is_own=bool(waiting or self._destination.name))
                elif is_directory(self._tree, entry.number):
                    self._enter(way, checked_name(entry.name), entry)
                    waiting.append((entry, iter(children(self._tree, entry))))
                else:
                    self._copy_file(way.here, checked_name(entry.name), entry)
        finally:
            way.close()

    def _enter(self, way: Way, name: bytes, directory: PathNode) -> None:
        """Go into the directory *name*, and make it if it is missing."""
        with self._writing(directory):
            is_new = False
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=way.here)
                is_new = True
            self._is_new = self._is_new or (is_new and directory is self._source.top)
            try:
                way.enter(name, own=is_new)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise NoSpace(f"cannot write {self._shown(directory)}: it exists and is not a directory") from None
                raise
            self._copied.directories += 1

    def _leave(self, way: Way, directory: PathNode, *, is_own: bool) -> None:
        """Go back, and set the attributes: later changes in the directory would change its time.

        One that the user had before, and that is only the place for the copy (not *is_own*), keeps its own.
        """
        with self._writing(directory):
            way.leave(partial(self._set_attributes, directory) if is_own else lambda _: None)

    def _set_attributes(self, file: PathNode, descriptor: int) -> None:
        set_attributes(descriptor, self._tree.stat(file.number), self._tree.xattrs(file.number))

    def _copy_file(self, here: int, name: bytes, file: PathNode) -> None:
        status = self._tree.stat(file.number)
        if status.nlink > 1 and self._linked(here, name, file):
            return
        node = self._tree.node(file.number)
        match node:
            case RegularFile():
                self._copy_bytes(here, name, file, node)
                self._copied.files += 1
            case Symlink():
                with self._writing(file):
                    _replace(here, name)
                    os.symlink(node.target, name, dir_fd=here)
                self._finish(here, name, file)
                self._copied.links += 1
            case Special():
                self._copy_special(here, name, file, status)
            case _:
                raise AssertionError(node)

    def _linked(self, here: int, name: bytes, file: PathNode) -> bool:
        """Make a hard link to the first copy of the *file*, if there is one; return whether that succeeded."""
        first = self._links.setdefault(file.number, file)
        if first is file or not self._source.is_directory:
            return False
        names = first.parts[len(self._source.top.parts) : -1]
        with self._writing(file):
            _replace(here, name)
            try:
                top = open_below(self._destination.directory, [self._destination.name or b".", *names])
                try:
                    os.link(first.name, name, src_dir_fd=top, dst_dir_fd=here, follow_symlinks=False)
                finally:
                    os.close(top)
            except FileNotFoundError:  # a device that was skipped
                return False
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                return False
        self._copied.files += 1
        return True

    def _copy_bytes(self, here: int, name: bytes, file: PathNode, node: RegularFile) -> None:
        with self._writing(file):
            new = _new_name(here, name)
            descriptor = os.open(new, _NEW, 0o600, dir_fd=here)
        try:
            for offset, data in stored_bytes(node.content):
                with self._writing(file):
                    _write(descriptor, data, offset)
                self._copied.size += len(data)
                self._advance(len(data))
            with self._writing(file):
                os.ftruncate(descriptor, node.content.size)
                self._set_attributes(file, descriptor)
                if new != name:
                    os.rename(new, name, src_dir_fd=here, dst_dir_fd=here)
        except BaseException:
            with suppress(OSError):
                os.unlink(new, dir_fd=here)
            raise
        finally:
            os.close(descriptor)

    def _copy_special(self, here: int, name: bytes, file: PathNode, status: Stat) -> None:
        with self._writing(file):
            _replace(here, name)
            try:
                os.mknod(name, 0o600 | stat.S_IFMT(status.mode), status.rdev, dir_fd=here)
            except PermissionError as error:  # only root may make devices, and not in a user namespace
                self._copied.skip(file.path, str(error.strerror))
                return
        self._finish(here, name, file)
        self._copied.others += 1

    def _finish(self, here: int, name: bytes, file: PathNode) -> None:
        with self._writing(file):
            place = open_place(name, here)
            try:
                self._set_attributes(file, place)
            finally:
                os.close(place)

    @contextmanager
    def _writing(self, file: PathNode) -> Iterator[None]:
        """Raise errors of the host as NoSpace that names the copy of *file*."""
        try:
            yield
        except OSError as error:
            raise not_written(self._path(file), error) from None

    def _path(self, file: PathNode) -> bytes:
        below = file.parts[len(self._source.top.parts) :]
        return os.path.join(self._destination.path, *below)

    def _shown(self, file: PathNode) -> str:
        return printable(self._path(file))


def _write(descriptor: int, data: bytes | bytearray, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        offset += written
        rest = rest[written:]


def _exists(here: int, name: bytes) -> bool:
    """Return whether there is a file *name*; OSError if a copy does not replace it: a directory, a device."""
    try:
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it exists and is a directory")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise FileExistsError(errno.EEXIST, f"it exists and is a {kind_of(status)}")
    return True


def _new_name(here: int, name: bytes) -> bytes:
    """Return *name*, or another name if there is such a file, which is replaced when the new one is complete."""
    return b".imgfs-" + os.urandom(8).hex().encode() if _exists(here, name) else name


def _replace(here: int, name: bytes) -> None:
    """Remove the file *name* if there is one."""
    if _exists(here, name):
        os.unlink(name, dir_fd=here)
