"""Where a copy goes: the rules of ``docker cp``, which are those of cp(1) but for ``DIR/.``."""

import errno
import os
import stat
from typing import NamedTuple

from fusefs.copying.source import Source, checked_name
from fusefs.errors import NoSpace, limit_reached
from fusefs.text import printable


class Destination(NamedTuple):
    """A name in an open directory of the host."""

    directory: int
    name: bytes
    """Empty: the directory itself gets what is in the source."""
    path: bytes
    """For messages."""


def open_destination(destination: bytes, source: Source) -> Destination:
    """Return where *source* is copied to; its directory is to be closed.  NoSpace if that is not possible."""
    try:
        status = os.stat(destination)
    except FileNotFoundError:
        if destination.endswith(b"/") and not source.is_directory:
            raise not_written(destination, OSError(errno.ENOENT, os.strerror(errno.ENOENT))) from None
        return _named(destination)
    except OSError as error:
        raise not_written(destination, error) from None
    if not stat.S_ISDIR(status.st_mode):
        if source.is_directory:
            raise NoSpace(f"cannot write {printable(destination)}: it is not a directory")
        if not stat.S_ISREG(status.st_mode):
            kind = kind_of(status)
            raise NoSpace(f"cannot write {printable(destination)}: it is a {kind}; - writes a tar to standard output")
        return _named(destination)
    if source.name:
        return Destination(
            _opened(destination, destination), checked_name(source.name), os.path.join(destination, source.name)
        )
    return Destination(_opened(destination, destination), b"", destination)


def kind_of(status: os.stat_result) -> str:
    """Return what a file is that is neither a regular file, a directory nor a symbolic link."""
    if stat.S_ISFIFO(status.st_mode):
        return "FIFO"
    return "socket" if stat.S_ISSOCK(status.st_mode) else "device"


def _named(path: bytes) -> Destination:
    """Return the place of a file; if *path* is a symbolic link of the user, of what it leads to."""
    above, name = os.path.split(os.path.realpath(path))
    return Destination(_opened(above, path), name, path.rstrip(b"/"))


def _opened(directory: bytes, shown: bytes) -> int:
    try:
        return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise not_written(shown, error) from None


def not_written(path: bytes, error: OSError) -> Exception:
    """Return the *error* of writing *path* as an error for users."""
    return limit_reached(error) or NoSpace(f"cannot write {printable(path)}: {error.strerror}")
