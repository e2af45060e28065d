"""A temporary file without a name: invisible to other users, and removed even if the process is killed."""

import errno
import os
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from fusefs.content.file import OpenFile
from fusefs.content.protocol import Buffer, Bytes
from fusefs.errors import NoSpace


class Spool:
    """A file that one thread writes while another thread reads it.

    The reader's `read_at` waits for bytes that are not written yet.  So a second thread can index and hash in
    the same pass, from the page cache and without a growing buffer.  `_grown` guards `_written` and `_finished`.

    An exception in the ``with`` block closes the file; otherwise the user of `file` closes it.
    """

    def __init__(self, directory: str, name: str, descriptor: int | None = None, limit: int | None = None) -> None:
        """Create the spool file in *directory*; messages call it *name*.

        *descriptor*: an open file to use instead of a new one.  *limit*: the maximum size in bytes.
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
        """The number of bytes written so far."""
        return self._written

    def write(self, chunk: Buffer, needed: int) -> None:
        """Append *chunk*; *needed* is the expected total size in bytes, for the error message.

        Raises NoSpace if the file system is full or the limit is exceeded.
        """
        if self._limit is not None and self._written + len(chunk) > self._limit:
            raise no_space(self.name, self.directory, max(needed, self._written + len(chunk)), self._limit)
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(self.file.descriptor, view) :]
        except OSError as error:
            need = max(needed, self._written + len(chunk))
            raise write_failed(self.name, self.directory, need, self._written, error) from None
        with self._grown:
            self._written += len(chunk)
            self._grown.notify()

    def finish(self) -> None:
        """Mark the file as complete."""
        with self._grown:
            self._finished = True
            self._grown.notify()

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return *size* bytes from *offset* on, fewer only at the end; waits until they are written."""
        with self._grown:
            self._grown.wait_for(lambda: self._finished or self._written >= offset + size)
        return self.file.read_at(offset, size)

    def length(self) -> int:
        """Return the final size in bytes; waits until the file is complete."""
        with self._grown:
            self._grown.wait_for(lambda: self._finished)
            return self._written


def write_failed(name: str, directory: str, need: int, written: int, error: OSError) -> NoSpace:
    """Return the exception for an *error* of a write, after *written* of *need* bytes."""
    if error.errno != errno.ENOSPC:  # a quota or a failing disk, regardless of free space
        return _unusable(directory, error)
    return no_space(name, directory, need, free_space(directory) + written)


def free_space(directory: str) -> int:
    """Return how many bytes this user may still write in *directory*; NoSpace if the directory is unusable."""
    try:
        disk = os.statvfs(directory)
    except OSError as error:
        raise _unusable(directory, error) from None
    return disk.f_bavail * disk.f_frsize


def no_space(name: str, directory: str, need: int, have: int) -> NoSpace:
    """Return the error for *need* bytes that do not fit into *have* bytes of free space in *directory*."""
    return NoSpace(
        f"not enough space for {name} in {directory}: "
        f"need {megabytes(need)}, have {megabytes(have)}; choose another directory with --tmpdir"
    )


def megabytes(size: int) -> str:
    """Return *size* bytes for messages: ``12.3 MB``."""
    return f"{size / 1e6:,.1f} MB"


def unlinked_file(directory: str) -> int:
    """Return the descriptor of a new file without a name in *directory*; NoSpace if it cannot be created."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_EXCL
    try:
        descriptor = os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        # Kernels and file systems without O_TMPFILE fail with EISDIR, among others.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise _unusable(directory, error) from None
        descriptor = _named_and_unlinked(directory, flags)
    with suppress(OSError):  # a file system without modes
        os.fchmod(descriptor, 0o600)  # the umask may have removed bits
    return descriptor


def _named_and_unlinked(directory: str, flags: int) -> int:
    path = os.path.join(directory, f"imgfs-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(directory, error) from None
    os.unlink(path)
    return descriptor


def file_or_memory(directory: str) -> tuple[int, str]:
    """Return the descriptor of a new file without a name and its place for messages: *directory*, else memory.

    Memory is for a *directory* that cannot be used, such as /var/tmp on a read-only disk.  The file must be small.
    """
    try:
        return unlinked_file(directory), directory
    except NoSpace:
        with suppress(OSError):
            return os.memfd_create("imgfs", os.MFD_CLOEXEC), "memory"
        raise


def _unusable(directory: str, error: OSError) -> NoSpace:
    remedy = "choose another directory with --tmpdir"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "each decompressed or indexed layer needs an open file; raise the limit (ulimit -n)"
    return NoSpace(f"cannot write in {directory}: {error.strerror}; {remedy}")
