"""Times in the past, as people say them."""

import time
from calendar import timegm

_UNITS = (
    (365 * 86400, "year", "year"),
    (30 * 86400, "month", "month"),
    (86400, "day", "day"),
    (3600, "hour", "h"),
    (60, "minute", "min"),
    (1, "second", "s"),
)
"""Seconds of each unit, its name, and its name in a table."""
_UNCHANGED = ("h", "min", "s")
"""Names that have no plural."""


def age(seconds: float, *, brief: bool = True) -> str:
    """Return how long ago a moment is: ``3 min ago``, or ``3 minutes ago`` unless *brief*.

    A moment in the future is ``now``: clocks differ.
    """
    for length, name, abbreviation in _UNITS:
        count = int(seconds // length)
        if count > 0 and (length != 1 or count < 60):
            shown = abbreviation if brief else name
            return f"{count} {shown}{'' if count == 1 or shown in _UNCHANGED else 's'} ago"
    return "now"


def age_of(moment: str, *, brief: bool = True) -> str | None:
    """Return how long ago a *moment* in RFC 3339 is, whole seconds in UTC; None if it is malformed."""
    try:
        since = timegm(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
    return age(time.time() - since, brief=brief)


def local_time(seconds: float) -> str:
    """Return a moment, in seconds since 1970, as a local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
