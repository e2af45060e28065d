"""The directory to mount an image on.  A descriptor identifies it from the check to the mount."""

import errno
import fcntl
import os
import struct
from collections.abc import Mapping
from typing import NamedTuple

from fusefs.errors import MountError
from fusefs.home import owns_system
from fusefs.mount.abandonable import ChildReport, Say, answers
from fusefs.mount.mountinfo import FILE_SYSTEM, KERNEL_FILE_SYSTEM, Mount, mount_id, mount_of, mounts, path_of
from fusefs.mount.privileges import may_mount
from fusefs.mount.syscalls import open_known
from fusefs.private import private_directory, private_file
from fusefs.text import printable, quoted

_PATIENCE = 2.5
"""Seconds to wait for the file system of the directory, and for a mount on it."""
_LOCK = struct.Struct("@hhqqi")
"""struct flock of fcntl_locking(2): type, whence, start, length, process."""
LOCKS = "mounting"
"""The file for locks, in a folder of this user for what runs."""
_LOCAL = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs"})
"""Types of file systems that answer without a process or another machine."""
_MAX_START = (1 << 62) - 1
"""The last byte of the file that is locked: one byte stands for a directory."""


class Mountpoint(NamedTuple):
    """An empty directory to mount on.  It stays the same directory even if its path changes."""

    directory: int
    """A descriptor of the directory below a later mount."""
    lock: int | None = None
    """While it is open, no other imgfs of this user takes the same directory."""

    @property
    def path(self) -> str:
        """The current path of the directory, absolute and without symbolic links."""
        return path_of(self.directory)

    @property
    def target(self) -> str:
        """The path to mount on: a link to the descriptor, or the real path for fusermount3, which refuses links."""
        return f"/proc/self/fd/{self.directory}" if may_mount() else self.path

    def covers(self) -> list[Mount]:
        """Return the mounts that lie directly on this directory."""
        number, path = mount_id(self.directory), self.path
        return [mount for mount in mounts() if mount.parent == number and mount.mountpoint == path]

    def close(self) -> None:
        """Close the descriptor and release the lock."""
        os.close(self.directory)
        if self.lock is not None:
            os.close(self.lock)


def claim_mountpoint(path: str, environment: Mapping[str, str]) -> Mountpoint:
    """Return the directory at *path* if an image can be mounted there.

    Until the result is closed, no other imgfs of this user can mount there.  A dead imgfs mount is removed.
    Raises MountError if the directory is missing, not a directory, not empty, another user's, or in use by
    another imgfs.
    """
    shown = printable(path)
    directory, device, inode = _checked(path)
    try:
        mountpoint = Mountpoint(directory, locked(device, inode, environment))
    except BlockingIOError:
        os.close(directory)
        raise MountError(
            f"cannot mount on {shown}: another imgfs is mounting there; choose another directory"
        ) from None
    if mountpoint.covers():  # the process that had the lock before has mounted
        mountpoint.close()
        raise _mounted_there(path)
    return mountpoint


def _mounted_there(path: str) -> MountError:
    return MountError(
        f"cannot mount on {printable(path)}: an image is mounted there; imgfs umount {quoted(path)} first"
    )


def _checked(path: str) -> tuple[int, int, int]:
    """Return a descriptor of the directory, and its device and inode number.

    A child process opens it if a file system on its path or a mount on it may never answer.
    """
    shown = printable(path)
    told: list[ChildReport] = []
    known = _known_local(path)
    if known is not None:
        try:
            _check(known, path, told.append)
        except BaseException:
            os.close(known)
            raise
    else:
        told.extend(answers(lambda say: _check(_opened(path), path, say), _PATIENCE))
    if told and told[-1].descriptors:
        device, inode = told[-1].value
        return told[-1].descriptors[0], device, inode
    if told:
        raise _mounted_there(path)
    raise MountError(f"cannot mount on {shown}: it does not answer")


def _known_local(path: str) -> int | None:
    """Open *path* if nothing else than this machine's disks and memory is asked for it; None if that is not sure."""
    try:
        file = open_known(os.fsencode(path), os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):  # also if it is missing: the child process says why
        return None
    mount = mount_of(file)
    if mount is not None and mount.file_system in _LOCAL:
        return file
    os.close(file)
    return None


