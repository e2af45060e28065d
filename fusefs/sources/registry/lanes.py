"""How many requests one process has at the same time at one registry, whatever images they are for."""

import threading
import time
from collections.abc import Iterator, Sequence
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
        """Take note of an answer, or bytes of one: who waits for a lane waits for a host that works."""
        self._progress = time.monotonic()

    @contextmanager
    def lane(self, timeout: float | None, size: int = 0, *, whole: bool = False) -> Iterator["Lane"]:
        """Take a lane for *size* bytes of a blob, or all of it.

        Raises RegistryError if the host answers nobody, and sends nobody anything, for *timeout* seconds.
        """
        wanted = [self._at_once]
        if whole or size > _LARGE:
            wanted.insert(0, self._large)
        if size > _LONG:
            wanted.insert(0, self._long)
        made = Lane(self, wanted, timeout)
        try:
            made.take()
            yield made
        finally:
            made.release()

    def take(self, semaphore: threading.BoundedSemaphore, began: float, timeout: float | None) -> None:
        """Take a *semaphore* for a transfer that *began* at that time.  Raises as `lane` does."""
        while not semaphore.acquire(timeout=None if timeout is None else max(0.0, timeout - self.silence(began))):
            if timeout is not None and self.silence(began) >= timeout:
                raise RegistryError(f"cannot reach the registry {printable(self._host)}: all connections are silent")

    def silence(self, began: float) -> float:
        """Return for how many seconds since *began* the host has been silent."""
        return time.monotonic() - max(began, self._progress)


class Lane:
    """A lane that one transfer holds, except while it sleeps."""

    def __init__(self, lanes: Lanes, wanted: Sequence[threading.BoundedSemaphore], timeout: float | None) -> None:
        self._lanes = lanes
        self._wanted = wanted
        self._timeout = timeout
        self._began = time.monotonic()
        self._taken = ExitStack()
        self.silence = 0.0
        """For how many seconds the host was silent when the lane was taken."""

    def take(self) -> None:
        """Take the lane.  Raises as `Lanes.lane` does."""
        for semaphore in self._wanted:
            self._lanes.take(semaphore, self._began, self._timeout)
            self._taken.callback(semaphore.release)
        self.silence = self._lanes.silence(self._began)

    def release(self) -> None:
        """Give the lane back, if it is held."""
        self._taken.close()

    def sleep(self, seconds: float) -> float:
        """Give the lane to others for so many *seconds*; return how long it was waited for while the host worked."""
        self.release()
        time.sleep(seconds)
        asked = time.monotonic()
        self.take()
        silence = self._lanes.silence(asked)
        return time.monotonic() - asked - silence


_all: WeakValueDictionary[str, Lanes] = WeakValueDictionary()
_lock = threading.Lock()
"""Guards `_all`: two threads must not get different lanes."""


def lanes_of(host: str) -> Lanes:
    """Return the lanes of this process to *host*."""
    with _lock:
        made = _all.get(host) or Lanes(host)
        _all[host] = made
        return made
