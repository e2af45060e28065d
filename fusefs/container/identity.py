"""The user of a container, as an image config names one: by the files of the image."""

import os
from typing import NamedTuple

from fusefs.errors import Unavailable
from fusefs.mount.syscalls import open_by_names
from fusefs.text import printable

_MAX_FILE = 1 << 20
"""Bytes read of each of ``/etc/passwd`` and ``/etc/group``."""
_MAX_SHOWN = 64
"""Characters of a user in a message."""
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
    shown = printable(user if len(user) <= _MAX_SHOWN else f"{user[:_MAX_SHOWN]}…")
    name = name or "0"
    users = [
        line for line in _lines(root, "etc/passwd") if len(line) > 5 and _is_number(line[2]) and _is_number(line[3])
    ]
    groups = [line for line in _lines(root, "etc/group") if len(line) > 2 and _is_number(line[2])]
    found = next((line for line in users if line[0] == name), None) or next(
        (line for line in users if line[2] == name), None
    )
    if found is None and not _is_number(name):
        raise Unavailable(f"the image has no user {printable(name)!r}; see -u")
    uid, gid, home = (_number(found[2]), _number(found[3]), found[5]) if found else (_number(name), 0, "/")
    more: tuple[int, ...] = ()
    if group:
        number = next((line[2] for line in groups if line[0] == group), group)
        if not _is_number(number):
            raise Unavailable(f"the image has no group {printable(group)!r}; see -u")
        gid = _number(number)
    elif found:
        more = tuple(_number(line[2]) for line in groups if len(line) > 3 and found[0] in line[3].split(","))
    if max(uid, gid, *more) > _MAX_ID:
        raise Unavailable(f"the user {shown!r} has a number that is too large; see -u")
    return Identity(uid, gid, more, home or "/")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _number(text: str) -> int:
    """Return the number, or one that is too large; int() refuses thousands of digits."""
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) <= len(str(_MAX_ID)) else _MAX_ID + 1


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
