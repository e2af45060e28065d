"""How long a read has waited, over several requests."""

import threading

import pytest

from fusefs.content import patience


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture(name="clock")
def clock_fixture(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the tests set the time."""
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


def test_a_read_waits_since_it_began_or_got_bytes(clock: Clock) -> None:
    assert patience.waited() == 0
    with patience.one_read():
        clock.now += 3
        with patience.one_read():
            clock.now += 4
            assert (patience.waited(), patience.since()) == (7, 100)
        assert patience.waited() == 7
        patience.progressed(105)
        assert patience.waited() == 2
        patience.progressed(101)  # others were slower
        assert patience.waited() == 2
        patience.resume(99)
        assert patience.waited() == 8
        patience.resume(106)
        assert patience.waited() == 8
    patience.progressed(1)
    patience.resume(1)
    clock.now += 5
    assert (patience.waited(), patience.since()) == (0, clock.now)


def test_each_thread_has_a_read_of_its_own(clock: Clock) -> None:
    found = list[float]()
    with patience.one_read():
        clock.now += 3
        other = threading.Thread(target=lambda: found.append(patience.waited()))
        other.start()
        other.join()
    assert found == [0]


def test_a_read_that_fails_ends(clock: Clock) -> None:
    with pytest.raises(KeyError), patience.one_read():
        raise KeyError
    clock.now += 3
    assert patience.waited() == 0
