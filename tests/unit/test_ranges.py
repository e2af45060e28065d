"""A set of bytes as ranges."""

import random
from itertools import pairwise

from fusefs.ranges import Ranges


def test_a_set_of_ranges_is_a_set_of_bytes() -> None:
    draw = random.Random(1)
    for _ in range(300):
        ranges, expected = Ranges(), set[int]()
        for _ in range(draw.randrange(12)):
            start, end = sorted(draw.choices(range(30), k=2))
            if draw.random() < 0.1:
                many = [
                    (start, end) for start in range(0, 30, draw.randrange(2, 5)) if (end := start + draw.randrange(3))
                ]
                ranges.add_all(many * 2)
                expected |= {byte for start, end in many for byte in range(start, end)}
            elif draw.random() < 0.7:
                ranges.add(start, end)
                expected |= {*range(start, end)}
            else:
                ranges.remove(start, end)
                expected -= {*range(start, end)}
        listed = [*ranges]
        assert {byte for start, end in listed for byte in range(start, end)} == expected
        assert ranges.total == len(expected) == sum(end - start for start, end in listed)
        assert all(before[1] < after[0] for before, after in pairwise(listed))
        assert [*Ranges(reversed(listed))] == listed
        start, end = sorted(draw.choices(range(32), k=2))
        asked = {*range(start, end)}
        for found, wanted in ((ranges.within, asked & expected), (ranges.missing, asked - expected)):
            parts = [*found(start, end)]
            assert {byte for first, last in parts for byte in range(first, last)} == wanted
            assert all(first < last for first, last in parts)
        assert ranges.cover(start, end) is (asked <= expected)
        assert bool(ranges) is bool(expected)
