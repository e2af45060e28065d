"""Lines that two texts have in common: right, the most where that is cheap, and never dear."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from fusefs.comparison.matching import common_runs

LINES = st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=12)


def _matched(old: Sequence[bytes], new: Sequence[bytes]) -> int:
    """Return how many lines are matched, after a check of each run."""
    at_old = at_new = -1
    count = 0
    for run in common_runs(old, new):
        assert run.length > 0
        assert run.old >= at_old
        assert run.new >= at_new
        assert (run.old, run.new) != (at_old, at_new)
        assert old[run.old : run.old + run.length] == new[run.new : run.new + run.length]
        at_old, at_new = run.old + run.length, run.new + run.length
        count += run.length
    assert at_old <= len(old)
    assert at_new <= len(new)
    return count


@given(LINES, LINES)
def test_runs_are_of_both_texts_and_in_order(old: list[bytes], new: list[bytes]) -> None:
    _matched(old, new)


@given(LINES, LINES)
def test_without_lines_that_occur_once_the_most_lines_are_matched(old: list[bytes], new: list[bytes]) -> None:
    old, new = old * 2, new * 2
    longest = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, line in enumerate(old):
        for j, other in enumerate(new):
            longest[i + 1][j + 1] = longest[i][j] + 1 if line == other else max(longest[i][j + 1], longest[i + 1][j])
    assert _matched(old, new) == longest[-1][-1]


def test_one_line_of_many_is_all_that_differs() -> None:
    old = [b"%d" % (number % 50) for number in range(20_000)]
    new = [*old[:9000], b"new", *old[9001:]]
    assert _matched(old, new) == len(old) - 1


def test_texts_made_to_take_long_replace_each_other() -> None:
    # Each line occurs often in both, and everywhere: the worst case of a search for the shortest way.
    old = [b"%d" % (number * 7919 % 97) for number in range(40_000)]
    new = [b"%d" % (number * 104_729 % 89) for number in range(40_000)]
    assert _matched(old, new) < len(old)
    # Lines that occur once, in the opposite order.
    once = [b"%d" % number for number in range(50_000)]
    assert _matched(once, once[::-1]) == 1
