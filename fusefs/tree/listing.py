"""Listings of large directories."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import overload

LARGE = 2000
"""Directories of at least this many entries are large: listing them is slow, and objects take too much memory."""


class LongListing(Sequence[tuple[bytes, int]]):
    """The listing of a large directory, which stores numbers only and computes names on access."""

    def __init__(self, entries: Iterable[tuple[bytes, int, int]], name: Callable[[int], bytes]) -> None:
        """List *entries*: the name, a key from which *name* returns that name, and the number in the tree."""
        self._keys, self._numbers, self._name = array("Q"), array("Q"), name
        for _, key, number in entries:
            self._keys.append(key)
            self._numbers.append(number)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, position: int) -> tuple[bytes, int]: ...
    @overload
    def __getitem__(self, position: slice) -> "list[tuple[bytes, int]]": ...
    def __getitem__(self, position: int | slice) -> "tuple[bytes, int] | list[tuple[bytes, int]]":
        if isinstance(position, slice):
            return [self[index] for index in range(len(self))[position]]
        return self._name(self._keys[position]), self._numbers[position]
