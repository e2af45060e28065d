"""How many images are saved or opened from files at the same time."""

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from fusefs.cache.entry import CacheEntry
from fusefs.image.opened import Opened
from fusefs.log import logger
from fusefs.progress import Advance

log = logger(__name__)


_OPENINGS = 4
"""Images that are asked for, or read from the cache, at the same time."""


class Saves:
    """Places for saves; others wait.  Safe under concurrency."""

    def __init__(self, number: int) -> None:
        """Let *number* images be saved at the same time."""
        self._places = threading.Semaphore(number)
        self._openings = threading.Semaphore(_OPENINGS)

    @contextmanager
    def opening(self) -> Iterator["SaveProgress"]:
        """Give the progress of one image: it takes a place when a wait begins, and keeps it until the block ends.

        An image that is cached waits for nothing, and so for no place.
        """
        self._openings.acquire()
        progress = SaveProgress(self._openings, self._places)
        try:
            yield progress
        finally:
            progress.end()


def close_when_unused(opened: Opened) -> None:
    """Close the files of an image, and release its cache entry, as soon as nobody refers to them any more."""
    opened.close_when_unused()
    if isinstance(opened.cache, CacheEntry):
        weakref.finalize(opened.cache, os.close, opened.cache.directory).atexit = False


def close(opened: Opened) -> None:
    """Close the files of an image that nobody else has, and release its cache entry."""
    opened.close()
    opened.close_caches()


class SaveProgress:
    """Progress of one image, in the log; used by the thread that opens it."""

    def __init__(self, opening: threading.Semaphore, places: threading.Semaphore) -> None:
        self._held = opening
        self._places = places

    def waiting_began(self) -> None:
        """Take a place for a save, once, in exchange for the one to open an image."""
        if self._held is not self._places:
            self._held.release()
            self._places.acquire()
            self._held = self._places

    def end(self) -> None:
        """Give the place back."""
        self._held.release()

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Log *what*."""
        log.info("%s", what)
        yield

    def transfer(self, what: str, total: int | None) -> AbstractContextManager[Advance]:  # noqa: ARG002 - the protocol's
        """Log *what*."""
        return self._transfer(what)

    @contextmanager
    def _transfer(self, what: str) -> Iterator[Advance]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count

        log.info("%s", what)
        yield advance
        log.info("%s: %d bytes", what, done)
