"""A temporary file that nobody else can see and that no kill leaves behind."""

import errno
import os
import threading
from types import TracebackType
from typing import Self

from fusefs.content.file import OpenFile
from fusefs.content.protocol import Buffer, Bytes
from fusefs.errors import NoSpace


class Spool:
    """A file that one thread writes while another follows.

    The follower's `read_at` waits for bytes that are still to come, so that indexing and hashing
    happen in the same pass, off the writing thread, out of the page cache and without a buffer
    that could grow.  `_written` and `_finished` are guarded by `_grown`.

    Leaving the ``with`` block by an exception closes the file; otherwise it belongs to whoever took
    `file`.
    """

    def __init__(self, directory: str, name: str, descriptor: int | None = None, limit: int | None = None) -> None:
        """Create the spool file in *directory*; *name* stands for it in messages.

        *descriptor* is such a file that is there already; *limit* is how many bytes it may have.
        """
        self.directory = directory
        self.name = name
        self.file = OpenFile(unlinked_file(directory) if descriptor is None else descriptor, name)
        self._limit = limit
        self._written = 0
        self._finished = False
        self._grown = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.file.close()

    @property
    def written(self) -> int:
        """How many bytes there are so far."""
        return self._written

    def write(self, chunk: Buffer, needed: int) -> None:
        """Append *chunk*; *needed* is the whole size as far as one knows, for the error.

        Raises NoSpace when the file system is full, or the limit is reached.
        """
        if self._limit is not None and self._written + len(chunk) > self._limit:
            raise no_space(self.name, self.directory, max(needed, self._written + len(chunk)), self._limit)
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(self.file.descriptor, view) :]
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a limit of this user, whatever is free, or a disk that fails
                raise _unusable(self.directory, error) from None
            have = free_space(self.directory) + self._written
            raise no_space(self.name, self.directory, max(needed, self._written + len(chunk)), have) from None
        with self._grown:
            self._written += len(chunk)
            self._grown.notify()

    def finish(self) -> None:
        """Say that nothing more will come."""
        with self._grown:
            self._finished = True
            self._grown.notify()

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return *size* bytes from *offset* on, fewer only at the end; waits for the writer."""
        with self._grown:
            self._grown.wait_for(lambda: self._finished or self._written >= offset + size)
        return self.file.read_at(offset, size)

    def length(self) -> int:
        """Return the final size in bytes; waits for the writer."""
        with self._grown:
            self._grown.wait_for(lambda: self._finished)
            return self._written


def free_space(directory: str) -> int:
    """Return how many bytes this user may still write in *directory*; NoSpace if it is unusable."""
    try:
        stat = os.statvfs(directory)
    except OSError as error:
        raise _unusable(directory, error) from None
    return stat.f_bavail * stat.f_frsize


def no_space(name: str, directory: str, need: int, have: int) -> NoSpace:
    """Return the error for an image that does not fit."""
    return NoSpace(
        f"not enough space for {name} in {directory}: "
        f"need {megabytes(need)}, have {megabytes(have)}; choose another directory with --tmpdir"
    )


def megabytes(size: int) -> str:
    """Return *size* bytes as people read it: ``12.3 MB``."""
    return f"{size / 1e6:,.1f} MB"


def unlinked_file(directory: str) -> int:
    """Return the descriptor of a new file in *directory* that has no name; NoSpace if there can be none."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_EXCL
    try:
        return os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        # EISDIR is what a kernel or file system says that does not know O_TMPFILE.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise _unusable(directory, error) from None
    path = os.path.join(directory, f"imgfs-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(directory, error) from None
    os.unlink(path)
    return descriptor


def _unusable(directory: str, error: OSError) -> NoSpace:
    remedy = "choose another directory with --tmpdir"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "each layer that is decompressed or indexed is one; raise their limit (ulimit -n)"
    return NoSpace(f"cannot write in {directory}: {error.strerror}; {remedy}")
