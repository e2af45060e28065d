"""System calls for mounts that Python lacks."""

import ctypes
import os

MNT_FORCE = 1
"""umount2(2): for FUSE, abort the connection first (fs/fuse/inode.c, fuse_umount_begin)."""
MNT_DETACH = 2
"""umount2(2): take the mount away at once, free it with the last file in it (include/linux/fs.h)."""
UMOUNT_NOFOLLOW = 8
"""umount2(2): follow no symbolic link in the last component."""

_libc = ctypes.CDLL(None, use_errno=True)


def umount2(path: bytes, flags: int) -> None:
    """Unmount what is mounted on *path*; OSError if the kernel refuses."""
    if _libc.umount2(path, flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
