"""Progress as people see it."""

import io
import re
import threading
import time
from collections.abc import Callable

import pytest

from fusefs.cli.output.progress import WAYS, Bars, Lines, progress_on
from fusefs.progress import Silent

CLEARED = "\r\033[K"
_TIMEOUT = 20


class Screen(io.StringIO):
    """What is written, and a way to wait for it."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self._written = threading.Condition()

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        with self._written:
            count = super().write(text)
            self._written.notify_all()
        return count

    def wait_for(self, pattern: str) -> str:
        """Wait until what is written has *pattern*, and return what matches."""
        with self._written:
            assert self._written.wait_for(lambda: re.search(pattern, self.getvalue()), _TIMEOUT), self.getvalue()
        match = re.search(pattern, self.getvalue())
        assert match is not None
        return match[0]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show everything at once, so that no test has to wait."""
    monkeypatch.setattr("fusefs.cli.output.progress._DELAY", 0.0)
    monkeypatch.setattr("fusefs.cli.output.progress._PLAIN_INTERVAL", 0.01)


def advance_until(found: Callable[[], object], advance: Callable[[int], None]) -> None:
    """Go on a byte at a time until *found*."""
    deadline = time.monotonic() + _TIMEOUT
    while not found():
        assert time.monotonic() < deadline
        advance(1)


def test_a_terminal_gets_bars_and_a_file_lines_unless_it_is_said_how() -> None:
    found = {way: [type(progress_on(Screen(terminal=there), way=way)) for there in (True, False)] for way in WAYS}
    assert found == {"auto": [Bars, Lines], "plain": [Lines, Lines], "none": [Silent, Silent]}


def test_a_terminal_that_cannot_wipe_a_line_gets_lines() -> None:
    assert type(progress_on(Screen(terminal=True), dumb=True)) is Lines


@pytest.mark.parametrize("terminal", [True, False])
def test_short_work_is_not_mentioned(*, terminal: bool) -> None:
    screen = Screen(terminal=terminal)
    progress = progress_on(screen)
    with progress.waiting("the engine prepares x"):
        pass
    with progress.transfer("saving x", 100) as advance:
        advance(100)
    assert screen.getvalue().replace(CLEARED, "").strip("\r ") == ""


def test_silence_takes_work_and_says_nothing() -> None:
    silent = Silent()
    with silent.waiting("x"), silent.transfer("y", 5) as advance:
        advance(5)


@pytest.mark.usefixtures("impatient")
def test_a_terminal_counts_the_seconds_of_a_wait_and_is_clean_afterwards() -> None:
    screen = Screen(terminal=True)
    with Bars(screen).waiting("the engine prepares x"):
        shown = screen.wait_for(r".*\033\[K")
    assert shown == "\rimgfs: the engine prepares x … 0 s\033[K"
    assert screen.getvalue().endswith(CLEARED)


@pytest.mark.usefixtures("impatient")
def test_a_terminal_is_clean_when_a_wait_ends_with_an_error() -> None:
    # Else the error is written behind the line that counts.
    screen = Screen(terminal=True)

    def fail() -> None:
        screen.wait_for("prepares")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Bars(screen).waiting("the engine prepares x"):
        fail()
    assert screen.getvalue().endswith(CLEARED)


@pytest.mark.usefixtures("impatient")
def test_a_terminal_shows_a_bar_and_is_clean_afterwards() -> None:
    screen = Screen(terminal=True)
    with Bars(screen).transfer("saving x", 1000) as advance:
        assert screen.wait_for(r"imgfs: saving x: +0%.*").endswith("?B/s]")
        advance(1)
    assert re.search(r"\r +\r$", screen.getvalue())


@pytest.mark.usefixtures("impatient")
def test_no_line_is_longer_than_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    # A line that wraps stays: the carriage return goes back to its last row only.
    monkeypatch.setenv("COLUMNS", "40")
    screen = Screen(terminal=True)
    name = "registry.example/" + "long/" * 12 + "name:latest"
    with Bars(screen).waiting(f"the engine prepares {name}"):
        assert screen.wait_for(r".*\033\[K") == "\rimgfs: the engine prepares regis… … 0 s\033[K"
    with Bars(screen).transfer(f"saving {name}", 1000) as advance:
        bar = screen.wait_for(r"\rimgfs: saving regis…: +0%\|[^\r]*")
        advance(1)
    assert len(bar) <= 41


@pytest.mark.usefixtures("impatient")
def test_a_bar_counts_seconds_while_nothing_moves() -> None:
    screen = Screen(terminal=True)
    with Bars(screen).transfer("indexing x", 1000):
        screen.wait_for(r"indexing x: +0%\|.*\[00:01<")


@pytest.mark.usefixtures("impatient")
def test_a_terminal_is_clean_when_a_transfer_ends_with_an_error() -> None:
    screen = Screen(terminal=True)
    with pytest.raises(ZeroDivisionError), Bars(screen).transfer("saving x", 1000):
        raise ZeroDivisionError
    assert re.search(r"\r +\r$", screen.getvalue())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("total", [0, 1000])
def test_a_total_that_proves_wrong_is_dropped(total: int) -> None:
    screen = Screen(terminal=True)
    with Bars(screen).transfer("saving x", total) as advance:
        advance(total)
        advance_until(lambda: re.search(r"saving x: [\d.]+k?B \[", screen.getvalue()), advance)


@pytest.mark.usefixtures("impatient")
def test_a_file_gets_a_line_now_and_then() -> None:
    screen = Screen(terminal=False)
    lines = Lines(screen)
    with lines.waiting("the engine prepares x"):
        assert screen.wait_for(r".*\n") == "imgfs: the engine prepares x (0 s)\n"
    with lines.transfer("saving x", 2_000_000) as advance:
        screen.wait_for(r"imgfs: saving x \(0 s\)\n")  # and no zeros
        advance(1_500_000)
        screen.wait_for(r"imgfs: saving x: 1\.5 of 2\.0 MB, \d+\.\d MB/s\n")
        advance(1_500_000)
        screen.wait_for(r"imgfs: saving x: 3\.0 MB, \d+\.\d MB/s\n")
    assert "\033" not in screen.getvalue()
    assert "\r" not in screen.getvalue()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_shown_once_the_work_is_over(*, terminal: bool) -> None:
    with progress_on(Screen(terminal=terminal)).waiting("x"):
        assert "progress" in [thread.name for thread in threading.enumerate()]
    assert "progress" not in [thread.name for thread in threading.enumerate()]
