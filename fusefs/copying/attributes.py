"""Owner, mode, times and extended attributes of a copy, as far as the user may set them."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from fusefs.tree.node import Stat

_SET_IDS = stat.S_ISUID | stat.S_ISGID


def set_attributes(descriptor: int, status: Stat, xattrs: Iterable[tuple[bytes, bytes]]) -> None:
    """Give the file of *descriptor*, which may be one that only names it, the attributes of an image's file.

    As with ``cp -a``: what this user may not set stays as it is; without the owner, no set-user-ID and set-group-ID.
    Raises OSError if the mode cannot be set.
    """
    path = f"/proc/self/fd/{descriptor}"
    mode = stat.S_IMODE(status.mode)
    if not _set_owner(path, status):
        mode &= ~_SET_IDS
    for name, value in xattrs:
        with suppress(OSError, ValueError):  # ValueError: a name with a null byte
            os.setxattr(path, name, value)
    if not stat.S_ISLNK(status.mode):
        os.chmod(path, mode)
    with suppress(OSError, OverflowError):  # an image may contain any timestamp
        os.utime(path, ns=(status.mtime_ns, status.mtime_ns))


def _set_owner(path: str, status: Stat) -> bool:
    """Set owner and group; return whether the file has them."""
    before = os.stat(path, follow_symlinks=True)
    if (before.st_uid, before.st_gid) == (status.uid, status.gid):
        return True
    try:
        os.chown(path, status.uid, status.gid)
    except (OSError, OverflowError):
        return False
    return True
