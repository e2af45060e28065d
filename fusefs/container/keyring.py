"""A session keyring of the container's own (keyrings(7)): the caller's may hold keys for file systems and services."""

import ctypes
import errno
import os

_KEYCTL = {
    ("x86_64", 8): 250,
    ("x86_64", 4): 288,
    ("i686", 4): 288,
    ("aarch64", 8): 219,
    ("aarch64", 4): 311,
    ("armv7l", 4): 311,
    ("riscv64", 8): 219,
    ("loongarch64", 8): 219,
    ("s390x", 8): 280,
    ("ppc64le", 8): 271,
    ("ppc64", 8): 271,
}
"""The number of keyctl(2) by the kernel's machine (uname(2)) and the size of this process's pointers."""
_JOIN_SESSION_KEYRING = 1

_libc = ctypes.CDLL(None, use_errno=True)


def join_new_keyring() -> None:
    """Replace the session keyring of this process by a new one; OSError if that fails.

    Nothing is done where the kernel has no keyrings, a filter forbids them, or the number of the call is not known.
    """
    number = _KEYCTL.get((os.uname().machine, ctypes.sizeof(ctypes.c_void_p)))
    if number is None or _libc.syscall(number, _JOIN_SESSION_KEYRING, None) >= 0:
        return
    reason = ctypes.get_errno()
    if reason not in {errno.ENOSYS, errno.EPERM}:
        raise OSError(reason, os.strerror(reason))
