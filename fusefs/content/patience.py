"""How long the read that a thread works for has waited for other machines: its further requests get what is left.

A read may need several requests, one after the other: for bytes with those that are read ahead, and for them alone if
that fails; or after the request of another thread has failed.  Without this, each had the user's whole timeout.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Read(threading.local):
    began: float | None = None
    """When the read of this thread began, or got bytes last, by the monotonic clock."""


_read = _Read()


@contextmanager
def one_read() -> Iterator[None]:
    """Let all that this thread waits for meanwhile be one read; one inside of another is a part of that."""
    if _read.began is not None:
        yield
        return
    _read.began = time.monotonic()
    try:
        yield
    finally:
        _read.began = None


def since() -> float:
    """Return when the read began, or got bytes last, by the monotonic clock; now outside of a read."""
    return time.monotonic() if _read.began is None else _read.began


def progressed(when: float) -> None:
    """Take note that bytes came at that time, for this thread or one that it waited for: the time begins again."""
    if _read.began is not None:
        _read.began = max(_read.began, when)


def waited() -> float:
    """Return for how many seconds the read has waited since bytes came last; 0.0 outside of a read."""
    return time.monotonic() - since()


def resume(began: float) -> None:
    """Let the read have begun at that time, if that is earlier."""
    if _read.began is not None:
        _read.began = min(_read.began, began)
