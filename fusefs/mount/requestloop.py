"""The wait for the kernel's next request: busy for a moment, then asleep in trio.

A client that waits for its answer sends the next request within some 10 µs, while sleeping and waking up
takes 20 to 50 µs, mostly processor time.  So the loop polls for as long as a wake-up would take before it
sleeps, as the kernel's halt polling does (virt/kvm/halt-polling), and only while that pays.  A request that
needs no thread then passes without a turn of the scheduler.

pyfuse3 uses trio through its attribute ``pyfuse3.trio``, which its own asyncio mode replaces as well.
`RequestLoop` stands in for the module there: it replaces the lock and the wait, and passes on every other name.
"""

import mmap
import os
import resource
import select
import time
from contextlib import suppress
from typing import Any

import trio
import trio.lowlevel

from fusefs.errors import LimitReached

_BUSY = 50e-6
"""Seconds to poll for a request before sleeping."""
_BUFFER = (1 << 20) + (1 << 16)
"""Bytes that libfuse allocates for a request (FUSE_BUFFER_HEADER_SIZE and 256 pages), and what malloc adds."""
_SHARE = 4
_FEWEST = 8
_TURNS = 64
"""Requests after which the scheduler has its turn: other tasks have waited for about a millisecond."""


class _WorkerLock:
    """The lock that lets one worker wait for a request while the other workers wait for the lock.

    Unlike trio's own lock, it may be taken again at once by the worker that has released it: the other
    workers have nothing to do until the one that reads has to wait itself.
    """

    def __init__(self) -> None:
        self._taken = False
        self._others = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._taken:
            await self._others.park()
        self._taken = True

    async def __aexit__(self, *_: object) -> None:
        self._taken = False
        self._others.unpark()


def reserved_buffers(most: int) -> list[mmap.mmap] | None:
    """Return memory for each request that may be served at the same time, at most *most*; None without a limit.

    libfuse allocates a buffer for each, and the mount ends if it cannot.  A quarter of the memory that is left is
    reserved, the rest is for the work.  Raises LimitReached if that is too little.
    """
    limits = {resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}
    if limits == {resource.RLIM_INFINITY}:
        return None
    buffers: list[mmap.mmap] = []
    with suppress(OSError):
        while len(buffers) < most * _SHARE:
            buffers.append(mmap.mmap(-1, _BUFFER, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    left = len(buffers)
    del buffers[left // _SHARE :]
    if len(buffers) < _FEWEST:
        has, needs = left * _BUFFER >> 20, _FEWEST * _SHARE * _BUFFER >> 20
        raise LimitReached(f"{has} MB of memory are left, a mount needs {needs} MB; raise its limit (ulimit -v, -d)")
    return buffers


class _LowLevel:
    """Stands in for ``trio.lowlevel``."""

    def __init__(self, buffers: list[mmap.mmap] | None) -> None:
        self._buffers = buffers
        self._workers: set[trio.lowlevel.Task] = set()
        """Those that have a buffer."""
        self._poll: select.poll | None = None
        # With one processor the client cannot send anything while this process polls.
        self._allowed = len(os.sched_getaffinity(0)) > 1
        self._busy = self._allowed
        self._turns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Return when *descriptor*, which is always the same one, has a request."""
        await self._wait(descriptor)
        if self._buffers and (worker := trio.lowlevel.current_task()) not in self._workers:
            self._workers.add(worker)
            self._buffers.pop().close()  # libfuse allocates the worker's buffer next

    async def _wait(self, descriptor: int) -> None:
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
        began = time.perf_counter()
        if self._turns < _TURNS and self._comes_soon(self._poll, began + _BUSY if self._busy else began):
            self._turns += 1
            return
        self._turns = 0
        await trio.lowlevel.wait_readable(descriptor)
        self._busy = self._allowed and time.perf_counter() - began < 2 * _BUSY

    @staticmethod
    def _comes_soon(poll: select.poll, deadline: float) -> bool:
        while not poll.poll(0):
            if time.perf_counter() >= deadline:
                return False
        return True


class RequestLoop:
    """Stands in for the module ``trio`` in pyfuse3."""

    Lock = _WorkerLock

    def __init__(self, buffers: list[mmap.mmap] | None = None) -> None:
        """Give each worker one of the *buffers* when it takes its first request; default: memory is unlimited."""
        self.lowlevel = _LowLevel(buffers)

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)
