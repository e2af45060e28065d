"""What can go wrong, one class for each way a user has to react.

Every class has an exit code; the README tables them.  A message is one line that names the thing,
the place and both numbers.  Anything that is not an `ImgfsError` is a bug.
"""

import errno
from typing import ClassVar

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a write for which there is no space, or which a limit of the user's forbids."""


class ImgfsError(Exception):
    """Base of all errors that are not bugs."""

    exit_code: ClassVar[int] = 1


class UsageError(ImgfsError):
    """The command line is wrong: an option, a reference, a combination."""

    exit_code = 2


class EngineError(ImgfsError):
    """The engine cannot be reached, or answered with an error or with nonsense."""

    exit_code = 3


class Unavailable(ImgfsError):
    """The image, file or reference that was asked for is not there or cannot be read."""

    exit_code = 4


class InvalidImage(ImgfsError):
    """The archive or one of its documents is damaged or breaks its specification."""

    exit_code = 5


class DigestMismatch(ImgfsError):
    """Content does not have the digest that the image states for it."""

    exit_code = 6


class Unsupported(ImgfsError):
    """A format that imgfs knows of and does not read."""

    exit_code = 7


class NoSpace(ImgfsError):
    """What must be written does not fit, or may not be written there."""

    exit_code = 8


class MountError(ImgfsError):
    """The mountpoint cannot be used, or FUSE refused."""

    exit_code = 9
