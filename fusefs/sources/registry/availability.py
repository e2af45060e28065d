"""Whether a place works, by the transfers from it so far: one that has just failed is not asked.

A blob whose transfer fails says little about the others: only when a second one fails, and the place has answered
nothing in between, is the place not asked at all.
"""

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from fusefs.errors import RegistryError
from fusefs.log import logger
from fusefs.oci.digest import Digest

log = logger(__name__)

_BACK_OFF = 2.0
"""Seconds in which a place that failed is not asked again: many readers must not wait one after the other."""
_LONGEST_BACK_OFF = 60.0
"""Seconds: the longest for a mirror, which doubles with each failure, as long as a place after it answers."""
_MOST = 64
"""Blobs whose failures are remembered."""


class _Failure(NamedTuple):
    """The last failure of a place, or of one blob there."""

    when: float
    """By the monotonic clock."""
    pause: float
    """Seconds in which it is not asked again if another place has the same."""
    why: str


class Availability:
    """What is known of one place.  Safe under concurrency: `_changing` guards what changes with a failure."""

    def __init__(self, shown: str) -> None:
        """*shown* is the registry in messages."""
        self._shown = shown
        self.failing = ""
        """Why the last attempt failed; empty after an answer."""
        self._changing = threading.Lock()
        self._failures: dict[Digest | None, _Failure] = {}
        """The last failure of each blob, and that of the place, whose key is None."""
        self._failing_since: float | None = None
        self._served: float | None = None
        """When the last success was, by the monotonic clock; None after a failure or a refusal."""
        self._answered = -1.0
        """When the place said anything last, a refusal included."""

    def check(self, blob: Digest | None = None, *, instead: "Sequence[Availability]" = ()) -> None:
        """Raise RegistryError if the place, or *blob* there, has just failed.

        It is spared longer each time, if one of the places *instead* has served something since.
        """
        for failed in (self._failures.get(None), self._failures.get(blob)):
            if failed is not None:
                is_replaced = any(place.has_served_since(failed.when) for place in instead)
                if time.monotonic() < failed.when + (failed.pause if is_replaced else _BACK_OFF):
                    raise RegistryError(failed.why)

    def has_served_since(self, when: float) -> bool:
        """Return whether the last request succeeded, and after that time of the monotonic clock."""
        served = self._served
        return served is not None and served >= when

    def failed(self, error: RegistryError, blob: Digest | None = None) -> None:
        """Do not ask the place for a moment: the attempts of a transfer have failed with *error*.

        If it was of a *blob*, and nothing else failed since the place answered last: do not ask for that blob.
        """
        with self._changing:
            self._served, now = None, time.monotonic()
            others = (each.when for key, each in self._failures.items() if key != blob)
            if any(when > self._answered for when in others):
                blob = None
            last, pause = self._failures.pop(blob, None), _BACK_OFF
            if last is not None:  # several transfers may fail at the same time
                pause = last.pause if now < last.when + _BACK_OFF else min(last.pause * 2, _LONGEST_BACK_OFF)
            self._failures[blob] = _Failure(now, pause, str(error))
            if len(self._failures) > _MOST:
                del self._failures[next(iter(self._failures))]
            if blob is not None:
                if last is None:
                    log.info("the registry %s fails at a blob: %s", self._shown, error)
            elif self._failing_since is None:
                self._failing_since = now
                log.info("the registry %s fails: %s", self._shown, error)

    def answered(self) -> None:
        """Take note that the place works, whatever it said."""
        self._answered = time.monotonic()

    def refused(self) -> None:
        """Take note that the place does not give what was asked for: another one may have it."""
        self._served = None
        self.failing = ""

    def succeeded(self, blob: Digest | None = None) -> None:
        """Take note of a success: an outage may have ended."""
        self._answered = self._served = now = time.monotonic()
        self.failing = ""
        if not self._failures:
            return
        with self._changing:
            since, self._failing_since = self._failing_since, None
            if since is None:
                self._failures.pop(blob, None)
                return
            self._failures.clear()
        log.info("the registry %s answers again after %.0f s", self._shown, now - since)
