"""Unmounting of exactly the mount that was checked, even if its path changes in between.

The owner of a directory on the path may replace it by a link at any moment.  So imgfs opens the mount without
following links, compares its ID, and unmounts it through the directory that it opened.  Only a lazy unmount can use a
descriptor of the mount itself: with any other, the open descriptor makes the mount busy.
"""

import errno
import os
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from fusefs.errors import MountError, limit_reached
from fusefs.mount.abandonable import ChildReport, Say, answers
from fusefs.mount.holders import has_killed_waiter, holders
from fusefs.mount.mountinfo import (
    FILE_SYSTEM,
    KERNEL_FILE_SYSTEM,
    Mount,
    mount_of,
    mounts,
    opened_root,
    path_of,
)
from fusefs.mount.privileges import may_mount
from fusefs.mount.status import State, may_be_image_root, query_status
from fusefs.mount.syscalls import MNT_DETACH, MNT_FORCE, UMOUNT_NOFOLLOW, umount2
from fusefs.text import listing, printable, quoted

_BUSY = "a file or directory in it is in use"
_SILENT = "it does not answer"
_CHANGED = "something else is there by now"
_NOT_ROOT = "only root may unmount a kernel mount"
_PATIENCE = 2.0
"""Seconds to wait for a mount of another user, or for a file system on its path, before it counts as stuck."""
_FURTHER_PATIENCE = 0.5
"""The same after a first one that is stuck: many together must not take long."""
_OWN_PATIENCE = 5.0
"""Seconds to wait for a mount of this user before it is aborted."""


class _Failure(NamedTuple):
    """A mount that could not be removed."""

    shown: str
    """The mountpoint as the user calls it, made safe to print."""
    reason: str
    mount: Mount | None = None
    """The mount, if a query may tell whether it is dead or stuck."""
    word: str = ""
    """The mountpoint as the user calls it, quoted for a shell."""

    def __str__(self) -> str:
        return f"cannot unmount {self.shown}: {self.reason}" if self.mount else self.reason


def unmount_all(targets: Sequence[str | Mount], *, lazily: bool) -> list[str]:
    """Unmount each of *targets*, paths or mounts of the table; return an error message for each failure.

    A dead mount is always removed, and one whose process does not answer is aborted first.  *lazily*: detach
    the mount at once; its process ends when the last file in it is closed.
    """
    failures = _tried(targets, lazily=lazily)
    asked = [failure.mount for failure in failures if failure.mount]
    user = os.geteuid()
    patience = _PATIENCE if any(mount.is_foreign(user) for mount in asked) else _OWN_PATIENCE
    states = {status.mount.id: status.state for status in query_status(asked, patience)}
    left = []
    for failure in failures:
        state = states[failure.mount.id] if failure.mount else State.MOUNTED
        if failure.mount and state in (State.STALE, State.STUCK):
            left += _forced(failure.mount, failure.shown, state)
        elif failure.mount and failure.reason == _BUSY:
            left += _busy(failure, failure.mount)
        else:
            left.append(str(failure))
    return left


def _busy(failure: _Failure, mount: Mount) -> list[str]:
    """Return the message for a mount that is in use; a lazy unmount never finds it so.

    None if only killed processes wait for it: it is gone then, and they end when their requests are answered.
    """
    found = holders(mount.mountpoint)
    is_waited_for = not found and mount.is_fuse and not _has_mounts(mount) and has_killed_waiter(mount)
    if is_waited_for and detach(mount, lazily=True) is None:
        return []
    by = f"in use by {listing(found, ', ')}" if found else failure.reason
    return [f"cannot unmount {failure.shown}: {by}; close it, or imgfs umount -l {failure.word}"]


def _has_mounts(mount: Mount) -> bool:
    """Return whether something else is mounted in *mount*."""
    return any(other.parent == mount.id != other.id for other in mounts())


def _tried(targets: Sequence[str | Mount], *, lazily: bool) -> list[_Failure]:
    """Unmount all that need no second attempt; return the others."""
    rest = deque(targets)

    def work(say: Say) -> None:
        for target in tuple(rest):
            failure = _unmount(target, lazily=lazily)
            about = None
            if failure:
                about = (failure.shown, failure.reason, failure.mount, _word(target))
            say(ChildReport(about))

    patience = _PATIENCE
    failures = []
    while rest:
        for answer in answers(work, patience):
            rest.popleft()
            if answer.value:
                shown, reason, mount, word = answer.value
                failures.append(_Failure(shown, reason, Mount(*mount) if mount else None, word))
        if rest:  # the child waits for this one: another child tries those behind it
            shown = _shown(rest.popleft())
            failures.append(_Failure(shown, f"cannot unmount {shown}: {_SILENT}"))
            patience = _FURTHER_PATIENCE
    return failures


def _shown(target: str | Mount) -> str:
    return printable(target.mountpoint if isinstance(target, Mount) else target)


def _word(target: str | Mount) -> str:
    return quoted(target.mountpoint if isinstance(target, Mount) else target)