def _check(directory: int, path: str, say: Say) -> None:
    """Say the number of an open *directory* and pass its descriptor on; MountError if it cannot be mounted on."""
    shown = printable(path)
    mount = mount_of(directory)
    if mount is not None and mount.is_foreign(os.geteuid()):
        kind = f"{printable(mount.file_system)} of user {mount.owner}"
        raise MountError(f"cannot mount on {shown}: it is in {kind}; choose a directory of your own")
    if mount is not None and mount.file_system == FILE_SYSTEM and mount.mountpoint == path_of(directory):
        say(ChildReport("mounted"))
        _clear_dead(mount, path)
        _check(_opened(path), path, say)
        return
    if _is_root_of_kernel_image(directory, mount):
        raise _mounted_there(path)
    try:
        _check_empty(directory, shown)
        about = os.stat(f"/proc/self/fd/{directory}")
    except OSError as error:
        dead = mount is not None and error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        hint = f"; a dead {mount.file_system} mount is there, umount {quoted(path)} first" if mount and dead else ""
        raise MountError(f"cannot mount on {shown}: {error.strerror}{hint}") from None
    say(ChildReport((about.st_dev, about.st_ino), (directory,)))


def _is_root_of_kernel_image(directory: int, mount: Mount | None) -> bool:
    if mount is None or mount.file_system != KERNEL_FILE_SYSTEM or mount.mountpoint != path_of(directory):
        return False
    from fusefs.mount.status import may_be_image_root  # noqa: PLC0415 - most directories are empty

    return may_be_image_root(directory)


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        missing = error.errno == errno.ENOENT and not os.path.lexists(path)
        hint = f"; mkdir -p {quoted(path)} first" if missing else ""
        raise MountError(f"cannot mount on {printable(path)}: {error.strerror}{hint}") from None


def _check_empty(directory: int, shown: str) -> None:
    try:
        listed = os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise MountError(f"cannot mount on {shown}: not a directory") from None
    try:
        with os.scandir(listed) as entries:
            if next(entries, None) is not None:
                raise MountError(f"cannot mount on {shown}: the directory is not empty; choose an empty one")
    finally:
        os.close(listed)


def _clear_dead(mount: Mount, path: str) -> None:
    """Remove an imgfs mount whose process is gone, even if its files are open; MountError for any other mount."""
    from fusefs.mount.status import State, state_of  # noqa: PLC0415 - dead mounts are rare
    from fusefs.mount.unmounting import detach  # noqa: PLC0415

    state, _ = state_of(mount)
    if state is not State.STALE:
        raise _mounted_there(path)
    reason = detach(mount, lazily=True)
    if reason is not None:
        raise MountError(f"cannot clear the dead mount on {printable(path)}: {reason}")


def locked(device: int, inode: int, environment: Mapping[str, str]) -> int | None:
    """Lock the directory with this number against other processes of this user; BlockingIOError if one has it.

    The lock is in a file that no other user can open.  Without a private folder there is no lock: if two processes
    mount there at the same time, the second one then notices it only just before it mounts.
    """
    file = _lock_file(environment)
    if file is None:
        return None
    start = (device << 40 ^ inode) & _MAX_START
    try:
        # The background process inherits open file description locks with the descriptor.
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0))
    except BlockingIOError:
        os.close(file)
        raise
    except OSError:  # a file system without locks
        os.close(file)
        return None
    return file


def runtime_directory(environment: Mapping[str, str]) -> str | None:
    """Return the directory for files of this user that a restart removes; None if there is none."""
    runtime = "/run" if owns_system() else environment.get("XDG_RUNTIME_DIR", "")
    return runtime if runtime.startswith("/") else None


def _lock_file(environment: Mapping[str, str]) -> int | None:
    """Open the file for locks in a folder that only this user can access; None if there is no such folder."""
    runtime = runtime_directory(environment)
    if runtime is None:
        return None
    try:
        folder = private_directory(f"{runtime}/imgfs")
    except OSError:
        return None
    try:
        return private_file(LOCKS, folder)
    except OSError:
        return None
    finally:
        os.close(folder)
