"""Errors of bytes that proved wrong or are denied, which readers get for a moment instead of another fetch.

The kernel passes on the lookups in a directory, and the reads of a page, one by one: if each of them fetched the bytes
again, the last of many programs would wait for a long time.
"""

import time
from collections.abc import Collection
from typing import NamedTuple

from fusefs.content import patience
from fusefs.content.pieces import FetchFailed
from fusefs.errors import BlobError, DigestMismatch, ImgfsError, InvalidImage, Unavailable

_MOMENT = 2.0
"""Seconds: the time in which a host that failed is not asked again."""
_MOST = 64
"""Errors that are remembered."""
_OF_BYTES = (DigestMismatch, InvalidImage, BlobError, Unavailable)
"""Errors of the bytes.  Those of a host are remembered by its client, and those of this machine are not."""


class _Recent(NamedTuple):
    until: float
    """When it is forgotten, by the monotonic clock."""
    error: ImgfsError
    pieces: Collection[int]
    since: float
    """When the read that failed began, or got bytes last."""


class RecentErrors:
    """The errors of the last two seconds that say that bytes are wrong or not to be had.

    Safe under concurrency, but one of two errors that are added at the same time may be lost.
    """

    def __init__(self) -> None:
        self._errors: tuple[_Recent, ...] = ()

    def add(self, failure: FetchFailed, pieces: Collection[int] = ()) -> None:
        """Remember *failure*, of this thread, if it is one of the bytes: of any of the *pieces*, with none: all bytes.

        One that is remembered elsewhere is not so for longer here.  Not one that is shared with another fetch: that
        may be of more bytes.
        """
        error = failure.error
        if isinstance(error, _OF_BYTES) and (failure.until is not None or not failure.shared):
            now = time.monotonic()
            recent = [each for each in self._errors if each.until > now]
            until = now + _MOMENT if failure.until is None else failure.until
            new = _Recent(until, error.with_traceback(None), pieces, patience.since())
            self._errors = (*recent, new)[-_MOST:]

    def check(self, wanted: Collection[int] = ()) -> None:
        """Raise FetchFailed with an error that is only about pieces that are *wanted*, or about all bytes."""
        for each in self._errors:
            if each.until > time.monotonic() and all(number in wanted for number in each.pieces):
                raise FetchFailed(each.error, shared=True, until=each.until)

    def resume(self, wanted: Collection[int]) -> None:
        """Let a read of pieces *wanted* go on where one failed that wanted some of them: see `patience`.

        The kernel reads ahead, and asks once more for the page that a program wants if that fails.
        """
        for each in self._errors:
            if each.until > time.monotonic() and any(number in wanted for number in each.pieces):
                patience.resume(each.since)
