"""The directory that an image is mounted on, before and after."""

import errno
import fcntl
import os
import stat
import subprocess
import threading
from pathlib import Path

from fusefs.errors import MountError
from fusefs.mount.mountinfo import FILE_SYSTEM, Mount, mount_at
from fusefs.text import printable

_MAX_LINKS = 40
_BUSY = "a file or directory in it is in use"
_ANSWER_TIMEOUT = 5.0
"""Seconds after which a mount that does not answer counts as stuck."""


def claim_mountpoint(path: str) -> tuple[str, int]:
    """Return *path* absolute and without links if an image can be mounted there, and a descriptor to close then.

    Until that is closed no other imgfs takes the same directory.  A dead mount of ours is cleared away.
    MountError if it is missing, no directory, not empty, or just being mounted on.
    """
    directory = os.open(_checked(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(directory)
        raise MountError(f"cannot mount on {printable(path)}: another imgfs is about to") from None
    except OSError:  # a file system without locks
        pass
    return _checked(path), directory  # again: who had the lock before may have mounted


def _checked(path: str) -> str:
    mountpoint = _located(path)
    shown = printable(path)
    mount = mount_at(mountpoint)
    if mount is not None and mount.file_system == FILE_SYSTEM:
        if _is_alive(mountpoint, when_silent=True):
            raise MountError(f"cannot mount on {shown}: an image is mounted there; imgfs umount {shown} first")
        _clear_dead(mountpoint)
        return _checked(path)
    try:
        if not stat.S_ISDIR(os.stat(mountpoint).st_mode):
            raise MountError(f"cannot mount on {shown}: not a directory")
        with os.scandir(mountpoint) as entries:
            if next(entries, None) is not None:
                raise MountError(f"cannot mount on {shown}: the directory is not empty; choose an empty one")
    except OSError as error:
        hint = ""
        if mount and _dead(error):
            hint = f"; a dead {mount.file_system} mount is there, umount {shown} first"
        elif error.errno == errno.ENOENT and not os.path.lexists(path):
            hint = f"; mkdir -p {shown} first"
        raise MountError(f"cannot mount on {shown}: {error.strerror}{hint}") from None
    return mountpoint


def unmount(path: str, *, lazily: bool = False) -> None:
    """Unmount the image at *path*; MountError if there is none, or a file in it is in use.

    A dead mount goes in any case, and one whose process does not answer is aborted first.  *lazily*: it
    goes from here at once, and its process ends when the last file in it is closed.
    """
    mountpoint = _located(path)
    shown = printable(path)
    mount = mount_at(mountpoint)
    if mount is None:
        raise MountError(f"{shown} is not a mountpoint; imgfs list shows what is mounted")
    if mount.file_system != FILE_SYSTEM:
        raise MountError(f"{shown} is no imgfs mount but {mount.file_system}; use umount")
    refused = _fusermount(mountpoint, *(["-z"] if lazily else []))
    if refused is None:
        return
    if _is_alive(mountpoint, when_silent=False):
        hint = f"; close it, or imgfs umount -l {shown}" if refused == _BUSY and not lazily else ""
        raise MountError(f"cannot unmount {shown}: {refused}{hint}")
    _abort(mount)
    _clear_dead(mountpoint)


def _located(path: str) -> str:
    """Return *path* absolute and without links, and ask nothing of a mount there: it may never answer."""
    try:
        path = os.path.abspath(path)
    except FileNotFoundError:
        raise MountError(f"{printable(path)}: the current directory is gone") from None
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(path)
        path = os.path.join(os.path.realpath(folder), name)
        if mount_at(path) is not None or not os.path.islink(path):
            break
        path = os.path.abspath(os.path.join(os.path.dirname(path), os.readlink(path)))
    return path


def _clear_dead(mountpoint: str) -> None:
    """Take away a mount whose process is gone, also while dead files of it are open."""
    refused = _fusermount(mountpoint, "-z")
    if refused is not None:
        raise MountError(f"cannot clear the dead mount on {printable(mountpoint)}: {refused}")


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
        raise MountError(f"cannot run fusermount3: {error.strerror}; install fuse3") from None
    if done.returncode == 0:
        return None
    reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if reason and "busy" in reason[-1].lower():
        return _BUSY
    return printable(reason[-1]) if reason else f"fusermount3 exits with {done.returncode}"


def _is_alive(mountpoint: str, *, when_silent: bool) -> bool:
    """Return whether the mount's process is there; *when_silent* if it does not say in time."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            os.statvfs(mountpoint)  # which no cache answers
        except OSError as error:
            answers.append(not _dead(error))
        else:
            answers.append(True)

    # A daemon thread, for a request that is never answered cannot be interrupted.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_TIMEOUT)
    return answers[0] if answers else when_silent


def _dead(error: OSError) -> bool:
    return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)


def _abort(mount: Mount) -> None:
    """Make every waiting request of a stuck connection fail (fuse.rst, "Aborting a filesystem connection")."""
    try:
        Path(f"/sys/fs/fuse/connections/{mount.connection}/abort").write_text("1")
    except OSError as error:
        if os.geteuid() == 0:
            # Where that is not mounted, root's forced unmount aborts, also when it says "busy".
            subprocess.run(["umount", "-f", "--", mount.mountpoint], check=False, capture_output=True)
            return
        raise MountError(
            f"{printable(mount.mountpoint)} does not answer and cannot be aborted: {error.strerror}; kill its process"
        ) from None
