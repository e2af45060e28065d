"""The mountpoint: checked and claimed before a mount, cleared after it."""

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
"""Symbolic links that are followed in a mountpoint's path, as in the kernel (path_resolution(7))."""
_BUSY = "a file or directory in it is in use"
_ANSWER_TIMEOUT = 5.0
"""Seconds after which a mount without an answer counts as stuck."""


def claim_mountpoint(path: str) -> tuple[str, int]:
    """Return *path*, absolute and without symbolic links, and a descriptor that claims it.

    Until the descriptor is closed, no other imgfs can claim the directory.  A dead imgfs mount on it is cleared.
    Raises MountError if it is missing, not a directory, not empty, mounted, or claimed.
    """
    directory = os.open(_check_mountpoint(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(directory)
        shown = printable(path)
        raise MountError(
            f"cannot mount on {shown}: another imgfs is mounting there; choose another directory"
        ) from None
    except OSError:  # the file system has no locks
        pass
    return _check_mountpoint(path), directory  # again: the previous owner of the lock may have mounted


def _check_mountpoint(path: str) -> str:
    """Return *path*, resolved; MountError if no image can be mounted there.  Clears a dead imgfs mount."""
    mountpoint = _resolve(path)
    shown = printable(path)
    mount = mount_at(mountpoint)
    if mount is not None and mount.file_system == FILE_SYSTEM:
        if _is_alive(mountpoint, when_silent=True):
            raise MountError(f"cannot mount on {shown}: an image is mounted there; imgfs umount {shown} first")
        _clear_dead(mountpoint)
        return _check_mountpoint(path)
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
    """Unmount the image at *path*; MountError if no image is mounted there, or a file in it is in use.

    A dead mount is always unmounted; a mount that does not answer is aborted first.  *lazily*: detach the
    mountpoint at once; the mount's process ends when the last open file is closed.
    """
    mountpoint = _resolve(path)
    shown = printable(path)
    mount = mount_at(mountpoint)
    if mount is None:
        raise MountError(f"{shown} is not a mountpoint; imgfs list shows what is mounted")
    if mount.file_system != FILE_SYSTEM:
        raise MountError(f"{shown} is not an imgfs mount but a {mount.file_system} mount; use umount")
    refused = _fusermount(mountpoint, *(["-z"] if lazily else []))
    if refused is None:
        return
    if _is_alive(mountpoint, when_silent=False):
        hint = f"; close it, or imgfs umount -l {shown}" if refused == _BUSY and not lazily else ""
        raise MountError(f"cannot unmount {shown}: {refused}{hint}")
    _abort(mount)
    _clear_dead(mountpoint)


def _resolve(path: str) -> str:
    """Return *path* absolute and without symbolic links, with no request to a mount there: it may never answer."""
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
    """Detach a mount whose process has ended, even while files of it are open."""
    refused = _fusermount(mountpoint, "-z")
    if refused is not None:
        raise MountError(f"cannot clear the dead mount on {printable(mountpoint)}: {refused}")


def _fusermount(mountpoint: str, *options: str) -> str | None:
    """Unmount with the setuid program fusermount3; return None, or the reason why it could not."""
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
    return printable(reason[-1]) if reason else f"fusermount3 ended with status {done.returncode}"


def _is_alive(mountpoint: str, *, when_silent: bool) -> bool:
    """Return whether the mount's process runs; *when_silent* if it does not answer in time."""
    answers: list[bool] = []

    def request() -> None:
        try:
            os.statvfs(mountpoint)  # never answered from a cache of the kernel
        except OSError as error:
            answers.append(not _dead(error))
        else:
            answers.append(True)

    # A daemon thread: a request without an answer cannot be interrupted.
    thread = threading.Thread(target=request, daemon=True)
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
            # Where the control file system is not mounted, root's forced unmount aborts, even if it reports "busy".
            subprocess.run(["umount", "-f", "--", mount.mountpoint], check=False, capture_output=True)
            return
        raise MountError(
            f"{printable(mount.mountpoint)} does not answer and cannot be aborted: {error.strerror}; kill its process"
        ) from None
