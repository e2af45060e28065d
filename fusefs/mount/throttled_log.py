"""Errors that every request may raise again, logged at intervals: a failing disk must not fill another with logs."""

import logging
import math
import time
import traceback
from collections.abc import Callable

_INTERVAL = 10.0
"""Seconds between two messages of one kind."""
_MAX_KINDS = 1000
"""Kinds that are remembered: a message may contain numbers that differ each time."""


class ThrottledLog:
    """Logs each kind of error at most once per interval and counts the messages in between.

    Not thread-safe: used by the event loop's thread alone.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to *log*; *clock* returns seconds."""
        self._log = log
        self._clock = clock
        self._logged: dict[tuple[str, int | None], tuple[float, int]] = {}
        """By kind: the time of its last message, and the number of messages suppressed since."""

    def error(self, operation: str, error: OSError) -> None:
        """Log that *operation* failed; its kind is the operation and the error number."""
        self._write((operation, error.errno), f"{operation}: {error}")

    def bug(self, operation: str, error: Exception) -> None:
        """Log a traceback; its kind is the place that raised *error*."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{operation} {type(error).__name__} {place.filename}:{place.lineno}"
        self._write((kind, None), f"{operation}: a bug", error)

    def message(self, message: str) -> None:
        """Log *message*, which is a kind of its own."""
        self._write((message, None), message)

    def _write(self, kind: tuple[str, int | None], message: str, bug: Exception | None = None) -> None:
        now = self._clock()
        logged_at, suppressed = self._logged.get(kind, (-math.inf, 0))
        if now < logged_at + _INTERVAL:
            self._logged[kind] = logged_at, suppressed + 1
            return
        if len(self._logged) >= _MAX_KINDS:
            self._logged.clear()
        self._logged[kind] = now, 0
        more = f" (and {suppressed} more before)" if suppressed else ""
        self._log.error("%s%s", message, more, exc_info=bug)
