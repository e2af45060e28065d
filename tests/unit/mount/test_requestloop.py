"""Waiting for requests: at once when one is there, by turns with everything else, asleep when none comes."""

import os
import select
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from fusefs.mount.requestloop import RequestLoop

MANY = 1000


@pytest.fixture(name="pipe")
def pipe_fixture() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def turns_during(work: Callable[[RequestLoop], Awaitable[None]]) -> int:
    """Return how often another task has its turn while *work* is done."""
    turns: list[int] = []

    async def counted() -> None:
        while True:
            turns.append(1)
            await trio.lowlevel.checkpoint()

    async def run() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counted)
            await work(RequestLoop())
            nursery.cancel_scope.cancel()
            return len(turns)

    return trio.run(run)


def test_a_request_that_is_there_is_taken_without_a_turn_of_the_scheduler(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"x")

    async def take(loop: RequestLoop) -> None:
        async with loop.Lock():
            await loop.lowlevel.wait_readable(reader)

    assert turns_during(take) == 0


def test_others_have_their_turn_while_one_request_follows_the_other(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"x")

    async def take(loop: RequestLoop) -> None:
        for _ in range(MANY):
            await loop.lowlevel.wait_readable(reader)

    assert MANY / 100 < turns_during(take) < MANY


def test_who_waits_for_requests_that_do_not_come_sleeps(pipe: tuple[int, int]) -> None:
    async def run() -> None:
        loop = RequestLoop()
        with trio.move_on_after(0.5):
            await loop.lowlevel.wait_readable(pipe[0])

    began = time.process_time()
    trio.run(run)
    assert time.process_time() - began < 0.25


def test_who_sleeps_is_woken_by_a_request_and_by_the_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    async def run() -> None:
        loop = RequestLoop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, os.write, writer, b"x")
            await loop.lowlevel.wait_readable(reader)
        os.read(reader, 1)

        async with trio.open_nursery() as nursery:
            closing = trio.lowlevel.current_trio_token()
            nursery.start_soon(trio.to_thread.run_sync, closing.run_sync_soon, loop.lowlevel.notify_closing, reader)
            with pytest.raises(loop.ClosedResourceError):
                await loop.lowlevel.wait_readable(reader)

    trio.run(run)


def _log_of(workers: int, work: Callable[[], object]) -> list[str]:
    """Let *workers* read one after the other, and return who came in and went out."""
    log: list[str] = []

    async def run() -> None:
        reading = RequestLoop.Lock()

        async def worker(name: str) -> None:
            async with reading:
                log.append(f"{name} in")
                await trio.lowlevel.checkpoint()
                work()
                log.append(f"{name} out")

        async with trio.open_nursery() as nursery:
            for number in range(workers):
                nursery.start_soon(worker, str(number))

    trio.run(run)
    return log


def test_one_worker_reads_at_a_time_and_each_has_its_turn() -> None:
    log = _log_of(5, lambda: None)
    assert [entry.split()[1] for entry in log] == ["in", "out"] * 5
    assert sorted(log[::2]) == [f"{number} in" for number in range(5)]


def test_a_worker_that_comes_back_at_once_goes_on_reading() -> None:
    async def run() -> list[str]:
        reading = RequestLoop.Lock()
        log: list[str] = []

        async def other() -> None:
            async with reading:
                log.append("other")

        async with trio.open_nursery() as nursery:
            async with reading:
                nursery.start_soon(other)
                await trio.testing.wait_all_tasks_blocked()
                log.append("first")
            async with reading:
                log.append("again")
        return log

    assert trio.run(run) == ["first", "again", "other"]


@pytest.mark.parametrize(("processors", "looks"), [(1, False), (2, True)])
def test_with_one_processor_nobody_looks_for_what_cannot_come(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, *, processors: int, looks: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    counts: list[int] = []

    class Counted:
        """A poll object without requests that counts how often it is asked; trio itself uses epoll."""

        def register(self, descriptor: int, events: int) -> None:
            assert (descriptor, events) == (pipe[0], select.POLLIN)

        def poll(self, timeout: int) -> list[tuple[int, int]]:
            assert timeout == 0
            counts[-1] += 1
            return []

    monkeypatch.setattr(select, "poll", Counted)

    async def run() -> None:
        loop = RequestLoop()
        for _ in range(MANY):
            counts.append(0)
            with trio.CancelScope() as scope:
                scope.cancel()
                await loop.lowlevel.wait_readable(pipe[0])

    trio.run(run)
    assert max(counts) > 1 if looks else counts == [1] * MANY


def test_every_other_name_is_that_of_trio() -> None:
    loop = RequestLoop()
    assert (loop.open_nursery, loop.Event) == (trio.open_nursery, trio.Event)
    assert loop.lowlevel.current_task is trio.lowlevel.current_task
    with pytest.raises(AttributeError, match="no_such_name"):
        loop.no_such_name  # noqa: B018 - the access is the test
