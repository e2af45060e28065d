"""How many requests one process has at the same time at one registry, whatever images they are for."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakValueDictionary

from fusefs.errors import RegistryError
from fusefs.text import printable

_AT_ONCE, _LARGE_AT_ONCE, _LONG_AT_ONCE = 6, 4, 3
"""Requests at the same time, large ones among them, and long ones among those.

So small ones do not wait for large ones, and a reader who needs a large one does not wait for whole layers.
"""
_LARGE, _LONG = 1 << 20, 8 << 20
"""Bytes of a part of a blob above which it is large, and long; a whole blob is large, too."""


class Lanes:
    """The requests to one host that may run at the same time.  Safe under concurrency."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._at_once = threading.BoundedSemaphore(_AT_ONCE)
        self._large = threading.BoundedSemaphore(_LARGE_AT_ONCE)
        self._long = threading.BoundedSemaphore(_LONG_AT_ONCE)
        self._progress = 0.0

    def progressed(self) -> None:
        """Take note that bytes were received: who waits for a lane waits for a host that works."""
        self._progress = time.monotonic()

    @contextmanager
    def lane(self, timeout: float | None, size: int = 0, *, whole: bool = False) -> Iterator[float]:
        """Take a lane for *size* bytes of a blob, or all of it, and give for how long the host has sent nothing.

        Raises RegistryError if it sends nothing to anybody for *timeout* seconds.
        """
        wanted = [self._at_once]
        if whole or size > _LARGE:
            wanted.insert(0, self._large)
        if size > _LONG:
            wanted.insert(0, self._long)
        began = time.monotonic()
        with ExitStack() as taken:
            for semaphore in wanted:
                self._take(semaphore, began, timeout)
                taken.callback(semaphore.release)
            yield self._silence(began)

    def _take(self, semaphore: threading.BoundedSemaphore, began: float, timeout: float | None) -> None:
        while not semaphore.acquire(timeout=None if timeout is None else max(0.0, timeout - self._silence(began))):
            if timeout is not None and self._silence(began) >= timeout:
                raise RegistryError(f"cannot reach the registry {printable(self._host)}: all connections are silent")

    def _silence(self, began: float) -> float:
        return time.monotonic() - max(began, self._progress)


_all: WeakValueDictionary[str, Lanes] = WeakValueDictionary()


def lanes_of(host: str) -> Lanes:
    """Return the lanes of this process to *host*."""
    made = Lanes(host)
    return _all.setdefault(host, made)
