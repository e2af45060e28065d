"""Progress on stderr: a bar on a terminal, plain lines elsewhere, or nothing."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from fusefs.cli.output.stdout import discard, terminal_columns
from fusefs.progress import Advance, Progress, Silent

_DELAY = 0.5
"""Seconds of work before progress is shown on a terminal."""
_PLAIN_INTERVAL = 10.0
"""Seconds before the first plain line, and between two."""
_SHOWN = 50_000
"""Bytes, or bytes a second, that a plain line shows as 0.1 MB; it shows no zeros."""

AUTO, PLAIN, NONE = "auto", "plain", "none"
"""Values of ``--progress``."""
WAYS = (AUTO, PLAIN, NONE)


def progress_on(stream: TextIO, *, way: str = AUTO, dumb: bool = False) -> Progress:
    """Return the progress to show on *stream*; a *dumb* terminal cannot erase a line, so it gets plain lines."""
    if way == NONE:
        return Silent()
    return Bars(stream) if way == AUTO and stream.isatty() and not dumb else Lines(stream)


def _columns(stream: TextIO) -> int:
    """Return the width of the terminal of *stream*; standard output may be a file."""
    with suppress(OSError):
        if columns := os.get_terminal_size(stream.fileno()).columns:
            return columns
    return terminal_columns()


def _cut(text: str, columns: int) -> str:
    """Return *text* cut to *columns*: the next line would not erase all of a line that wraps."""
    return text if len(text) <= columns else f"{text[: max(0, columns - 1)]}…"


class Bars:
    """Shows a bar, or a line that counts seconds, on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def waiting_began(self) -> None:
        """Show nothing: `waiting` says what is waited for."""

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show *what* and the seconds that have passed."""

        def show(seconds: float) -> None:
            passed = f" … {seconds:.0f} s"
            line = _cut(f"imgfs: {what}", _columns(self._stream) - 1 - len(passed)) + passed
            self._write(f"\r{line}\033[K")

        try:
            with _ticking(show, _DELAY, 1.0):
                yield
        finally:
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # the terminal is gone; the work continues
            discard(self._stream.fileno())

    @contextmanager
    def transfer(self, what: str, total: int | None) -> Iterator[Advance]:
        """Show a bar with bytes and rate and, while the total is not exceeded, total and remaining time."""
        from tqdm import tqdm  # noqa: PLC0415 - only a terminal needs it

        tqdm.monitor_interval = 0  # otherwise it starts a thread, and the process forks later
        self._write("")  # flushes output that a lost terminal has not taken, on which tqdm would fail
        columns = _columns(self._stream)  # never 0, for which tqdm shows nothing
        with tqdm(
            desc=_cut(f"imgfs: {what}", columns // 2),  # the numbers take the other half
            total=total,
            unit="B",
            unit_scale=True,
            delay=_DELAY,
            leave=False,
            ncols=columns,
            file=self._stream,
        ) as bar:

            def advance(count: int) -> None:
                if bar.total is not None and bar.n + count > bar.total:
                    bar.total = None
                bar.update(count)

            # Layers are counted when they are indexed; between them the running seconds show that work continues.
            with _ticking(lambda _: bar.refresh(), _DELAY, 1.0):
                yield advance


class Lines:
    """Writes a plain line at intervals, for a log file or a pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def waiting_began(self) -> None:
        """Show nothing: `waiting` says what is waited for."""

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Write *what* and the seconds that have passed."""
        with _ticking(lambda seconds: self._waiting(what, seconds), _PLAIN_INTERVAL, _PLAIN_INTERVAL):
            yield

    @contextmanager
    def transfer(self, what: str, total: int | None) -> Iterator[Advance]:
        """Write how many bytes have passed."""
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count

        def show(seconds: float) -> None:
            if done < _SHOWN:
                self._waiting(what, seconds)
                return
            of = f" of {total / 1e6:.1f}" if total is not None and done <= total else ""
            rate = done / seconds
            shown = f"{rate / 1e6:.1f} MB/s" if rate >= _SHOWN else f"{rate / 1e3:.1f} kB/s"
            self._line(f"{what}: {done / 1e6:.1f}{of} MB, {shown}")

        with _ticking(show, _PLAIN_INTERVAL, _PLAIN_INTERVAL):
            yield advance

    def _waiting(self, what: str, seconds: float) -> None:
        self._line(f"{what} ({seconds:.0f} s)")

    def _line(self, text: str) -> None:
        with suppress(OSError):  # the work continues without a reader
            self._stream.write(f"imgfs: {text}\n")
            self._stream.flush()


@contextmanager
def _ticking(show: Callable[[float], None], delay: float, interval: float) -> Iterator[None]:
    """Call *show* with the seconds that have passed, after *delay* and then every *interval* seconds."""
    import threading  # noqa: PLC0415 - most commands wait for nothing

    began = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        wait = delay
        while not done.wait(wait):
            show(time.monotonic() - began)
            wait = interval

    thread = threading.Thread(target=tick, name="progress")
    try:
        thread.start()
        yield
    finally:
        done.set()
        if thread.ident is not None:
            thread.join()
