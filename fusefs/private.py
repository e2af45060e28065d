"""Directories and files of this user that nobody else can open, whatever the umask is, and waits for their locks."""

import contextlib
import errno
import fcntl
import os
import stat
import time

_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_OURS = (errno.ELOOP, errno.EACCES, errno.ENXIO)
"""Errors of opening a link, a file without modes (of a process that was killed before it set them), or a socket."""
_POLL = 0.02
"""Longest time in seconds between two attempts to take a lock."""


def private_directory(path: str, parent: int | None = None) -> int:
    """Open the directory *path* (relative to the open directory *parent*), created if missing, as `open_private`."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700, dir_fd=parent)
    return open_private(path, parent)


def open_private(path: str, parent: int | None = None) -> int:
    """Open the directory *path* (relative to the open directory *parent*) and set its mode to 0700.

    Raises PermissionError if it belongs to another user, NotADirectoryError for a symbolic link or a file.
    """
    # A path, not an open directory: the umask may have left no mode to open it with.
    place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        status = os.fstat(place)
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EACCES, "it belongs to another user")
        if stat.S_IMODE(status.st_mode) & 0o777 != 0o700:
            os.chmod(f"/proc/self/fd/{place}", 0o700)
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(place)


def make_parents(path: str) -> None:
    """Make the missing directories above *path*, with mode 0700."""
    parent = os.path.dirname(path)
    if parent and not os.path.lexists(parent):
        make_parents(parent)
        os.close(private_directory(parent))


def private_file(name: str, directory: int) -> int:
    """Open the file *name* in the private *directory* for reading and writing, created if missing, with mode 0600.

    Anything else of that name is replaced: a link, a FIFO, a file that others may have opened.
    """
    with contextlib.suppress(FileExistsError):
        return _new_file(name, directory)
    with contextlib.suppress(FileNotFoundError):
        descriptor = _opened(name, directory)
        if descriptor is not None:
            return descriptor
        os.unlink(name, dir_fd=directory)
    with contextlib.suppress(FileExistsError):
        return _new_file(name, directory)
    return os.open(name, _FILE, 0o600, dir_fd=directory)  # another process has just made it


def _new_file(name: str, directory: int) -> int:
    descriptor = os.open(name, _FILE | os.O_EXCL, 0o600, dir_fd=directory)
    with contextlib.suppress(OSError):  # a file system without modes
        os.fchmod(descriptor, 0o600)
    return descriptor


def _opened(name: str, directory: int) -> int | None:
    """Return the open file, None if it is not a regular file that only this user can open."""
    try:
        descriptor = os.open(name, _FILE & ~os.O_CREAT, dir_fd=directory)
    except OSError as error:
        if error.errno in _NOT_OURS:
            return None
        raise
    status = os.fstat(descriptor)
    if status.st_mode == stat.S_IFREG | 0o600 and status.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    return None


def try_lock(descriptor: int, kind: int) -> bool:
    """Try to take the flock(2) of this *kind*, without waiting; return whether that succeeded."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_within(descriptor: int, kind: int, seconds: float) -> None:
    """Take the flock(2) of this *kind*; TimeoutError if another process holds it for *seconds*."""
    deadline, pause = time.monotonic() + seconds, 0.0005
    while not try_lock(descriptor, kind):
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds its lock")
        time.sleep(pause)
        pause = min(2 * pause, _POLL)
