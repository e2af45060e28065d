"""What of a file is in the page cache: cachestat(2), Linux 6.5."""

import ctypes
import mmap

_CACHESTAT = 451
"""The number of the system call wherever Linux gives new ones one number; the C library has no function for it."""

_Range = ctypes.c_uint64 * 2
"""struct cachestat_range: offset and length."""
_Found = ctypes.c_uint64 * 5
"""struct cachestat: pages in the cache first."""

_system_call = ctypes.CDLL(None).syscall
_system_call.argtypes = (ctypes.c_long, ctypes.c_uint, ctypes.POINTER(_Range), ctypes.POINTER(_Found), ctypes.c_uint)
_system_call.restype = ctypes.c_long


def is_cached(descriptor: int, offset: int, size: int) -> bool | None:
    """Return whether each page of *size* bytes, one or more, from *offset* on is there, None if that cannot be known.

    Linux tells it of files that are the caller's, or that he may write.  A page that is just being read is there, too.
    """
    found = _Found()
    if _system_call(_CACHESTAT, descriptor, _Range(offset, size), found, 0):
        return None
    pages = (offset + size - 1) // mmap.PAGESIZE - offset // mmap.PAGESIZE + 1
    return bool(found[0] >= pages)
