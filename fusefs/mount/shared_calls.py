"""Blocking calls run in threads, each of them once for all tasks that need its result at the same time.

The first access to a lazy directory and the listing of a large directory may take seconds, and many clients
may ask for the same one.  The first task starts the call; the others wait on an event and hold no thread.
"""

from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

import trio

from fusefs.errors import limit_reached

_R = TypeVar("_R")


async def in_thread(function: Callable[[], _R], limiter: trio.CapacityLimiter, *, or_at_once: bool = True) -> _R:
    """Return the result of *function*, called in a thread; *limiter* bounds their number.

    If no thread can be started, it is called at once: slow for all other tasks, but right.  What may take minutes is
    not: then LimitReached is raised.
    """
    try:
        return await trio.to_thread.run_sync(function, limiter=limiter, abandon_on_cancel=True)
    except RuntimeError as error:
        limit = limit_reached(error)
        if limit is None:
            raise
        if not or_at_once:
            raise limit from None
    return function()


class SharedCallFailed(Exception):
    """The call that this task waited for has failed; the task that started it raises the error itself."""

    def __init__(self, cause: Exception | None) -> None:
        """*cause* is the error of the call, None if the call was cancelled before it began."""
        super().__init__(str(cause))
        self.cause = cause


class SharedCalls:
    """The calls that are running, by key.  Used by the event loop's thread alone.

    A call whose task is cancelled goes on in its thread, and is running until that ends: whoever needs its result
    later waits for the same call.
    """

    def __init__(self, *, or_at_once: bool = True) -> None:
        """*or_at_once*: see `in_thread`."""
        self._or_at_once = or_at_once
        self._running: dict[Hashable, _Call[Any]] = {}

    async def run(self, key: Hashable, function: Callable[[], _R], limiter: trio.CapacityLimiter) -> _R:
        """Return the result of *function*, or of the call with the same *key* that is already running.

        *limiter* bounds the threads.  Raises what *function* raises in the task that started the call,
        SharedCallFailed in the tasks that waited for it.
        """
        call: _Call[_R] | None = self._running.get(key)
        if call is not None:
            return await call.wait()
        call = self._running[key] = _Call(function, partial(self._running.pop, key))
        return await call.run(limiter, or_at_once=self._or_at_once)


class _Call(Generic[_R]):
    """One call and its result."""

    def __init__(self, function: Callable[[], _R], remove: Callable[[], object]) -> None:
        """*remove* is called as soon as the call has ended."""
        self._function = function
        self._remove = remove
        self._began = False
        self._ended = trio.Event()
        self._result: tuple[_R] | None = None
        self._error: Exception | None = None

    async def run(self, limiter: trio.CapacityLimiter, *, or_at_once: bool) -> _R:
        token = trio.lowlevel.current_trio_token()
        is_cancelled = False

        def work() -> _R:
            self._began = True
            try:
                result = self._function()
            except Exception as error:
                self._error = error
                raise
            else:
                self._result = (result,)
                return result
            finally:
                with suppress(trio.RunFinishedError):  # nobody waits any more
                    token.run_sync_soon(self._end)

        try:
            return await in_thread(work, limiter, or_at_once=or_at_once)
        except trio.Cancelled:
            is_cancelled = self._began
            raise
        except Exception as error:
            self._error = error
            raise
        finally:
            if not is_cancelled:
                self._end()

    def _end(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._remove()

    async def wait(self) -> _R:
        await self._ended.wait()
        if self._result is None:
            raise SharedCallFailed(self._error)
        return self._result[0]
