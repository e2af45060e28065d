"""When a transfer is attempted again."""

import time
from email.utils import formatdate

import pytest

from fusefs.errors import RegistryError
from fusefs.sources.servers.retries import Retries, Transient, retry_after


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.now += seconds


def waits(retries: Retries, clock: Clock, failure: Transient) -> list[float]:
    """Return how long it was waited before each attempt until the end."""
    found: list[float] = []
    while True:
        before = clock.now
        try:
            retries.wait(failure)
        except RegistryError:
            return found
        found.append(clock.now - before)


def test_attempts_become_rarer_and_end_with_the_timeout() -> None:
    clock = Clock()
    found = waits(Retries(60, clock.time, clock.sleep), clock, Transient("x"))
    assert all(0.125 * 2**n <= wait <= 0.25 * 2**n for n, wait in enumerate(found[:4]))
    assert all(1 <= wait <= 2 for wait in found[3:])
    assert 25 < len(found) < 65
    assert sum(found) <= 60


def test_progress_begins_the_time_again() -> None:
    clock = Clock()
    retries = Retries(10, clock.time, clock.sleep)
    waits(retries, clock, Transient("x"))
    retries.progressed()
    assert retries.limits().left == 10
    assert waits(retries, clock, Transient("x"))[0] <= 0.25


@pytest.mark.parametrize(("after", "times"), [(9.9, 1), (10, 0), (10.1, 0), (3, 3)])
def test_the_server_says_how_long_to_wait(after: float, times: int) -> None:
    clock = Clock()
    retries = Retries(10, clock.time, clock.sleep)
    assert waits(retries, clock, Transient("x", after=after)) == [pytest.approx(after)] * times


def test_a_server_that_says_at_once_without_end_is_not_asked_without_a_pause() -> None:
    clock = Clock()
    found = waits(Retries(60, clock.time, clock.sleep), clock, Transient("x", after=0))
    assert all(wait >= 0.125 for wait in found)
    assert 25 < len(found) < 65


def test_some_failures_are_tried_once_more_and_a_host_that_is_down_only_in_the_middle() -> None:
    clock = Clock()
    assert len(waits(Retries(60, clock.time, clock.sleep), clock, Transient("x", once=True))) == 1
    assert len(waits(Retries(60, clock.time, clock.sleep, insists=False), clock, Transient("x"))) == 1
    retries = Retries(60, clock.time, clock.sleep)
    assert waits(retries, clock, Transient("x", down=True)) == []
    retries.progressed()
    assert len(waits(retries, clock, Transient("x", down=True))) > 5


def test_without_a_limit_servers_may_be_silent_but_attempts_end() -> None:
    clock = Clock()
    retries = Retries(None, clock.time, clock.sleep)
    assert not retries.limits().silence
    assert sum(waits(retries, clock, Transient("x"))) <= 60


@pytest.mark.parametrize(
    ("text", "date", "seconds"),
    [
        ("120", "", 120),
        (" 2 ", "", 2),
        ("Sun, 06 Nov 1994 08:49:38 GMT", "Sun, 06 Nov 1994 08:49:08 GMT", 30),  # its clock may be wrong
        ("Sun, 06 Nov 1994 08:49:38 GMT", "Sun, 06 Nov 1994 08:50:08 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:38 GMT", "", 0),
        ("Sun, 06 Nov 1994 08:49:38 GMT", "now", 0),
        ("soon", "", None),
        ("-1", "", None),
        ("", "Sun, 06 Nov 1994 08:49:38 GMT", None),
    ],
)
def test_a_time_to_wait_is_a_number_or_a_moment(text: str, date: str, seconds: float | None) -> None:
    assert retry_after(text, date) == seconds


def test_a_moment_is_by_our_clock_if_the_server_does_not_state_its_own() -> None:
    later = formatdate(time.time() + 100, usegmt=True)
    assert 95 < (retry_after(later, "") or 0) <= 100


def test_all_places_share_the_time() -> None:
    clock = Clock()
    retries = Retries(16, clock.time, clock.sleep)
    retries.begin_place(is_last=False)
    assert retries.limits().left == 8
    clock.sleep(8)
    retries.begin_place(is_last=True)
    assert retries.limits().left == 8
    retries.progressed()
    assert retries.limits().left == 16


def test_a_silent_mirror_is_waited_for_for_a_part_of_a_long_timeout() -> None:
    clock = Clock()
    retries = Retries(60, clock.time, clock.sleep)
    retries.begin_place(is_last=False)
    assert retries.limits().left == 10
    clock.sleep(5)
    retries.progressed()
    assert retries.limits().left == 10
    retries.begin_place(is_last=False, is_best=True)
    assert retries.limits().left == 48


def test_a_wait_for_a_lane_does_not_shorten_attempts_while_the_host_works() -> None:
    clock = Clock()

    def sleep(seconds: float) -> float:
        clock.sleep(seconds + 50)
        return 50

    retries = Retries(60, clock.time, sleep)
    retries.wait(Transient("x", after=3))
    assert retries.limits().left == 57
    assert not retries.starved


def test_a_transfer_that_waited_for_a_silent_host_has_less_time_and_says_so() -> None:
    clock = Clock()
    retries = Retries(60, clock.time, clock.sleep, waited=31)
    assert retries.limits().left == 29
    assert retries.starved
    retries.progressed()
    assert not retries.starved
    retries = Retries(60, clock.time, lambda seconds: clock.sleep(seconds + 31))
    retries.wait(Transient("x", after=3))
    assert retries.limits().left == 26
    assert retries.starved


def test_answers_are_heard_of() -> None:
    heard = list[str]()
    retries = Retries(60, heard=lambda: heard.append("x"))
    retries.answered()
    retries.progressed()
    assert len(heard) == 2
