"""Which thread fetches which bytes, and who waits for it."""

from collections.abc import Iterable

from fusefs.errors import ImgfsError
from fusefs.ranges import Range, Ranges


class Heir:
    """A thread that waits for a claim of other bytes, too: if that fails, it gets its own from the one that ends it."""

    __slots__ = ("claim", "wanted")

    def __init__(self, wanted: Range) -> None:
        self.wanted = wanted
        self.claim: Claim | None = None
        """Those of the bytes that the thread must fetch itself."""


class Claim:
    """Bytes that one thread fetches now."""

    __slots__ = ("asked", "begun", "ended", "error", "heirs", "missing", "since", "whole")

    def __init__(self, ranges: Iterable[Range]) -> None:
        self.missing = Ranges(ranges)
        """Those that have not arrived."""
        self.asked: Range = (0, 0)
        """Those of the last request."""
        self.begun = False
        """Whether any bytes arrived; until then, another claim may take its bytes."""
        self.whole = False
        """Whether the server sends everything, since it ignores ranges."""
        self.ended = False
        self.error: ImgfsError | None = None
        self.heirs: list[Heir] = []
        self.since = 0.0
        """After an error: when the thread began or got bytes last; see `patience.since`."""

    def fails(self, start: int, end: int) -> bool:
        """Return whether whoever wants the bytes from *start* up to *end* would get its error, too."""
        return self.whole or (start <= self.asked[0] and self.asked[1] <= end)
