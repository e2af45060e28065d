"""System calls for mounts that Python lacks."""

import ctypes
import os
import struct

MNT_FORCE = 1
"""umount2(2): for FUSE, abort the connection first (fs/fuse/inode.c, fuse_umount_begin)."""
MNT_DETACH = 2
"""umount2(2): take the mount away at once, free it with the last file in it (include/linux/fs.h)."""
UMOUNT_NOFOLLOW = 8
"""umount2(2): follow no symbolic link in the last component."""

FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOATIME = 1, 2, 4, 8, 16
MOVE_MOUNT_BENEATH = 0x200
"""move_mount(2), since Linux 6.5: attach beneath the mount whose root the target is."""

CLONE_FS = 0x200
"""unshare(2): a working directory of this thread alone."""
CLONE_NEWNS = 0x20000
"""unshare(2): the same, and a mount namespace."""
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
"""unshare(2): a user namespace; a PID namespace for new children."""
CLONE_NEWCGROUP, CLONE_NEWIPC = 0x02000000, 0x08000000
"""unshare(2): a cgroup namespace; one of System V IPC objects and POSIX message queues."""
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000

# The numbers of these calls are the same on all architectures (asm-generic/unistd.h).
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _OPENAT2 = 428, 429, 430, 431, 432, 437
_CLOEXEC = 1
_OPEN_TREE_CLONE = 1
_AT_FDCWD = -100
_FROM_DESCRIPTOR = 0x4
"""MOVE_MOUNT_F_EMPTY_PATH: the mount is the descriptor's."""
_ONTO_DESCRIPTOR = 0x40
"""MOVE_MOUNT_T_EMPTY_PATH: the target is the descriptor's file."""
_FOLLOW = 0x10
"""MOVE_MOUNT_T_SYMLINKS."""
_OPEN_HOW = struct.Struct("=3Q")
"""struct open_how of openat2(2): flags, mode, resolve."""
_RESOLVE_CACHED = 0x20
"""openat2(2), since Linux 5.12: ask no file system; EAGAIN if one has to be."""
_RESOLVE_NO_MAGICLINKS = 0x02
"""openat2(2), since Linux 5.6: ELOOP for a link in /proc that leads to an open file instead of a path."""
_MAX_MESSAGES = 16
_MAX_MESSAGE = 1024

_libc = ctypes.CDLL(None, use_errno=True)


def umount2(path: bytes, flags: int) -> None:
    """Unmount what is mounted on *path*; OSError if the kernel refuses."""
    _checked(_libc.umount2(path, flags))


def open_known(path: bytes, flags: int) -> int:
    """Open *path* if the kernel knows the way without asking a file system, of which none may answer; else OSError."""
    how = _OPEN_HOW.pack(flags, 0, _RESOLVE_CACHED)
    return _syscall(_OPENAT2, _AT_FDCWD, path, how, _OPEN_HOW.size)


def open_by_names(path: bytes, flags: int, mode: int = 0) -> int:
    """Open *path* by names alone: ELOOP if it leads through a file that a process has open (/proc/PID/fd, cwd, root).

    Such a link leads out of the root directory; symbolic links do not.
    """
    how = _OPEN_HOW.pack(flags, mode, _RESOLVE_NO_MAGICLINKS)
    return _syscall(_OPENAT2, _AT_FDCWD, path, how, _OPEN_HOW.size)


def fsopen(file_system: bytes) -> int:
    """Return the descriptor of a new file system's configuration, which holds the kernel's messages, too."""
    return _syscall(_FSOPEN, file_system, _CLOEXEC)


def fsconfig(context: int, command: int, key: bytes | None = None, value: bytes | None = None) -> None:
    """Set an option of a file system, or create it; OSError if the kernel refuses."""
    _syscall(_FSCONFIG, context, command, key, value, 0)


def fsmessages(context: int) -> list[str]:
    """Return what the kernel says about a file system's configuration, without the marks for errors and the like."""
    messages = []
    for _ in range(_MAX_MESSAGES):
        try:
            messages.append(os.read(context, _MAX_MESSAGE).decode("utf-8", "replace").strip()[2:])
        except OSError:  # ENODATA: there are no more
            break
    return messages


def fsmount(context: int, attributes: int = 0) -> int:
    """Return a descriptor of the root of a mount of a created file system.  The mount is attached nowhere.

    It ends with its last descriptor unless `move_mount` attaches it.
    """
    return _syscall(_FSMOUNT, context, _CLOEXEC, attributes)


def move_mount(mount: int, target: int | bytes, flags: int = 0) -> None:
    """Attach a mount onto a directory, given as a descriptor or a path; OSError if the kernel refuses."""
    if isinstance(target, int):
        _syscall(_MOVE_MOUNT, mount, b"", target, b"", flags | _FROM_DESCRIPTOR | _ONTO_DESCRIPTOR)
    else:
        _syscall(_MOVE_MOUNT, mount, b"", _AT_FDCWD, target, flags | _FROM_DESCRIPTOR | _FOLLOW)


def unshare(flags: int) -> None:
    """Give the calling thread a copy of what it shares with others; OSError if the kernel refuses."""
    _checked(_libc.unshare(flags))


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, options: bytes) -> None:
    """Mount a file system (mount(2)); OSError if the kernel refuses."""
    _checked(_libc.mount(source, target, kind, ctypes.c_ulong(flags), options))


def pivot_root(new: bytes, old: bytes) -> None:
    """Make *new* the root directory, and mount the one before on *old*; OSError if the kernel refuses."""
    _checked(_libc.pivot_root(new, old))


def open_tree(path: bytes) -> int:
    """Return a descriptor of a new mount of the file or directory *path* (open_tree(2)), attached nowhere."""
    return _syscall(_OPEN_TREE, _AT_FDCWD, path, _OPEN_TREE_CLONE | os.O_CLOEXEC)


def make_mounts_private() -> None:
    """Let no mount of this namespace appear in others, nor the reverse; OSError if the kernel refuses."""
    _checked(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))


def _syscall(*arguments: object) -> int:
    return _checked(_libc.syscall(*arguments))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def mount_detached(file_system: bytes) -> int:
    """Return a descriptor of a new mount of *file_system* that is attached nowhere and ends with it; OSError."""
    context = fsopen(file_system)
    try:
        fsconfig(context, FSCONFIG_CMD_CREATE)
        return fsmount(context)
    finally:
        os.close(context)
