"""The lines that two texts have in common, in time and memory that hostile texts cannot raise.

Lines that occur once in both texts are matched first ("patience diff"), then the rest between them by the greedy
algorithm of Myers ("An O(ND) Difference Algorithm and Its Variations", 1986) with a limit: where two texts differ too
much, one replaces the other.  The time is in proportion to the lines; that of `difflib` is
not.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_MOST_EDITS = 1500
"""Lines added and removed between two lines that are matched; the memory is that of its square, in 4 bytes."""
_STEPS, _STEPS_A_LINE = 50_000, 50
"""Steps of the greedy search in two texts together: so many, and so many for each line."""


class Run(NamedTuple):
    """Lines that follow each other in both texts."""

    old: int
    """The first of them in each text; 0 is the first line."""
    new: int
    length: int


class _Budget:
    """What is left of the steps."""

    def __init__(self, lines: int) -> None:
        self.steps = _STEPS + _STEPS_A_LINE * lines


def common_runs(old: Sequence[bytes], new: Sequence[bytes]) -> Iterator[Run]:
    """Yield the runs of lines that *old* and *new* have in common, in their order; none is empty, none touch."""
    numbers: dict[bytes, int] = {}
    olds = [numbers.setdefault(line, len(numbers)) for line in old]
    news = [numbers.setdefault(line, len(numbers)) for line in new]
    budget = _Budget(len(old) + len(new))
    at_old = at_new = 0
    last = Run(0, 0, 0)
    for anchor_old, anchor_new in (*_anchors(olds, news), (len(olds), len(news))):
        found = [*_between(olds[at_old:anchor_old], news[at_new:anchor_new], budget)]
        runs = [Run(at_old + run.old, at_new + run.new, run.length) for run in found]
        if anchor_old < len(olds):
            runs.append(Run(anchor_old, anchor_new, 1))
        for run in runs:
            if run.old == last.old + last.length and run.new == last.new + last.length:
                last = Run(last.old, last.new, last.length + run.length)
                continue
            if last.length:
                yield last
            last = run
        at_old, at_new = anchor_old + 1, anchor_new + 1
    if last.length:
        yield last


def _anchors(old: Sequence[int], new: Sequence[int]) -> list[tuple[int, int]]:
    """Return places of lines that occur once in both texts: the most that are in the same order in both."""
    places = _once(old)
    pairs = sorted((places[line], at) for line, at in _once(new).items() if line in places)
    # The longest increasing subsequence: the least last place of each length, and the pair before each.
    lasts: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for number, (_, at) in enumerate(pairs):
        length = bisect_left(lasts, at)
        before.append(ends[length - 1] if length else -1)
        lasts[length : length + 1] = [at]
        ends[length : length + 1] = [number]
    chosen = []
    number = ends[-1] if ends else -1
    while number >= 0:
        chosen.append(pairs[number])
        number = before[number]
    return chosen[::-1]


def _once(lines: Sequence[int]) -> dict[int, int]:
    """Return the places of the lines that occur once."""
    places: dict[int, int] = {}
    for at, line in enumerate(lines):
        places[line] = -1 if line in places else at
    return {line: at for line, at in places.items() if at >= 0}


def _between(old: Sequence[int], new: Sequence[int], budget: _Budget) -> Iterator[Run]:
    """Yield the common runs of two texts between two anchors."""
    least = min(len(old), len(new))
    start = 0
    while start < least and old[start] == new[start]:
        start += 1
    end = 0
    while end < least - start and old[-1 - end] == new[-1 - end]:
        end += 1
    if start:
        yield Run(0, 0, start)
    middle = old[start : len(old) - end], new[start : len(new) - end]
    yield from (Run(start + run.old, start + run.new, run.length) for run in _greedy(*middle, budget))
    if end:
        yield Run(len(old) - end, len(new) - end, end)


def _greedy(old: Sequence[int], new: Sequence[int], budget: _Budget) -> list[Run]:
    """Return the common runs of the shortest way from *old* to *new*, none if that is too long."""
    if not old or not new:
        return []
    furthest = {1: 0}
    """On each diagonal (place in old less place in new), the furthest place in old that so many edits reach."""
    history: list[array[int]] = []
    for edits in range(min(_MOST_EDITS, len(old) + len(new)) + 1):
        for diagonal in range(-edits, edits + 1, 2):
            at = _begin(furthest, diagonal, edits)
            began = at
            while at < len(old) and at - diagonal < len(new) and old[at] == new[at - diagonal]:
                at += 1
            budget.steps -= 1 + at - began
            furthest[diagonal] = at
            if at >= len(old) and at - diagonal >= len(new):
                return _way_back(history, at, diagonal, edits)
        if budget.steps < 0:
            break
        history.append(array("i", (furthest[diagonal] for diagonal in range(-edits, edits + 1, 2))))
    return []


def _begin(furthest: dict[int, int], diagonal: int, edits: int) -> int:
    """Return where the last edit leads to on a *diagonal*: a line added, or a line removed."""
    if diagonal == -edits or (diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1]):
        return furthest[diagonal + 1]
    return furthest[diagonal - 1] + 1


def _way_back(history: Sequence["array[int]"], at: int, diagonal: int, edits: int) -> list[Run]:
    """Return the runs on the way that ends *at* a place on a *diagonal*."""
    runs = []
    for number in range(edits, -1, -1):
        if number == 0:
            began = 0
        else:
            reached = dict(zip(range(1 - number, number, 2), history[number - 1], strict=True))
            began = _begin(reached, diagonal, number)
        if at > began:
            runs.append(Run(began, began - diagonal, at - began))
        if number:
            came_down = diagonal == -number or (diagonal != number and reached[diagonal - 1] < reached[diagonal + 1])
            diagonal += 1 if came_down else -1
            at = began if came_down else began - 1
    return runs[::-1]
