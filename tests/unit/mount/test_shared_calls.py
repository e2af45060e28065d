"""Calls in threads, each of them once for all that need its result."""

import threading

import pytest
import trio
import trio.testing

from fusefs.mount.shared_calls import SharedCallFailed, SharedCalls


@pytest.mark.parametrize("fails", [False, True])
def test_a_call_that_nobody_waits_for_goes_on_and_serves_those_who_come_later(*, fails: bool) -> None:
    began, go, calls = threading.Event(), threading.Event(), list[int]()

    def call() -> int:
        calls.append(1)
        began.set()
        go.wait()
        if fails:
            raise ValueError
        return len(calls)

    async def run() -> None:
        shared, limiter, got = SharedCalls(), trio.CapacityLimiter(2), list[object]()

        async def later() -> None:
            try:
                got.append(await shared.run("key", call, limiter))
            except SharedCallFailed as error:
                got.append(type(error.cause))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shared.run, "key", call, limiter)
            await trio.to_thread.run_sync(began.wait)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            await trio.testing.wait_all_tasks_blocked()
            go.set()
        assert got == [ValueError if fails else 1]
        assert not shared._running

    trio.run(run)


def test_a_call_that_has_not_begun_ends_with_its_task() -> None:
    async def run() -> None:
        shared, limiter = SharedCalls(), trio.CapacityLimiter(1)
        await limiter.acquire_on_behalf_of("another")
        with trio.move_on_after(0):
            await shared.run("key", lambda: 1, limiter)
        limiter.release_on_behalf_of("another")
        assert await shared.run("key", lambda: 2, limiter) == 2

    trio.run(run)
