"""Errors that a user can act on: one class for each exit code.

A message is one line: the object, the place, the expected and the actual value, and after ``;`` the remedy.  The
first line of each docstring describes the exit code in the manual page.  An exception that is not an `ImgfsError`
is a bug.
"""

import errno
from collections.abc import Iterable
from typing import ClassVar

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a write that fails at a full disk, a quota or a file size limit."""


class ImgfsError(Exception):
    """Base class of all errors that are not bugs."""

    exit_code: ClassVar[int] = 1


class UsageError(ImgfsError):
    """The command line is wrong: an option, an image reference, or a combination of options."""

    exit_code = 2


class EngineError(ImgfsError):
    """The engine, registry or web server cannot be reached, reported an error, or sent an invalid response."""

    exit_code = 3


class RegistryError(EngineError):
    """The same error of a registry or web server: the image may be there, and another attempt may succeed."""


class BlobError(RegistryError):
    """The same error of one blob: the registry may answer requests for others."""


class Unavailable(ImgfsError):
    """The image, file or reference does not exist or cannot be read."""

    exit_code = 4
    choices: tuple[str | int, ...] = ()
    """The names or indexes of the images in a file or directory, if it holds several and nothing picks one."""

    def among(self, choices: Iterable[str | int]) -> "Unavailable":
        """Return the error with *choices*."""
        self.choices = tuple(choices)
        return self


class InvalidImage(ImgfsError):
    """The archive or one of its documents is damaged or violates its specification."""

    exit_code = 5


class DigestMismatch(ImgfsError):
    """Content does not match the digest that the image states for it."""

    exit_code = 6


class Unsupported(ImgfsError):
    """The image uses a format or a feature that imgfs does not support."""

    exit_code = 7


class NoSpace(ImgfsError):
    """A file cannot be written (no space, no permission), or --cache-dir cannot be used."""

    exit_code = 8


class MountError(ImgfsError):
    """The mountpoint cannot be used, or FUSE refused the mount or unmount."""

    exit_code = 9


class LimitReached(ImgfsError):
    """A limit of this process was reached: memory, threads, processes or open files."""

    exit_code = 10


class TooWasteful(ImgfsError):
    """The image wastes more than imgfs waste --fail-above allows."""

    exit_code = 11


_NO_MEMORY = "out of memory; raise the limit of the address space (ulimit -v)"
_NO_THREAD = "cannot start a thread or process; raise the limit of processes or of memory (ulimit -u, -v)"
_NO_FILE = "too many open files; raise their limit (ulimit -n)"
_MEMORY_WORDS = ("map segment", "returned NULL without", "without exception set")
"""In messages of dlopen(3) and of CPython that mean lack of memory."""


def limit_reached(error: BaseException) -> LimitReached | None:
    """Return *error* as an error for the user if a limit of this process is its cause, else None."""
    text = str(error)
    match error:
        case LimitReached():
            return error
        case BaseExceptionGroup():
            return next(filter(None, map(limit_reached, error.exceptions)), None)
        case MemoryError() | OSError(errno=errno.ENOMEM):
            message = _NO_MEMORY
        case ImportError() | SystemError() if any(words in text for words in _MEMORY_WORDS):
            message = _NO_MEMORY
        case SystemError() if error.__cause__ is not None:  # CPython, of an exception that its own code did not see
            return limit_reached(error.__cause__)
        case RuntimeError() if "start new thread" in text:  # `threading` has no class for this
            message = _NO_THREAD
        case OSError(errno=errno.EAGAIN):
            message = _NO_THREAD
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            message = _NO_FILE
        case _:
            return None
    return LimitReached(message)
