"""Files of an image, formatted for lists and JSON."""

import os
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fusefs.cli.output.stdout import human_size
from fusefs.oci.times import rfc3339
from fusefs.text import printable
from fusefs.tree.node import RegularFile, Stat, Symlink, Tree
from fusefs.tree.walk import PathNode, resolve

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
ACCOUNT_FILES = b"/etc/passwd", b"/etc/group"
_MAX_PASSWD = 1 << 20
"""Bytes read of each of ``/etc/passwd`` and ``/etc/group``."""
_MAX_ACCOUNT = 255
"""Bytes of a name in them; a longer one is no name on Linux (LOGIN_NAME_MAX)."""


def kind_of(mode: int) -> str:
    """Return the type of a file as text: ``directory``, ``symlink``."""
    return _KINDS.get(stat.S_IFMT(mode), "file")


def file_json(tree: Tree, found: PathNode) -> dict[str, Any]:
    """Return a file for ``--json``; bytes of its path that are not UTF-8 become lone surrogates (PEP 383)."""
    status = tree.stat(found.number)
    node = tree.node(found.number)
    document: dict[str, Any] = {
        "path": os.fsdecode(found.path),
        "type": kind_of(status.mode),
        "mode": f"{stat.S_IMODE(status.mode):04o}",
        "nlink": status.nlink,
        "uid": status.uid,
        "gid": status.gid,
        "size": status.size,
        "mtime": rfc3339(status.mtime_ns),
    }
    if isinstance(node, Symlink):
        document["target"] = os.fsdecode(node.target)
    if stat.S_ISCHR(status.mode) or stat.S_ISBLK(status.mode):
        document["device"] = [os.major(status.rdev), os.minor(status.rdev)]
    return document


def long_columns(tree: Tree, found: PathNode, accounts: "Accounts", *, human: bool) -> tuple[str, ...]:
    """Return the columns of ``ls -l`` before the name: mode, links, owner, group, size, time."""
    status = tree.stat(found.number)
    size = human_size(status.size) if human else str(status.size)
    if stat.S_ISCHR(status.mode) or stat.S_ISBLK(status.mode):
        size = f"{os.major(status.rdev)}, {os.minor(status.rdev)}"
    owner, group = accounts.user(status), accounts.group(status)
    return stat.filemode(status.mode), str(status.nlink), owner, group, size, _local_time(status)


def arrow(tree: Tree, found: PathNode) -> str:
    """Return what ``ls -l`` shows after the name of a symbolic link: its target."""
    node = tree.node(found.number)
    assert isinstance(node, Symlink)
    return f" -> {printable(node.target)}"


def _local_time(status: Stat) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(status.mtime_ns // 10**9))
    except (OverflowError, OSError, ValueError):  # an image may contain any timestamp
        return str(status.mtime_ns // 10**9)


class Accounts:
    """Names of users and groups, from ``/etc/passwd`` and ``/etc/group`` in the image."""

    def __init__(self, users: Mapping[int, str], groups: Mapping[int, str]) -> None:
        self._users = users
        self._groups = groups

    @classmethod
    def of(cls, tree: Tree) -> "Accounts":
        """Read the names in the root file system *tree*."""
        users, groups = (_names(tree, path) for path in ACCOUNT_FILES)
        return cls(users, groups)

    def user(self, status: Stat) -> str:
        """Return the name of the owner, or the number if there is no name."""
        return self._users.get(status.uid, str(status.uid))

    def group(self, status: Stat) -> str:
        """Return the name of the group, or the number if there is no name."""
        return self._groups.get(status.gid, str(status.gid))


def _names(tree: Tree, path: bytes) -> dict[int, str]:
    """Return the names in a file like passwd(5) or group(5), by number; the first name of a number counts."""
    try:
        node = tree.node(resolve(tree, path).number)
        data = bytes(node.content.read_at(0, _MAX_PASSWD)) if isinstance(node, RegularFile) else b""
    except OSError:
        return {}
    names: dict[int, str] = {}
    for line in data.split(b"\n"):
        fields: Sequence[bytes] = line.split(b":")
        if len(fields) > 2 and 0 < len(fields[0]) <= _MAX_ACCOUNT and fields[2].isdigit() and len(fields[2]) < 11:
            names.setdefault(int(fields[2]), printable(fields[0]))
    return names
