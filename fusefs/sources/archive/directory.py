"""The files of an image layout in a directory.

A layout may come from anyone, so no link in it is resolved on this machine: a link is followed inside the layout only.
"""

import errno
import os
import stat
from collections.abc import Collection, Sequence

from fusefs.content.file import Extent, OpenFile
from fusefs.content.watched import WatchedFile
from fusefs.errors import ImgfsError, InvalidImage, Unavailable, limit_reached
from fusefs.oci import documents
from fusefs.sources.archive.blobs import Blobs, MemberKey, limited
from fusefs.text import printable

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_LINKS = 40
"""Links on the way to a file, as in Linux."""
_MISSING = (errno.ENOENT, errno.ENOTDIR)


class DirectoryBlobs(Blobs):
    """Files below a directory."""

    def __init__(self, path: str, shared_blobs: str | None = None) -> None:
        """Read the files below *path*, the blobs from *shared_blobs*, by default ``blobs`` below *path*."""
        self.path = path
        self.shared_blobs = shared_blobs
        self._opened: dict[tuple[str, ...], Extent] = {}

    @property
    def name(self) -> str:
        """The name of the source in messages."""
        return printable(self.path)

    def has(self, *parts: str) -> bool:
        """Return whether there is a file of that name, readable or not."""
        root, below = self._place(parts)
        try:
            os.close(open_beneath(root, below))
        except OSError as error:
            return error.errno not in _MISSING
        return True

    def size(self, *parts: str) -> int | None:
        """Return the size of a file."""
        file = self._file(parts)
        if file is None:
            return None
        try:
            return file.length()
        finally:
            file.close()

    def file(self, *parts: str) -> Extent | None:
        """Return the content of a file, which stays open."""
        if parts not in self._opened:
            file = self._file(parts)
            if file is None:
                return None
            self._opened[parts] = Extent(file, 0, file.length())
        return self._opened[parts]

    def data(self, *parts: str) -> bytes | None:
        """Return the bytes of a file, which does not stay open."""
        file = self._file(parts)
        if file is None:
            return None
        try:
            return limited(Extent(file, 0, file.length()), documents.DOCUMENT_LIMIT, f"{self.name}: {'/'.join(parts)}")
        finally:
            file.close()

    def content(self, name: bytes) -> Extent:
        """Return the content of the file at the path *name*; InvalidImage if it is missing."""
        found = self.file(*os.fsdecode(name).split("/"))
        if found is None:
            raise InvalidImage(f"{self.name}: {printable(name)} is missing")
        return found

    def member_key(self, name: bytes) -> MemberKey:
        """Return the key of the file at the path *name*; InvalidImage if it is missing."""
        content = self.content(name)  # stays open
        status = os.fstat(content.file.descriptor)
        return status.st_dev, status.st_ino, content.offset

    def names(self) -> Collection[bytes]:
        """Return the names in the directory."""
        return os.listdir(os.fsencode(self.path))

    def close(self) -> None:
        """Close all files."""
        for content in self._opened.values():
            content.close()

    def _place(self, parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """Return a directory and the path below it."""
        if self.shared_blobs is not None and parts[0] == "blobs":
            return self.shared_blobs, parts[1:]
        return self.path, parts

    def _file(self, parts: tuple[str, ...]) -> OpenFile | None:
        root, below = self._place(parts)
        try:
            file = WatchedFile(open_beneath(root, below), f"{printable(root)}/{'/'.join(below)}")
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise self._refused(parts, error) from None
        if not stat.S_ISREG(os.fstat(file.descriptor).st_mode):
            file.close()
            raise InvalidImage(f"{file.name} is not a regular file")
        return file

    def _refused(self, parts: Sequence[str], error: OSError) -> ImgfsError:
        shown = "/".join(parts)
        if error.errno == errno.EXDEV:
            return InvalidImage(
                f"{self.name}: {shown} is a symbolic link that leads out of the layout; cp -RL copies the layout with "
                "the files that links lead to"
            )
        kind = InvalidImage if error.errno == errno.ELOOP else Unavailable
        return limit_reached(error) or kind(f"{self.name}: cannot open {shown}: {error.strerror}")


def open_beneath(root: str, parts: Sequence[str]) -> int:
    """Open the file at the path *parts* below the directory *root* and return its descriptor.

    Links are followed as openat2(2) does with RESOLVE_BENEATH, which Python does not offer: EXDEV for one that is
    absolute or that leaves *root*, ELOOP for too many.  A FIFO is not waited for.
    """
    directories = [os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)]
    pending = list(reversed(parts))
    links = 0
    try:
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if len(directories) == 1:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
                os.close(directories.pop())
                continue
            target = _link(part, directories[-1])
            if target is not None:
                links += 1
                if links > _MAX_LINKS or target.startswith("/"):
                    number = errno.ELOOP if links > _MAX_LINKS else errno.EXDEV
                    raise OSError(number, os.strerror(number))
                pending += reversed(target.split("/"))
            elif pending:
                directories.append(os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=directories[-1]))
            else:
                return os.open(part, _FLAGS | os.O_NONBLOCK, dir_fd=directories[-1])
        return os.open(".", _FLAGS, dir_fd=directories[-1])
    finally:
        for directory in directories:
            os.close(directory)


def _link(name: str, directory: int) -> str | None:
    """Return the target of the link *name*, None for a file of another kind."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None