def _unmount(target: str | Mount, *, lazily: bool) -> _Failure | None:
    """Unmount *target*; return None once that is done."""
    shown = _shown(target)
    mount = target if isinstance(target, Mount) else _mounted_on(target)
    if mount is None:
        return _Failure(shown, f"{shown} is not a mountpoint; imgfs list shows what is mounted")
    if not _is_image(mount):
        return _Failure(shown, f"{shown} is not an imgfs mount but of type {printable(mount.file_system)}; use umount")
    host = _foreign_host(mount)
    if host is not None:
        reason = f"it lies in the {printable(host.file_system)} of user {host.owner}, who may unmount it"
        return _Failure(shown, f"cannot unmount {shown}: {reason}")
    refused = detach(mount, lazily=lazily)
    successor = _mounted_on(mount.mountpoint) if refused == _CHANGED and mount.is_fuse else None
    if successor is not None and successor.parent == mount.parent and successor.file_system == KERNEL_FILE_SYSTEM:
        return _unmount(successor, lazily=lazily)  # the kernel has taken over since
    if refused and isinstance(target, Mount) and not _is_there(mount):
        refused = None  # it was in the table, and somebody else has unmounted it since
    if refused == _CHANGED:
        return _Failure(shown, f"cannot unmount {shown}: {refused}")
    return _Failure(shown, refused, mount) if refused else None


def _is_image(mount: Mount) -> bool:
    """Return whether *mount* is of an image.  Asks only a kernel mount, which the kernel answers."""
    if mount.file_system != KERNEL_FILE_SYSTEM:
        return mount.file_system == FILE_SYSTEM
    try:
        with opened_root(mount) as (_, root):
            if root is None:
                return True  # `detach` will find that it has changed
            try:
                return may_be_image_root(root)
            finally:
                os.close(root)
    except OSError:
        return False


def _mounted_on(path: str) -> Mount | None:
    """Return the mount whose root *path* leads to."""
    try:
        root = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        mount = mount_of(root)
        return mount if mount and mount.mountpoint == path_of(root) else None
    finally:
        os.close(root)


def _foreign_host(mount: Mount) -> Mount | None:
    """Return a mount of another user that contains *mount*: the process of that mount controls all paths below it."""
    user = os.geteuid()
    table = {host.id: host for host in mounts()}
    seen = set()
    host = table.get(mount.parent)
    while host is not None and host.id not in seen and not host.is_foreign(user):
        seen.add(host.id)
        host = table.get(host.parent)
    return host if host is not None and host.is_foreign(user) else None


def stop_signals() -> list[signal.Signals]:
    """Return the signals at which a process unmounts; SIGHUP only if it is not ignored, as it is under nohup(1)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, signal.SIGXCPU, *([] if ignored else [signal.SIGHUP])]


def detach(mount: Mount, *, lazily: bool) -> str | None:
    """Unmount *mount* and no other; return None on success, otherwise the reason of the failure.

    Asks the mount nothing.  May wait for a file system on the way to it.
    """
    try:
        with opened_root(mount) as (folder, root):
            if root is None:
                return _CHANGED
            if not may_mount():
                os.close(root)
                return _fusermount(mount.mountpoint, lazily=lazily) if mount.is_fuse else _NOT_ROOT
            if lazily:
                umount2(b"/proc/self/fd/%d" % root, MNT_DETACH)
                os.close(root)
            else:
                os.close(root)  # an open descriptor makes the mount busy
                name = os.fsencode(os.path.basename(mount.mountpoint))
                umount2(b"/proc/self/fd/%d/%s" % (folder, name), UMOUNT_NOFOLLOW)
    except OSError as error:
        return _BUSY if error.errno == errno.EBUSY else error.strerror
    return None


def _forced(mount: Mount, shown: str, state: State) -> list[str]:
    """Remove a mount whose process is gone or silent, even if its files are open; return the failures."""

    def work(say: Say) -> None:
        if state is State.STUCK and mount.is_fuse:
            _abort(mount, shown)
        say(ChildReport(detach(mount, lazily=True)))

    try:
        told = [answer.value for answer in answers(work, _PATIENCE)]
    except MountError as error:
        return [str(error)]
    reason = told[0] if told else _SILENT
    return [f"cannot clear the dead mount on {shown}: {reason}"] if reason and _is_there(mount) else []


def _is_there(mount: Mount) -> bool:
    return any((other.id, other.mountpoint) == (mount.id, mount.mountpoint) for other in mounts())


def _fusermount(mountpoint: str, *, lazily: bool) -> str | None:
    """Unmount with fusermount3, which checks the owner; return None on success, otherwise its message."""
    import subprocess  # noqa: PLC0415 - root needs none, and it takes 3 ms

    options = ["-z"] if lazily else []
    try:
        done = subprocess.run(
            ["fusermount3", "-u", *options, "--", mountpoint],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        missing = MountError(f"cannot run fusermount3: {error.strerror}; install fuse3")
        raise limit_reached(error) or missing from None
    if done.returncode == 0:
        return None
    reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if reason and "busy" in reason[-1].lower():
        return _BUSY
    return printable(reason[-1]) if reason else f"fusermount3 ended with status {done.returncode}"


def _abort(mount: Mount, shown: str) -> None:
    """Make every waiting request of a stuck connection fail (fuse.rst, "Aborting a filesystem connection")."""
    try:
        with open(f"/sys/fs/fuse/connections/{mount.connection}/abort", "wb") as file:
            file.write(b"1")
    except OSError as error:
        if not may_mount():
            raise MountError(
                f"{shown} does not answer and cannot be aborted: {error.strerror}; kill its process"
            ) from None
        # Without the FUSE control file system, a forced unmount aborts the mount, even if it reports "busy".
        with suppress(OSError), opened_root(mount) as (folder, root):
            if root is not None:
                os.close(root)
                name = os.fsencode(os.path.basename(mount.mountpoint))
                umount2(b"/proc/self/fd/%d/%s" % (folder, name), UMOUNT_NOFOLLOW | MNT_FORCE)
