"""When a request that failed is tried again: never longer than the user's timeout without progress."""

import math
import random
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from fusefs.errors import RegistryError, Unavailable
from fusefs.sources.servers.connections import Limits

MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 527)})
"""Answers after which another attempt may succeed; those from 520 on are Cloudflare's, of the server behind it."""
_FIRST, _LONGEST = 0.25, 2.0
"""Seconds before the second attempt, which double with each further one up to the longest, or half of that at random.

The longest is the pause after a failed transfer, too: a host that works again is used soon, also by waiting readers.
"""
_LONGEST_PAUSE = 3600.0
"""Seconds: a server may state a wrong time, and a mount must find out."""
_MIRROR_PATIENCE = 10.0
"""Seconds without progress after which the next place is asked, unless this one is the best."""
_SHARE, _BEST_SHARE = 0.5, 0.8
"""The part of the time that is left for a place that is not the last one."""
_DEFAULT_PATIENCE = 60.0
"""Seconds for attempts if the user sets no limit for silence."""


class Transient(Exception):
    """An attempt failed, and another one may succeed; the message is for the user."""

    def __init__(
        self, message: str, *, after: float | None = None, once: bool = False, down: bool = False, denied: bool = False
    ) -> None:
        """*after*: seconds that the server asks to wait; 0 is as if it did not.

        *once*: only one more attempt makes sense.  *down*: the host cannot be reached at all.  *denied*: after
        that one, access is denied.
        """
        super().__init__(message)
        self.after = after
        self.once = once
        self.down = down
        self.denied = denied


class Pauses:
    """Hosts that are not asked for a time, as they wish (Retry-After).  Safe under concurrency."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[float, str]] = {}
        """When a pause ends, and why it began."""

    def begin(self, host: str, seconds: float, why: str) -> None:
        """Do not ask *host* for so many *seconds*, at most for an hour."""
        self._ends[host] = time.monotonic() + min(seconds, _LONGEST_PAUSE), why

    def check(self, host: str) -> None:
        """Raise Transient if *host* must not be asked now."""
        ends, why = self._ends.get(host, (0.0, ""))
        if (left := ends - time.monotonic()) > 0:
            raise Transient(why, after=left)


pauses = Pauses()
"""Those of this process: a host limits what a machine or a user asks for, not what an image asks for."""


class Retries:
    """The attempts of one transfer, at all places."""

    def __init__(  # noqa: PLR0913 - a lane gives three of them
        self,
        timeout: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], float | None] = time.sleep,
        waited: float = 0.0,
        heard: Callable[[], None] | None = None,
        *,
        insists: bool = True,
    ) -> None:
        """Give up after *timeout* seconds without progress; None: servers may be silent for any time.

        *waited*: how many of these seconds are over.  *sleep* may return by how many seconds to give up later.  *heard*
        is called whenever a server answers, or sends bytes.  Unless it *insists*, there is only one more attempt.
        """
        self._insists = insists
        self._silence = timeout is not None
        self._patience = _DEFAULT_PATIENCE if timeout is None else timeout
        self._clock = clock
        self._sleep = sleep
        self._heard = heard
        self._is_last, self._is_best = True, False
        self._restart()
        self._gives_up -= waited
        self._waited = waited
        """How many seconds of the time left were not for attempts."""
        self.part_refused = False
        """Whether a storage has refused a part of a blob: the next refusal is not that of a URL that has expired."""
        self.without_parts = False
        """Whether all of a blob was asked for instead."""
        self._begin()
        self._received = False

    def begin_place(self, *, is_last: bool, is_best: bool = False) -> None:
        """Begin with all attempts at another place, in the time that is left.

        Unless it *is_last*, it gets half of that: the next one may have what a silent mirror does not send.  One that
        *is_best* gets more, since those after it have little to give.
        """
        self._is_last, self._is_best, self._received = is_last, is_best, False
        self.part_refused = self.without_parts = False
        self._begin()

    @property
    def starved(self) -> bool:
        """Whether attempts had less than half of the time: their failure tells little about the host."""
        return self._waited > self._patience / 2

    def answered(self) -> None:
        """Take note that a server is not silent."""
        if self._heard is not None:
            self._heard()

    def progressed(self) -> None:
        """Begin again with all time and attempts: bytes were received."""
        self.answered()
        self._restart()
        self._waited = 0.0
        self._received = True

    def _restart(self) -> None:
        self._gives_up = self._clock() + self._patience
        self._begin()

    def _begin(self) -> None:
        left = self._gives_up - self._clock()
        if not self._is_last:
            left = left * _BEST_SHARE if self._is_best else min(left * _SHARE, _MIRROR_PATIENCE)
        self._deadline = self._clock() + left
        self._delay = _FIRST
        self._once = False

    def limits(self) -> Limits:
        """Return the time for the next request."""
        return Limits(max(0.001, self._deadline - self._clock()) if self._silence else math.inf, self._silence)

    def wait(self, failure: Transient) -> None:
        """Wait until the next attempt; RegistryError with the message of *failure* if there is none.

        Unavailable if access has been denied once more.  A host that cannot be reached is only waited for in the middle
        of a transfer.
        """
        delay = self._delay * random.uniform(0.5, 1.0) if not failure.after else failure.after  # noqa: S311
        left, once = self._deadline - self._clock(), failure.once or not self._insists
        if failure.denied and self._once:
            raise Unavailable(str(failure))
        if delay >= left or (once and self._once) or (failure.down and not self._received):
            raise RegistryError(str(failure))
        self._once = self._once or once
        began = self._clock()
        later = self._sleep(delay) or 0.0
        self._waited += self._clock() - began - delay - later
        self._gives_up += later
        self._deadline += later
        self._delay = min(_LONGEST, self._delay * 2)


def retry_after(text: str, date: str) -> float | None:
    """Return the seconds of the header Retry-After, None without a valid one.

    It may be a moment, by the clock of the server, whose time is the header *date*; without a valid one, by our clock.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    until = _moment(text)
    if until is None:
        return None
    now = _moment(date)
    return max(0.0, until - (time.time() if now is None else now))


def _moment(text: str) -> float | None:
    """Return a date of HTTP in seconds since 1970, None if it is malformed."""
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
