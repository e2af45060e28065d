"""RFC 3339 times and nanoseconds since 1970."""

import datetime as dt
import re

from fusefs.oci.untrusted_json import Json
from fusefs.pattern import pattern

_RFC3339 = pattern(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


def known_time(nanoseconds: int) -> str | None:
    """Return a time of a document as RFC 3339, None for 0, a missing one."""
    return rfc3339(nanoseconds) if nanoseconds else None


def rfc3339(nanoseconds: int) -> str | None:
    """Return *nanoseconds* since 1970 in UTC as RFC 3339, None outside of the years 1 to 9999."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    try:
        moment = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(seconds=seconds)
    except OverflowError:
        return None
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{moment.replace(tzinfo=None).isoformat()}{digits}Z"


def nanoseconds(created: Json) -> int:
    """Return an RFC 3339 time in nanoseconds since 1970, 0 if it is malformed or earlier."""
    match = _RFC3339.fullmatch(created) if isinstance(created, str) else None
    if match is None:
        return 0
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        moment = dt.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=dt.UTC)
    except ValueError:
        return 0
    fraction, sign, hours, minutes = match.groups()[6:]
    offset = 0 if sign is None else int(f"{sign}1") * (int(hours) * 3600 + int(minutes) * 60)
    seconds = (moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(seconds=1)
    return max(0, (seconds - offset) * 10**9 + int((fraction or "0").ljust(9, "0")))
