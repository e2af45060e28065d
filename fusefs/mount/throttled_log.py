"""Messages that come again with every request, told now and then: a failing disk must not fill another with logs."""

import logging
import math
import time
from collections.abc import Callable

_SECONDS = 10.0
"""Between two messages of one kind."""
_KINDS = 1000
"""That are remembered: a message may have numbers in it that are others each time."""


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
        self._tell((what, error.errno), f"{what}: {error}")

    def tell_message(self, message: str) -> None:
        """Say *message*, unless it was said a moment ago."""
        self._tell((message, None), message)

    def _tell(self, kind: tuple[str, int | None], message: str) -> None:
        now = self._clock()
        told, left_out = self._told.get(kind, (-math.inf, 0))
        if now < told + _SECONDS:
            self._told[kind] = told, left_out + 1
            return
        if len(self._told) >= _KINDS:
            self._told.clear()
        self._told[kind] = now, 0
        more = f" (and {left_out} more before)" if left_out else ""
        self._log.error("%s%s", message, more)
