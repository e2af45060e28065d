"""The root directory of a cache: it belongs to this user, nobody else may write there, and it holds nothing else."""

import contextlib
import os
import stat

from fusefs.cache.sealed_file import link, new_file
from fusefs.errors import NoSpace
from fusefs.private import make_parents, private_directory
from fusefs.text import printable

_TAG = "CACHEDIR.TAG"
"""Tells backup programs to skip the directory (bford.info/cachedir)."""
_TAG_DATA = b"Signature: 8a477f597d28d172789f06886806bc55\n# imgfs caches container images here: imgfs cache --help\n"


def open_root(path: str) -> int:
    """Open the directory at *path*, created if missing; NoSpace if other users may write there or it is no cache."""
    if not os.path.lexists(path):
        make_parents(path)
        os.close(private_directory(path))
    if os.path.islink(path):
        raise unusable(path, "it is a symbolic link")
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(root)
    why = None
    if status.st_uid != os.geteuid():
        why = "it belongs to another user"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = "other users may write there"
    elif not _is_ours(root):
        why = "it is not empty and not a cache of imgfs"
    if why is not None:
        os.close(root)
        raise unusable(path, why)
    return root


def _is_ours(root: int) -> bool:
    """Return whether *root* is a cache; an empty directory becomes one.  Other directories are never modified."""
    names = os.listdir(root)
    if _TAG not in names:
        if names:
            return _TAG in os.listdir(root)  # another process may have just created it
        descriptor = new_file(root)
        try:
            os.write(descriptor, _TAG_DATA)
            with contextlib.suppress(FileExistsError):
                link(descriptor, root, _TAG)
        finally:
            os.close(descriptor)
    try:
        descriptor = os.open(_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except OSError:
        return False
    try:
        return b"imgfs" in os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def unusable(path: str, why: str) -> NoSpace:
    """Return the error that says *why* the directory at *path* cannot be the cache."""
    return NoSpace(
        f"cannot use the cache {printable(path)}: {why}; choose another directory with --cache-dir, or --no-cache"
    )
