"""The page cache of the kernel."""

import mmap
import os
import time

from fusefs.content.pagecache import is_cached

PAGE = mmap.PAGESIZE


def drop_from_cache(descriptor: int) -> bool:
    """Take a file out of the page cache, and return whether that worked; what is written to it must be on disk.

    The kernel passes over pages that something of its own is looking at, as DAMON does: it is asked until all are gone,
    and for 5 s at most, since a file system in memory drops nothing.
    """
    pages = -(-os.fstat(descriptor).st_size // PAGE)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if not any(is_cached(descriptor, page * PAGE, 1) for page in range(pages)):
            return True
        time.sleep(0.01)
    return False
