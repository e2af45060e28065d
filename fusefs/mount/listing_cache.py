"""Listings of large directories, cached while they are read.

The kernel asks for a directory in pieces of some 100 names.  A small directory is listed again for each piece.
A large one (`LARGE` names and more) is listed once, in a thread, and cached until its last reader closes it.
"""

import functools
from collections import Counter
from collections.abc import Sequence

import trio

from fusefs.mount.shared_calls import SharedCalls
from fusefs.tree.listing import LARGE
from fusefs.tree.node import Tree

Listing = Sequence[tuple[bytes, int]]
"""Names and the numbers of their nodes in the tree."""

_THREADS = 4
"""Threads that list large directories at the same time."""
_CAPACITY = 16
"""Listings that are cached at the same time; the oldest is evicted first."""


class ListingCache:
    """Listings by inode number of the directory.  Used by the event loop's thread alone."""

    def __init__(self, calls: SharedCalls) -> None:
        """Run the listing of a large directory as one of the shared *calls*."""
        self._calls = calls
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._listings: dict[int, Listing] = {}
        self._readers: Counter[int] = Counter()

    def opened(self, directory: int) -> None:
        """Count one more reader of *directory*."""
        self._readers[directory] += 1

    def closed(self, directory: int) -> None:
        """Count one reader less; the last one drops the listing."""
        self._readers[directory] -= 1
        if not self._readers[directory]:
            del self._readers[directory]
            self._listings.pop(directory, None)

    async def listing(self, directory: int, tree: Tree, number: int) -> Listing:
        """Return the names in *directory*, which is node *number* of *tree*."""
        if tree.size(number) < LARGE:
            return tree.listing(number)
        listing = self._listings.get(directory)
        if listing is None:
            listing = await self._calls.run(directory, functools.partial(tree.listing, number), self._limiter)
            if directory not in self._listings:  # another task that waited for the same call may have been faster
                while len(self._listings) >= _CAPACITY:
                    del self._listings[next(iter(self._listings))]
                self._listings[directory] = listing
        return listing
