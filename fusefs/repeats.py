"""Messages that come again with every request, told now and then: a failing disk must not fill another with logs."""

import logging
import math
import time
from collections.abc import Callable

_SECONDS = 10.0
"""Between two messages of one kind."""


class Repeats:
    """A log that counts what it leaves out.  Of one thread."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to *log*; *clock* returns seconds."""
        self._log = log
        self._clock = clock
        self._told: dict[tuple[str, int | None], tuple[float, int]] = {}
        """By kind: when one was told, and how many were left out since."""

    def tell(self, what: str, error: OSError) -> None:
        """Say that *what* failed, unless it did so for the same reason a moment ago."""
        kind, now = (what, error.errno), self._clock()
        told, left_out = self._told.get(kind, (-math.inf, 0))
        if now < told + _SECONDS:
            self._told[kind] = told, left_out + 1
            return
        self._told[kind] = now, 0
        more = f" (and {left_out} more before)" if left_out else ""
        self._log.error("%s: %s%s", what, error, more)
