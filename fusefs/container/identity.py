"""The user of a container, as an image config names one: by the files of the image."""

import os
from typing import NamedTuple

from fusefs.errors import Unavailable
from fusefs.mount.syscalls import open_by_names
from fusefs.text import printable

_MAX_FILE = 1 << 20
"""Bytes read of each of ``/etc/passwd`` and ``/etc/group``."""
_MAX_ID = (1 << 32) - 2


class Identity(NamedTuple):
    """A user with groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def identity_of(user: str, root: str = "/") -> Identity:
    """Return the *user* ``NAME``, ``UID``, ``NAME:GROUP`` or ``UID:GID`` of the directory *root*; empty: 0.

    Raises Unavailable if the root directory has no such name.
    """
    name, _, group = user.partition(":")
    name = name or "0"
    users = [
        line for line in _lines(root, "etc/passwd") if len(line) > 5 and line[2].isdecimal() and line[3].isdecimal()
    ]
    groups = [line for line in _lines(root, "etc/group") if len(line) > 2 and line[2].isdecimal()]
    found = next((line for line in users if line[0] == name), None) or next(
        (line for line in users if line[2] == name), None
    )
    if found is None and not name.isdecimal():
        raise Unavailable(f"the image has no user {printable(name)!r}; see -u")
    uid, gid, home = (int(found[2]), int(found[3]), found[5]) if found else (int(name), 0, "/")
    more: tuple[int, ...] = ()
    if group:
        number = next((line[2] for line in groups if line[0] == group), group)
        if not number.isdecimal():
            raise Unavailable(f"the image has no group {printable(group)!r}; see -u")
        gid = int(number)
    elif found:
        more = tuple(int(line[2]) for line in groups if len(line) > 3 and found[0] in line[3].split(","))
    if max(uid, gid, *more) > _MAX_ID:
        raise Unavailable(f"the user {printable(user)!r} has a number that is too large; see -u")
    return Identity(uid, gid, more, home or "/")


def _lines(root: str, path: str) -> list[list[str]]:
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = open_by_names(os.fsencode(os.path.join(root, path)), flags)
    except OSError:
        return []
    try:
        data = os.read(descriptor, _MAX_FILE)
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return [line.split(":") for line in os.fsdecode(data).split("\n")]
