"""Views mounted by the kernel, as EROFS, for tests; and what a mount shows as plain values."""

import ctypes
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fusefs.erofs.writer import write
from fusefs.tree.node import Directory, RegularFile, Symlink
from fusefs.tree.overrides import Overrides
from tests.support.erofs_views import Place, kept_xattrs, places
from tests.support.requirements import ROOT, give_up, need

_LIBC = ctypes.CDLL(None, use_errno=True)
_FLAGS = 1 | 2 | 4
"""MS_RDONLY, MS_NOSUID, MS_NODEV."""
_DETACH = 2
"""MNT_DETACH."""
_SAFE = (6, 15)
"""Before this version of Linux, mounts of files may hang or panic."""
_PIECE = 1 << 20
_HEAD = 1 << 16
"""Bytes of a file that are compared with those of a tree."""


@contextmanager
def kernel_mount(view: Directory, mountpoint: Path, overrides: Overrides = Overrides()) -> Iterator[None]:  # noqa: B008
    """Mount *view* by the kernel for as long as the block takes; its metadata are a file without a name."""
    need(ROOT)
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if version is None or tuple(map(int, version.groups())) < _SAFE:
        give_up("needs Linux 6.15 or later")
    file = os.open(mountpoint.parent, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        with open(file, "wb", closefd=False) as out:
            written = write(view, out, overrides)
        options = ",".join(f"device=/proc/self/fd/{device.descriptor}" for device in written.devices)
        _mount(f"/proc/self/fd/{file}", mountpoint, options)
    finally:
        os.close(file)
    try:
        yield
    finally:
        if _LIBC.umount2(os.fsencode(mountpoint), 0):
            _LIBC.umount2(os.fsencode(mountpoint), _DETACH)
            raise AssertionError("the mount is busy")


def _mount(source: str, mountpoint: Path, options: str) -> None:
    if _LIBC.mount(source.encode(), os.fsencode(mountpoint), b"erofs", _FLAGS, options.encode()):
        error = ctypes.get_errno()
        if error in (errno.ENODEV, errno.ENOTBLK):
            give_up(f"needs EROFS mounts of files: {os.strerror(error)}")
        raise OSError(error, os.strerror(error))


class ShownPath(NamedTuple):
    """All that a mount says of a path, but what differs between FUSE and EROFS."""

    mode: int
    nlink: int
    uid: int
    gid: int
    mtime_ns: int
    rdev: int
    size: int
    """0 for a directory."""
    data: str
    """The digest of a file's bytes, or the target of a symbolic link."""
    xattrs: tuple[tuple[str, bytes], ...]


class Walked(NamedTuple):
    """A mount that was walked through."""

    paths: dict[str, ShownPath]
    groups: set[frozenset[str]]
    """Paths that are names of one file with several links."""


def walked(mountpoint: Path, more: tuple[str, ...] = ()) -> Walked:
    """Walk through a mount, and look at the paths *more* that it may not list."""
    paths: dict[str, ShownPath] = {}
    groups: dict[int, set[str]] = {}
    queue = ["", *more]
    for path in queue:  # grows
        full = os.path.join(mountpoint, path)
        said = os.lstat(full)
        paths[path] = _shown(full, said)
        if stat.S_ISDIR(said.st_mode):
            queue += (os.path.join(path, name) for name in sorted(os.listdir(full)))
        elif said.st_nlink > 1:
            groups.setdefault(said.st_ino, set()).add(path)
    return Walked(paths, set(map(frozenset, groups.values())))


def _shown(path: str, said: os.stat_result) -> ShownPath:
    size, data = said.st_size, ""
    if stat.S_ISDIR(said.st_mode):
        size = 0
    elif stat.S_ISLNK(said.st_mode):
        data = os.readlink(path)
    elif stat.S_ISREG(said.st_mode):
        data = _digest(path)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    return ShownPath(
        *(said.st_mode, said.st_nlink, said.st_uid, said.st_gid, said.st_mtime_ns, said.st_rdev, size, data, xattrs)
    )


def _digest(path: str) -> str:
    hasher = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_PIECE):
            hasher.update(data)
    return hasher.hexdigest()


def check_mounted(view: Directory) -> None:
    """Mount *view* by the kernel, and assert that the mount is the same as its trees."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        mountpoint = Path(folder, "mnt")
        mountpoint.mkdir()
        with kernel_mount(view, mountpoint):
            expected = places(view)
            for path, place in expected.items():
                _check_path(os.path.join(os.fsencode(mountpoint), path), place)
            found = {b""}
            for where, folders, names in os.walk(os.fsencode(mountpoint)):
                found |= {os.path.relpath(os.path.join(where, name), os.fsencode(mountpoint))
                          for name in folders + names}  # fmt: skip
            assert found == expected.keys()


def _check_path(path: bytes, place: Place) -> None:
    shown, said = os.lstat(path), place.stat
    found = shown.st_mode, shown.st_uid, shown.st_gid, shown.st_mtime_ns, shown.st_nlink, shown.st_rdev
    assert found == (said.mode, said.uid, said.gid, said.mtime_ns, said.nlink, said.rdev), path
    node = place.node
    if isinstance(node, RegularFile):
        assert shown.st_size == said.size, path
        with open(path, "rb", buffering=0) as file:
            assert file.read(_HEAD) == bytes(node.content.read_at(0, _HEAD)), path
    elif isinstance(node, Symlink):
        assert os.readlink(path) == node.target, path
    if not stat.S_ISLNK(said.mode):
        xattrs = {os.fsencode(name): os.getxattr(path, name) for name in os.listxattr(path)}
        assert xattrs == kept_xattrs(dict(place.tree.xattrs(place.number))), path
