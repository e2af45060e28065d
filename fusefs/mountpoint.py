"""The directory that an image is mounted on, before and after."""

import contextlib
import errno
import os
import stat
import subprocess
import threading
from pathlib import Path

from fusefs.errors import MountError, printable
from fusefs.mountinfo import FILE_SYSTEM, Mount, mount_at

_ANSWER_TIMEOUT = 5.0
"""Seconds after which a mount that does not answer counts as stuck."""


def check_mountpoint(path: str) -> str:
    """Return *path* absolute and without links if an image can be mounted there.

    A stale mount of ours is cleared away.  MountError if it is missing, no directory, or not empty.
    """
    mountpoint = os.path.realpath(path)
    shown = printable(path)
    try:
        status = os.stat(mountpoint)
    except OSError as error:
        mount = mount_at(mountpoint)
        if error.errno != errno.ENOTCONN or mount is None:
            msg = f"cannot mount on {shown}: {error.strerror}"
            raise MountError(msg) from None
        if mount.file_system != FILE_SYSTEM:
            msg = f"cannot mount on {shown}: a dead {mount.file_system} mount is there; umount {shown} first"
            raise MountError(msg) from None
        _clear_stale(mountpoint)
        return check_mountpoint(path)
    if not stat.S_ISDIR(status.st_mode):
        msg = f"cannot mount on {shown}: not a directory"
        raise MountError(msg)
    mount = mount_at(mountpoint)
    if mount is not None and mount.file_system == FILE_SYSTEM:
        msg = f"cannot mount on {shown}: an image is mounted there; imgfs umount {shown} first"
        raise MountError(msg)
    try:
        if next(os.scandir(mountpoint), None) is not None:
            msg = f"cannot mount on {shown}: the directory is not empty"
            raise MountError(msg)
    except OSError as error:
        msg = f"cannot mount on {shown}: {error.strerror}"
        raise MountError(msg) from None
    return mountpoint


def unmount(path: str) -> None:
    """Unmount the image at *path*; MountError if there is none, or a file in it is in use.

    A mount whose process does not answer is aborted first.
    """
    # realpath() of a dead mount works: the mountpoint itself is not looked into.
    mountpoint = os.path.realpath(path)
    shown = printable(path)
    mount = mount_at(mountpoint)
    if mount is None:
        msg = f"{shown} is not a mountpoint"
        raise MountError(msg)
    if mount.file_system != FILE_SYSTEM:
        msg = f"{shown} is no imgfs mount but {mount.file_system}; use umount"
        raise MountError(msg)
    refused = _fusermount(mountpoint)
    if refused is None:
        return
    if _answers(mountpoint):
        msg = f"cannot unmount {shown}: {refused}"
        raise MountError(msg)
    _abort(mount)
    _clear_stale(mountpoint)


def _clear_stale(mountpoint: str) -> None:
    """Take away a mount whose process is gone, also while dead files of it are open."""
    refused = _fusermount(mountpoint, "-z")
    if refused is not None:
        msg = f"cannot clear the dead mount on {printable(mountpoint)}: {refused}"
        raise MountError(msg)


def _fusermount(mountpoint: str, *options: str) -> str | None:
    """Unmount with the program that may: None when it did, else its reason."""
    try:
        done = subprocess.run(
            ["fusermount3", "-u", *options, "--", mountpoint],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        msg = f"cannot run fusermount3: {error.strerror}; install fuse3"
        raise MountError(msg) from None
    if done.returncode == 0:
        return None
    reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if reason and "busy" in reason[-1].lower():
        return "a file or directory in it is in use"
    return printable(reason[-1]) if reason else f"fusermount3 exits with {done.returncode}"


def _answers(mountpoint: str) -> bool:
    """Return whether the mount's process still answers a request that no cache does."""
    # A daemon thread, for a request that is never answered cannot be interrupted.
    thread = threading.Thread(target=_ask, args=(mountpoint,), daemon=True)
    thread.start()
    thread.join(_ANSWER_TIMEOUT)
    return not thread.is_alive()


def _ask(mountpoint: str) -> None:
    with contextlib.suppress(OSError):  # an error is an answer too
        os.statvfs(mountpoint)


def _abort(mount: Mount) -> None:
    """Make every waiting request of a stuck connection fail (fuse.rst, "Aborting a filesystem connection")."""
    try:
        Path(f"/sys/fs/fuse/connections/{mount.connection}/abort").write_text("1")
    except OSError as error:
        msg = f"{printable(mount.mountpoint)} does not answer and cannot be aborted: {error.strerror}; kill its process"
        raise MountError(msg) from None
