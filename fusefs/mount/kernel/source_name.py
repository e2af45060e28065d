"""The source of a kernel mount in the mount table: the IMAGE argument, as in a FUSE mount.

A file system's source is the path by which EROFS opens its metadata.  So that path has to be the name that is to be
shown, which `mount -a` compares with the one in fstab.
"""

import errno
import os
import threading
from collections.abc import Callable

from fusefs.mount.syscalls import (
    CLONE_FS,
    CLONE_NEWNS,
    make_mounts_private,
    mount_detached,
    move_mount,
    unshare,
)

_MAX_LENGTH = 255
"""Bytes of an option's value in fsconfig(2)."""
_ELLIPSIS = "…".encode()
_ANONYMOUS = b"imgfs"
"""The name if the file system of names refuses the one that was asked for."""


def shown_source(name: str) -> bytes:
    """Return *name* as the source of a mount: its end, after an ellipsis, if it is too long."""
    data = os.fsencode(name).rstrip(b"/")
    if len(data) <= _MAX_LENGTH:
        return data
    end = data[len(_ELLIPSIS) - _MAX_LENGTH :].decode("utf-8", "ignore").encode()
    return _ELLIPSIS + end


def call_with_path(name: bytes, descriptor: int, use: Callable[[bytes], None]) -> None:
    """Call *use* with a path to the open file *descriptor* that is *name* itself, or ``imgfs`` if that cannot be.

    The path exists for the duration of the call and for its thread alone: in a file system of links that is mounted
    nowhere, or, for an absolute *name*, in a mount namespace of that thread.  Errors of *use* are raised.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            use(_linked(name, f"/proc/self/fd/{descriptor}".encode()))
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    thread = threading.Thread(target=run)
    try:
        thread.start()
    except RuntimeError:
        raise OSError(errno.EAGAIN, "cannot start a thread") from None
    thread.join()
    if failed:
        raise failed[0]


def _linked(name: bytes, target: bytes) -> bytes:
    """Make *name* a link to *target* for the calling thread, and return the name that it has become."""
    links = mount_detached(b"tmpfs")
    try:
        unshare(CLONE_FS)
        os.fchdir(links)  # all is created here: ".." of its root is itself
        try:
            if name.startswith(b"/"):
                _link_absolutely(name, target, links)
            else:
                _link(name, target)
        except OSError:
            name = _ANONYMOUS
            os.symlink(target, name)
        return name
    finally:
        os.close(links)


def _link(name: bytes, target: bytes) -> None:
    os.makedirs(os.path.dirname(name) or b".", exist_ok=True)
    os.symlink(target, name)


def _link_absolutely(name: bytes, target: bytes, links: int) -> None:
    """Link what follows the first directory of *name*, and cover that directory with the file system *links*."""
    first, *below = name[1:].split(b"/")
    if first == b"proc" or not below or {b"", b".", b".."} & {first, *below}:  # the target lies in /proc
        raise FileExistsError
    _link(b"/".join(below), target)
    unshare(CLONE_NEWNS)
    make_mounts_private()
    move_mount(links, b"/" + first)
