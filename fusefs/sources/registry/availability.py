"""Whether a place works, by the transfers from it so far: one that has just failed is not asked."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from fusefs.errors import RegistryError
from fusefs.log import logger

log = logger(__name__)

_BACK_OFF = 2.0
"""Seconds in which a place that failed is not asked again: many readers must not wait one after the other."""
_LONGEST_BACK_OFF = 60.0
"""Seconds: the longest for a mirror, which doubles with each failure, as long as a place after it answers."""


class _Failure(NamedTuple):
    """The last failure of a place."""

    when: float
    """By the monotonic clock."""
    pause: float
    """Seconds in which it is not asked again if another place has the same."""
    why: str


class Availability:
    """What is known of one place.  Safe under concurrency."""

    def __init__(self, shown: str) -> None:
        """*shown* is the registry in messages."""
        self._shown = shown
        self.failing = ""
        """Why the last attempt failed; empty after an answer."""
        self._failed: _Failure | None = None
        self._failing_since: float | None = None
        self._served: float | None = None
        """When the last success was, by the monotonic clock; None after a failure or a refusal."""

    def check(self, *, instead: "Sequence[Availability]" = ()) -> None:
        """Raise RegistryError if the place has just failed.

        It is spared longer each time, if one of the places *instead* has served something since.
        """
        failed = self._failed  # another thread may reset it
        if failed is None:
            return
        is_replaced = any(place.has_served_since(failed.when) for place in instead)
        if time.monotonic() < failed.when + (failed.pause if is_replaced else _BACK_OFF):
            raise RegistryError(failed.why)

    def has_served_since(self, when: float) -> bool:
        """Return whether the last request succeeded, and after that time of the monotonic clock."""
        served = self._served
        return served is not None and served >= when

    def failed(self, error: RegistryError) -> None:
        """Do not ask the place for a moment: the attempts of a transfer have failed with *error*."""
        now, last, self._served = time.monotonic(), self._failed, None
        pause = _BACK_OFF
        if last is not None:  # several transfers may fail at the same time
            pause = last.pause if now < last.when + _BACK_OFF else min(last.pause * 2, _LONGEST_BACK_OFF)
        self._failed = _Failure(now, pause, str(error))
        if self._failing_since is None:
            self._failing_since = now
            log.info("the registry %s fails: %s", self._shown, error)

    def refused(self) -> None:
        """Take note that the place has not what was asked for, or denies it: another one may have it."""
        self._served = None
        self.failing = ""

    def succeeded(self) -> None:
        """Take note of a success: an outage may have ended."""
        self._served = now = time.monotonic()
        self.failing = ""
        since, self._failing_since = self._failing_since, None
        if since is not None:
            self._failed = None
            log.info("the registry %s answers again after %.0f s", self._shown, now - since)
