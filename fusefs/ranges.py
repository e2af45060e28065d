"""A set of bytes of a file, as ranges."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator

Range = tuple[int, int]
"""The first byte, and the one behind the last."""
_FEW = 16
"""Fewer ranges are added one by one."""


class Ranges:
    """A set of bytes: sorted ranges that neither overlap nor touch.  Not safe under concurrency."""

    __slots__ = ("_bounds",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        """Start with the bytes of *ranges*."""
        self._bounds: list[int] = []
        """Where the set begins and ends, in turn: a byte is in it if an odd number of bounds is not behind it."""
        if isinstance(ranges, Ranges):
            self._bounds = [*ranges._bounds]  # noqa: SLF001 - of the same class
            return
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._bounds[::2], self._bounds[1::2], strict=True)

    def __len__(self) -> int:
        """Return the number of ranges; a set without any is false."""
        return len(self._bounds) // 2

    @property
    def total(self) -> int:
        """The number of bytes."""
        return sum(self._bounds[1::2]) - sum(self._bounds[::2])

    def add(self, start: int, end: int) -> None:
        """Put the bytes from *start* up to *end* into the set."""
        self._replace(start, end, inside=True)

    def add_all(self, ranges: Collection[Range]) -> None:
        """Put the bytes of many *ranges* into the set, which takes no longer than to sort them."""
        if len(ranges) < _FEW:
            for start, end in ranges:
                self.add(start, end)
            return
        merged: list[int] = []
        for start, end in sorted((*self, *ranges)):
            if merged and start <= merged[-1]:
                merged[-1] = max(merged[-1], end)
            elif start < end:
                merged += start, end
        self._bounds = merged

    def remove(self, start: int, end: int) -> None:
        """Take the bytes from *start* up to *end* out of the set."""
        self._replace(start, end, inside=False)

    def _replace(self, start: int, end: int, *, inside: bool) -> None:
        if start >= end:
            return
        first, last = bisect_left(self._bounds, start), bisect_right(self._bounds, end)
        begins = [start] if (first % 2 == 1) is not inside else []
        ends = [end] if (last % 2 == 1) is not inside else []
        self._bounds[first:last] = begins + ends

    def within(self, start: int, end: int) -> Iterator[Range]:
        """Yield the parts of the set between *start* and *end*."""
        bounds = self._bounds
        for number in range(max(0, bisect_right(bounds, start) - 1) & ~1, len(bounds), 2):
            first, last = max(bounds[number], start), min(bounds[number + 1], end)
            if bounds[number] >= end:
                break
            if first < last:
                yield first, last

    def missing(self, start: int, end: int) -> Iterator[Range]:
        """Yield the bytes between *start* and *end* that are not in the set."""
        for first, last in self.within(start, end):
            if start < first:
                yield start, first
            start = last
        if start < end:
            yield start, end

    def cover(self, start: int, end: int) -> bool:
        """Return whether all bytes between *start* and *end* are in the set."""
        return next(self.missing(start, end), None) is None
