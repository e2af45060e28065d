"""Standard output and stderr: styles, tables, and errors of writing."""

import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from fusefs.errors import NoSpace
from fusefs.text import printable

BOLD, DIM, GREEN, RED, YELLOW, CYAN = "1", "2", "32", "31", "33", "36"
"""Parameters of SGR (ECMA-48), the escape sequence for colours and styles."""

_DEFAULT_COLUMNS = 80
_MAX_DIGITS = 10
"""Digits of ``COLUMNS`` that are no number of columns any more."""
_NARROW = 60
"""Columns of a terminal on which sizes have little room."""
_SIZE_WIDTH, _NARROW_SIZE_WIDTH = 12, 8
"""Columns of a size: up to 999 GB in bytes, or with a unit."""
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class ReaderGone(Exception):
    """Broken pipe: the reader closed standard output (for example `head`)."""


def terminal_columns() -> int:
    """Return the columns of standard output: ``COLUMNS`` if that is set, else the terminal's, else 80.

    `shutil.get_terminal_size` gives the same, but its module takes long to import.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and len(columns) < _MAX_DIGITS and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(1).columns or _DEFAULT_COLUMNS
    except OSError:
        return _DEFAULT_COLUMNS


class Output:
    """Standard output."""

    def __init__(self, environment: Mapping[str, str], stream: TextIO | None = None) -> None:
        """Write to *stream*, default: standard output.  ``NO_COLOR`` in the *environment* disables colours."""
        self._stream = sys.stdout if stream is None else stream
        if hasattr(self._stream, "reconfigure"):
            # A file name in a script that the locale's encoding lacks must not be an error.
            self._stream.reconfigure(errors="backslashreplace")
        self.terminal = self._stream.isatty()
        self.columns = terminal_columns() if self.terminal else None
        """The width of the terminal, None if standard output is not a terminal."""
        self.colours = (
            self.terminal and not environment.get("NO_COLOR") and environment.get("TERM", "dumb") not in ("dumb", "")
        )

    @property
    def narrow(self) -> bool:
        """Whether the terminal has few columns."""
        return self.columns is not None and self.columns < _NARROW

    def size(self, size: int | None, *, human: bool) -> str:
        """Return a size for a column at the beginning of lines; *human*, and on a narrow terminal: with a unit."""
        text = "-" if size is None else human_size(size) if human or self.narrow else str(size)
        return f"{text:>{_NARROW_SIZE_WIDTH if self.narrow else _SIZE_WIDTH}}"

    def styled(self, text: str, *styles: str) -> str:
        """Return *text* in *styles*, or unchanged if colours are disabled."""
        return f"\033[{';'.join(styles)}m{text}\033[m" if self.colours and styles else text

    def line(self, text: str = "") -> None:
        """Write a line of text that is printable already."""
        self._write(f"{text}\n")

    def json(self, document: Any) -> None:
        """Write a JSON document in ASCII, without control characters."""
        self.line(_json(document))

    def json_list(self, documents: Iterable[Any]) -> None:
        """Write a list of JSON documents as `json` does, each as soon as it comes.

        If one cannot be made, the list has no end.
        """
        before = "[\n  "
        for document in documents:
            text = _json(document).replace("\n", "\n  ")
            self._write(before + text)
            before = ",\n  "
        self.line("\n]" if before.startswith(",") else "[]")

    def json_object(self, members: Iterable[tuple[str, Any]]) -> None:
        """Write a JSON object of *members* as they come; an iterator among the values becomes a list, as it comes.

        If one cannot be made, the object has no end.
        """
        before = "{\n  "
        for key, value in members:
            self._write(f"{before}{_json(key)}: ")
            before = ",\n  "
            if not isinstance(value, Iterator):
                self._write(_json(value).replace("\n", "\n  "))
                continue
            begin = "[\n    "
            for document in value:
                self._write(begin + _json(document).replace("\n", "\n    "))
                begin = ",\n    "
            self._write("\n  ]" if begin.startswith(",") else "[]")
        self.line("\n}")

    def raw(self, data: bytes | bytearray) -> None:
        """Write bytes unchanged."""
        try:
            self._stream.flush()
            self._stream.buffer.write(data)
        except OSError as error:
            raise _failed(error) from None

    def text(self, text: str) -> None:
        """Write untrusted *text*, all but newlines and tabs made printable."""
        self._write("".join(char if char in "\n\t" else printable(char) for char in text))

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except OSError as error:
            raise _failed(error) from None

    def finish(self) -> None:
        """Flush buffered output."""
        try:
            self._stream.flush()
        except OSError as error:
            raise _failed(error) from None


def _json(document: Any) -> str:
    import json  # noqa: PLC0415 - most commands print none

    return json.dumps(document, indent=2).replace("\x7f", "\\u007f")


def say(message: str) -> None:
    """Write a line to stderr; an error of writing is ignored, and the exit status stays what it is."""
    try:
        print(f"imgfs: {message}", file=sys.stderr, flush=True)
    except OSError:
        discard(2)


def flush_stdout() -> bool:
    """Flush stdout; return whether nothing is left in its buffer."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def flush_stderr() -> None:
    """Flush stderr, and discard what cannot be written: Python would try again at its end, and exit with 120."""
    try:
        sys.stderr.flush()
    except OSError:
        discard(2)


def discard(descriptor: int) -> None:
    """Redirect *descriptor* to the null device, so that the flush at Python's end does not fail once more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _failed(error: OSError) -> Exception:
    discard(1)
    if isinstance(error, BrokenPipeError):
        return ReaderGone()
    return NoSpace(f"cannot write standard output: {error.strerror}")


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column of a table."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def aligned(row: Sequence[str], widths: Sequence[int], right: Collection[int] = ()) -> str:
    """Return a line of a table, padded up to its end; the columns with the numbers in *right* are right-aligned."""
    return "  ".join(
        cell.rjust(width) if number in right else cell.ljust(width)
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    )


def human_size(size: float) -> str:
    """Return a number of bytes as docker shows it: ``187.6 MB``, in powers of 1000."""
    for unit in _SIZES[:-1]:
        if size < 999.95 or (unit == "B" and size < 1000):
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_SIZES[-1]}"


def seconds_since(began: float) -> str:
    """Return the time since *began*, as `time.monotonic` gives it: ``0.2 s``, ``75 s``."""
    passed = time.monotonic() - began
    return f"{passed:.1f} s" if passed < 59.95 else f"{passed:.0f} s"


def clipped(text: str, width: int | None) -> str:
    """Return *text* cut to *width* columns; None: unchanged."""
    return text if width is None or len(text) <= width else f"{text[: max(0, width - 1)]}…"
