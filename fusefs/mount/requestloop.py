"""How pyfuse3 waits for the kernel's next request: a moment busily, then in trio.

A client that waits for its answer sends the next request within some 10 µs, while to sleep and be woken
takes 20 to 50 µs, most of it the processor's.  So the loop looks again and again for as long as a wake-up
would take before it goes to sleep, as the kernel's own halt polling does (virt/kvm/halt-polling), and like
that only while it pays.  A request that needs no thread then passes without a turn of the scheduler.

pyfuse3 takes what it needs of trio from its attribute ``trio``, which is also how its asyncio mode works.
"""

import os
import select
import time

import trio
import trio.lowlevel

_BUSY = 50e-6
"""Seconds to look for a request before going to sleep."""
_TURNS = 64
"""Requests after which the scheduler has its turn: others have waited for about a millisecond."""


class _Reading:
    """The one worker that waits for a request; the others wait for their turn.

    Unlike with trio's own lock, who leaves may come back at once: nobody else has anything to do until
    the one that reads has to wait itself.
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


class _LowLevel:
    """The part of ``trio.lowlevel`` that pyfuse3 uses."""

    current_task = staticmethod(trio.lowlevel.current_task)
    current_trio_token = staticmethod(trio.lowlevel.current_trio_token)
    notify_closing = staticmethod(trio.lowlevel.notify_closing)

    def __init__(self) -> None:
        self._poll: select.poll | None = None
        # With one processor the client cannot send anything while this process looks.
        self._allowed = len(os.sched_getaffinity(0)) > 1
        self._busy = self._allowed
        self._turns = 0

    async def wait_readable(self, descriptor: int) -> None:
        """Return when *descriptor*, always the same one, has a request."""
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
    """What takes the place of the module `trio` for pyfuse3."""

    Lock = _Reading
    ClosedResourceError = trio.ClosedResourceError
    open_nursery = staticmethod(trio.open_nursery)
    from_thread = trio.from_thread

    def __init__(self) -> None:
        self.lowlevel = _LowLevel()
