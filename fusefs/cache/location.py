"""Where a cache may be: a directory of our own that nobody else may write, and that holds nothing else."""

import contextlib
import os
import stat

from fusefs.cache.sealed_file import link, new_file
from fusefs.errors import NoSpace
from fusefs.text import printable

_TAG = "CACHEDIR.TAG"
"""Tells backup programs that this can be made anew (bford.info/cachedir)."""
_TAG_DATA = b"Signature: 8a477f597d28d172789f06886806bc55\n# imgfs keeps container images here: imgfs cache --help\n"


def open_root(path: str) -> int:
    """Return the directory at *path*, made if need be; NoSpace if it is not ours alone to write."""
    if not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    if os.path.islink(path):
        raise unusable(path, "it is a symbolic link")
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(root)
    why = None
    if found.st_uid != os.geteuid():
        why = "it belongs to another user"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = "others may write there"
    elif not _is_ours(root):
        why = "it is not empty, and no cache of imgfs"
    if why is not None:
        os.close(root)
        raise unusable(path, why)
    return root


def _is_ours(root: int) -> bool:
    """Return whether a directory is a cache, or was empty and is one now: nobody else's files are ever removed."""
    names = os.listdir(root)
    if _TAG not in names:
        if names:
            return _TAG in os.listdir(root)  # another imgfs was just making it
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
    """Return the error that says *why* no cache can be at *path*."""
    return NoSpace(
        f"cannot use the cache {printable(path)}: {why}; choose another directory with --cache-dir, or --no-cache"
    )
