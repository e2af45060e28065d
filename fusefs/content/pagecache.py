"""Tells whether a part of a file is in the page cache, with cachestat(2) of Linux 6.5."""

import ctypes
import mmap

_CACHESTAT = 451
"""The number of the system call on all architectures that share new numbers; the C library has no function for it."""

_Range = ctypes.c_uint64 * 2
"""struct cachestat_range: offset and length."""
_Pages = ctypes.c_uint64 * 5
"""struct cachestat: five page counts, of which the first is that of cached pages."""

_system_call = ctypes.CDLL(None).syscall
_system_call.argtypes = (ctypes.c_long, ctypes.c_uint, ctypes.POINTER(_Range), ctypes.POINTER(_Pages), ctypes.c_uint)
_system_call.restype = ctypes.c_long


def is_cached(descriptor: int, offset: int, size: int) -> bool | None:
    """Return whether all pages of *size* bytes (1 or more) from *offset* on are cached; None if that is unknown.

    Linux reports it only for files that the caller owns or may write.  A page that is being read counts as cached.
    """
    cached = _Pages()
    if _system_call(_CACHESTAT, descriptor, _Range(offset, size), cached, 0):
        return None
    pages = (offset + size - 1) // mmap.PAGESIZE - offset // mmap.PAGESIZE + 1
    return bool(cached[0] >= pages)
