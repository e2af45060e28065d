"""Standard output as commands use it: what it can show, and what goes wrong with it."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from fusefs.errors import NoSpace
from fusefs.text import printable

BOLD, DIM, GREEN, RED, YELLOW, CYAN = "1", "2", "32", "31", "33", "36"
"""Parameters of SGR (ECMA-48), which colours what follows."""

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class ReaderGone(Exception):
    """Who read standard output has seen enough, as `head` has."""


class Output:
    """Standard output."""

    def __init__(self, environment: Mapping[str, str], stream: TextIO | None = None) -> None:
        """Write to *stream*, by default standard output; ``NO_COLOR`` in the *environment* is heeded."""
        self._stream = sys.stdout if stream is None else stream
        if hasattr(self._stream, "reconfigure"):
            # A name of a file must not be an error because it is in a script that the locale does not have.
            self._stream.reconfigure(errors="backslashreplace")
        self.terminal = self._stream.isatty()
        self.columns = shutil.get_terminal_size().columns if self.terminal else None
        """How wide a line may be, None for as wide as it is."""
        self.colours = (
            self.terminal and not environment.get("NO_COLOR") and environment.get("TERM", "dumb") not in ("dumb", "")
        )

    def styled(self, text: str, *styles: str) -> str:
        """Return *text* in *styles* where colours are wanted."""
        return f"\033[{';'.join(styles)}m{text}\033[m" if self.colours and styles else text

    def line(self, text: str = "") -> None:
        """Write a line, which is already printable."""
        try:
            self._stream.write(f"{text}\n")
        except OSError as error:
            raise _failed(error) from None

    def json(self, document: Any) -> None:
        """Write a JSON document, all of it in ASCII: no control character gets through."""
        self.line(json.dumps(document, indent=2).replace("\x7f", "\\u007f"))

    def raw(self, data: bytes | bytearray) -> None:
        """Write bytes as they are."""
        try:
            self._stream.flush()
            self._stream.buffer.write(data)
        except OSError as error:
            raise _failed(error) from None

    def text(self, text: str) -> None:
        """Write *text* from outside, all but its lines and tabs made printable."""
        shown = "".join(char if char in "\n\t" else printable(char) for char in text)
        try:
            self._stream.write(shown)
        except OSError as error:
            raise _failed(error) from None

    def finish(self) -> None:
        """Write what is still held back."""
        try:
            self._stream.flush()
        except OSError as error:
            raise _failed(error) from None


def say(message: str) -> None:
    """Write a line to stderr.  If that cannot be written, what was done and the exit status still count."""
    try:
        print(f"imgfs: {message}", file=sys.stderr, flush=True)
    except OSError:
        forget(2)


def leave_stderr() -> None:
    """Let what could not be written to stderr go nowhere: at the end Python would try again, and exit with 120."""
    try:
        sys.stderr.flush()
    except OSError:
        forget(2)


def forget(descriptor: int) -> None:
    """Let what is held back for a stream go nowhere: it would fail once more when Python ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _failed(error: OSError) -> Exception:
    forget(1)
    if isinstance(error, BrokenPipeError):
        return ReaderGone()
    return NoSpace(f"cannot write standard output: {error.strerror}")


def table(rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Return the lines of a table, its columns as wide as need be, those numbered in *right* aligned there."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = set(right)
    return [
        "  ".join(
            cell.rjust(width) if number in aligned else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def human_size(size: float) -> str:
    """Return bytes as docker shows them: ``187.6 MB``, powers of 1000."""
    for unit in _SIZES[:-1]:
        if size < 999.95 or (unit == "B" and size < 1000):
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_SIZES[-1]}"


def clipped(text: str, width: int | None) -> str:
    """Return *text* in *width* columns, if there are so many at all."""
    return text if width is None or len(text) <= width else f"{text[: max(0, width - 1)]}…"
