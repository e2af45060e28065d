"""How many requests run at the same time, and what those that wait know about the host."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import WeakValueDictionary

import pytest

from fusefs.errors import ImgfsError
from fusefs.image.model import Traffic
from fusefs.sources.registry import lanes
from fusefs.sources.registry.client import transfers_of
from fusefs.sources.registry.lanes import Lanes, lanes_of
from fusefs.sources.registry.places import Place
from fusefs.sources.registry.transfer import Transfers
from tests.support.answers import Answer, Got, answers
from tests.support.conformance import SETTINGS
from tests.support.processes import until
from tests.unit.sources.registry.clients import MANIFEST

AT_ONCE, LARGE_AT_ONCE = 6, 4


class Clock:
    """A clock that a test sets, and that counts who looked at it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = Counter[int]()

    def monotonic(self) -> float:
        """Return the time."""
        self.looks[threading.get_ident()] += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.now += seconds


@pytest.fixture(name="clock")
def clock_fixture(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the lanes alone."""
    clock = Clock()
    monkeypatch.setattr(lanes, "time", clock)
    return clock


def client(host: str, timeout: float = 60.0) -> Transfers:
    """Return a client of a repository at *host*."""
    settings = SETTINGS._replace(timeout=timeout, environment={"HOME": "/nonexistent"})
    return transfers_of([Place(host, "team/app", insecure=True)], settings, Traffic())


@contextmanager
def waiting(made: Lanes, clock: Clock) -> Iterator[list[float]]:
    """Let a thread wait for a lane for a whole blob; give how long the host was silent when it got one."""
    found = list[float]()

    def wait() -> None:
        with made.lane(60.0, whole=True) as lane:
            found.append(lane.silence)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: clock.looks[thread.ident or 0] >= 2, "the thread waits for a lane")
    yield found
    thread.join()


@pytest.mark.parametrize("status", [200, 404, 503])
def test_each_answer_tells_those_who_wait_that_the_host_works(clock: Clock, status: int) -> None:
    answer = Answer(status, b"{}", {"Retry-After": "3600"})
    with answers(lambda _: answer) as server, ExitStack() as held:
        transfers, made = client(server.host), lanes_of(server.host)
        for _ in range(LARGE_AT_ONCE):
            held.enter_context(made.lane(None, whole=True))
        with waiting(made, clock) as silence:
            clock.now += 59.0
            with suppress(ImgfsError):
                transfers.manifest("1", None)
            clock.now += 1.0
            held.close()
    assert silence == [1.0]


def test_who_waits_for_a_silent_host_knows_it(clock: Clock) -> None:
    made = Lanes("host")
    with ExitStack() as held:
        for _ in range(LARGE_AT_ONCE):
            held.enter_context(made.lane(None, whole=True))
        with waiting(made, clock) as silence:
            clock.now += 59.0
            held.close()
    assert silence == [59.0]


def test_a_request_that_got_a_lane_too_late_does_not_stop_others(clock: Clock) -> None:
    statuses = [503]
    with answers(lambda _: Answer(statuses[0], MANIFEST)) as server, ExitStack() as held:
        transfers, made, failed = client(server.host), lanes_of(server.host), list[ImgfsError]()
        for _ in range(AT_ONCE):
            held.enter_context(made.lane(None))

        def read() -> None:
            try:
                transfers.manifest("1", None)
            except ImgfsError as error:
                failed.append(error)

        late = threading.Thread(target=read)
        late.start()
        until(lambda: clock.looks[late.ident or 0] >= 2, "the thread waits for a lane")
        clock.now += 59.0
        held.close()
        late.join()
        statuses[0] = 200
        assert transfers.manifest("1", None).data == MANIFEST
    assert len(failed) == 1


def test_a_lane_is_free_while_its_transfer_sleeps(clock: Clock) -> None:
    made = Lanes("host")
    with made.lane(60.0) as lane, ExitStack() as others:
        for _ in range(AT_ONCE - 1):
            others.enter_context(made.lane(60.0))

        def sleep(seconds: float) -> None:
            with made.lane(60.0):
                clock.now += seconds

        clock.sleep = sleep  # type: ignore[method-assign]
        assert lane.sleep(2.0) == 0.0
    assert clock.now == 1002.0


def test_transfers_that_pause_do_not_hold_up_others() -> None:
    works = threading.Event()

    def answer(got: Got) -> Answer:
        if got.path.endswith("/other"):
            works.set()
        return Answer(200, MANIFEST) if works.is_set() else Answer(503)

    with answers(answer) as server:
        found = list[bytes]()

        def read() -> None:
            found.append(client(server.host, timeout=5.0).manifest("1", None).data)

        readers = [threading.Thread(target=read) for _ in range(AT_ONCE)]
        for reader in readers:
            reader.start()
        until(lambda: len(server.got) >= AT_ONCE, "all lanes were taken")
        assert client(server.host).manifest("other", None).data == MANIFEST
        for reader in readers:
            reader.join()
    assert found == [MANIFEST] * AT_ONCE


def test_threads_that_ask_at_the_same_time_get_the_same_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    got = list[Lanes]()
    other = threading.Thread(target=lambda: got.append(lanes_of("host")))

    class Interrupted(dict[str, Any]):
        """Lets another thread ask between a look and what follows from it."""

        def __getitem__(self, key: str) -> Any:
            if other.ident is None:
                other.start()
                other.join(0.2)  # it waits for this one, or else it is done
                raise KeyError(key)
            return super().__getitem__(key)

    known = WeakValueDictionary[str, Lanes]()
    known.data = Interrupted()  # type: ignore[attr-defined]
    monkeypatch.setattr(lanes, "_all", known)
    got.append(lanes_of("host"))
    other.join()
    assert got[0] is got[1]
