"""Mount IDs that the kernel never gives to another mount, since Linux 6.8 (statx(2), statmount(2), listmount(2)).

The IDs in the kernel's table of mounts are those of mounts that exist now: one of a mount that is gone may be
another one's soon.  The system calls that are asked ask no file system.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Collection

_STATX_MNT_ID_UNIQUE = 0x4000
_FLAGS = 0x1000 | 0x800 | 0x100 | 0x4000
"""AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, AT_STATX_DONT_SYNC: the descriptor itself, and no request."""
_STATX = struct.Struct("=I 140x Q 104x")
"""struct statx: mask, mount ID."""

# The numbers of these calls are the same on all architectures (asm-generic/unistd.h).
_STATMOUNT, _LISTMOUNT = 457, 458
_REQUEST = struct.Struct("=I 4x QQ")
"""struct mnt_id_req: its size, mount ID, what is asked."""
_MNT_BASIC = 2
_ABOUT = struct.Struct("=40x Q 8x I 452x")
"""struct statmount: the unique ID, the ID in the table."""
_ROOT = (1 << 64) - 1
"""LSMT_ROOT: all mounts that this process can reach."""
_MANY = 2048
"""IDs of one answer."""

_libc = ctypes.CDLL(None, use_errno=True)
_call = _libc.syscall
_call.argtypes = (ctypes.c_long, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_call.restype = ctypes.c_long


def unique_id(descriptor: int) -> int:
    """Return the unique ID of the mount that an open file lies in, 0 if the kernel does not tell."""
    data = ctypes.create_string_buffer(_STATX.size)
    if _libc.statx(descriptor, b"", _FLAGS, _STATX_MNT_ID_UNIQUE, data):
        return 0
    mask, number = _STATX.unpack(data.raw)
    return number if mask & _STATX_MNT_ID_UNIQUE else 0


def is_there(unique: int) -> bool | None:
    """Return whether the mount with the ID *unique* is attached in this mount namespace; None if that is unknown."""
    try:
        _number_of(unique)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return True


def unique_ids(numbers: Collection[int]) -> dict[int, int]:
    """Return the unique IDs of the mounts with the IDs *numbers* in the table, as far as the kernel tells them."""
    found = {}
    for unique in reversed(_all_ids() if numbers else ()):  # most calls are about the newest mounts
        try:
            number = _number_of(unique)
        except OSError:  # unmounted since
            continue
        if number in numbers:
            found[number] = unique
            if len(found) == len(numbers):
                break
    return found


def _number_of(unique: int) -> int:
    """Return the ID in the table of the mount with the ID *unique*; FileNotFoundError if it is not there."""
    data = ctypes.create_string_buffer(_ABOUT.size)
    _checked(_call(_STATMOUNT, _REQUEST.pack(_REQUEST.size, unique, _MNT_BASIC), data, _ABOUT.size, 0))
    _, number = _ABOUT.unpack(data.raw)
    return int(number)


def _all_ids() -> list[int]:
    """Return the unique IDs of all mounts, the oldest first; none if the kernel does not tell."""
    found: list[int] = []
    answer = (ctypes.c_uint64 * _MANY)()
    while True:
        last = found[-1] if found else 0
        try:
            count = _checked(_call(_LISTMOUNT, _REQUEST.pack(_REQUEST.size, _ROOT, last), answer, _MANY, 0))
        except OSError:
            return []
        found += answer[:count]
        if count < _MANY:
            return found


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.ENOSYS
        raise OSError(number, os.strerror(number))
    return result
