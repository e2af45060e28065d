"""How many files differ, by how many bytes, and in which directories."""

import stat
from collections import Counter
from typing import NamedTuple

from fusefs.layers.diff import Change, Difference
from fusefs.tree.node import Stat

_DEEPEST = 100
"""Directories of a path that are counted by themselves: paths of an image may be very deep."""


class Counts(NamedTuple):
    """Paths that differ."""

    added: int
    removed: int
    changed: int
    size: int
    """Bytes of regular files after, less those before; a file with several names counts once."""

    @property
    def paths(self) -> int:
        """How many paths differ."""
        return self.added + self.removed + self.changed


class Tally:
    """Counts differences as they come.  Takes memory for directories, and for files with several names."""

    def __init__(self, depth: int | None = None) -> None:
        """Count by directory, too, down to *depth* directories below the root; None: not by directory."""
        self._depth = depth
        self._changes: Counter[Change] = Counter()
        self._sizes: Counter[tuple[bytes, ...]] = Counter()
        self._by_directory: dict[tuple[bytes, ...], Counter[Change]] = {}
        self._size = 0
        self._seen: tuple[set[int], set[int]] = set(), set()

    def add(self, difference: Difference) -> None:
        """Count *difference*."""
        seen_before, seen_after = self._seen
        size = _size(difference.after, difference.new, seen_after)
        size -= _size(difference.before, difference.old, seen_before)
        self._changes[difference.change] += 1
        self._size += size
        if self._depth is not None:
            directory = difference.path[:-1][: min(self._depth, _DEEPEST)]
            self._by_directory.setdefault(directory, Counter())[difference.change] += 1
            self._sizes[directory] += size

    @property
    def total(self) -> Counts:
        """The counts of all differences."""
        return _counts(self._changes, self._size)

    @property
    def directories(self) -> list[tuple[tuple[bytes, ...], Counts]]:
        """The directories with their counts, by path."""
        return [(path, _counts(self._by_directory[path], self._sizes[path])) for path in sorted(self._by_directory)]


def _counts(changes: Counter[Change], size: int) -> Counts:
    return Counts(changes[Change.ADDED], changes[Change.REMOVED], changes[Change.CHANGED], size)


def _size(status: Stat | None, number: int | None, seen: set[int]) -> int:
    """Return the bytes of a regular file, 0 if another name of it was counted."""
    if status is None or number is None or not stat.S_ISREG(status.mode):
        return 0
    if status.nlink > 1:
        if number in seen:
            return 0
        seen.add(number)
    return status.size
