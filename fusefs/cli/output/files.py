"""Files of an image as lists show them."""

import os
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fusefs.cli.output.stdout import human_size
from fusefs.errors import Unavailable
from fusefs.oci.times import rfc3339
from fusefs.text import printable
from fusefs.tree.node import RegularFile, Stat, Symlink, Tree
from fusefs.tree.walk import Found, resolve

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_ACCOUNTS = 1 << 20
"""Bytes of an ``/etc/passwd`` that are read."""


def found_at(tree: Tree, path: bytes, image: str, *, follow: bool) -> Found:
    """Return what is at *path* in the tree of *image*; Unavailable says why there is nothing."""
    try:
        return resolve(tree, path, follow=follow)
    except OSError as error:
        raise Unavailable(f"{printable(image)} has no {printable(path)}: {error.strerror}") from None


def kind_of(mode: int) -> str:
    """Return the type of a file in words."""
    return _KINDS.get(stat.S_IFMT(mode), "file")


def file_json(tree: Tree, found: Found) -> dict[str, Any]:
    """Return a file as ``--json`` shows it; bytes of its path that are no UTF-8 are lone surrogates, as in Python."""
    said = tree.stat(found.number)
    node = tree.node(found.number)
    document: dict[str, Any] = {
        "path": os.fsdecode(found.path),
        "type": kind_of(said.mode),
        "mode": f"{stat.S_IMODE(said.mode):04o}",
        "nlink": said.nlink,
        "uid": said.uid,
        "gid": said.gid,
        "size": said.size,
        "mtime": rfc3339(said.mtime_ns),
    }
    if isinstance(node, Symlink):
        document["target"] = os.fsdecode(node.target)
    if stat.S_ISCHR(said.mode) or stat.S_ISBLK(said.mode):
        document["device"] = [os.major(said.rdev), os.minor(said.rdev)]
    return document


def long_row(tree: Tree, found: Found, name: str, accounts: "Accounts", *, human: bool) -> tuple[str, ...]:
    """Return the columns that ``ls -l`` has: mode, links, owner, group, size, time, name."""
    said = tree.stat(found.number)
    node = tree.node(found.number)
    size = human_size(said.size) if human else str(said.size)
    if stat.S_ISCHR(said.mode) or stat.S_ISBLK(said.mode):
        size = f"{os.major(said.rdev)}, {os.minor(said.rdev)}"
    if isinstance(node, Symlink):
        name = f"{name} -> {printable(node.target)}"
    owner, group = accounts.user(said), accounts.group(said)
    return stat.filemode(said.mode), str(said.nlink), owner, group, size, _when(said), name


def _when(said: Stat) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(said.mtime_ns // 10**9))
    except (OverflowError, OSError, ValueError):  # an image may say any number
        return str(said.mtime_ns // 10**9)


class Accounts:
    """Names of users and groups, as the image's own files have them."""

    def __init__(self, users: Mapping[int, str], groups: Mapping[int, str]) -> None:
        self._users = users
        self._groups = groups

    @classmethod
    def of(cls, tree: Tree) -> "Accounts":
        """Read the names in the root file system *tree*."""
        return cls(_names(tree, b"/etc/passwd"), _names(tree, b"/etc/group"))

    def user(self, said: Stat) -> str:
        """Return the owner's name, else number."""
        return self._users.get(said.uid, str(said.uid))

    def group(self, said: Stat) -> str:
        """Return the group's name, else number."""
        return self._groups.get(said.gid, str(said.gid))


def _names(tree: Tree, path: bytes) -> dict[int, str]:
    """Return the names in a file as passwd(5) and group(5) describe them, by number; the first counts."""
    try:
        node = tree.node(resolve(tree, path).number)
        data = bytes(node.content.read_at(0, _ACCOUNTS)) if isinstance(node, RegularFile) else b""
    except OSError:
        return {}
    names: dict[int, str] = {}
    for line in data.split(b"\n"):
        fields: Sequence[bytes] = line.split(b":")
        if len(fields) > 2 and fields[0] and fields[2].isdigit() and len(fields[2]) < 11:
            names.setdefault(int(fields[2]), printable(fields[0]))
    return names
