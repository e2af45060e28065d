"""A window over a file."""

import pytest

from fusefs.content.window import Window
from tests.support.builders import Memory

DATA = bytes(range(256)) * 4096


def test_what_is_asked_for_is_there_wherever_the_window_was() -> None:
    window = Window(Memory(DATA))
    for offset, least in [(0, 512), (512, 512), (100_000, 512), (99_999, 1), (5, 200_000), (1 << 20, 0), (0, 1 << 20)]:
        assert window.reach(offset, least)
        at = offset - window.start
        assert window.data[at : at + least] == DATA[offset : offset + least]


def test_what_lies_behind_the_end_is_not_there() -> None:
    window = Window(Memory(DATA))
    assert [window.reach(len(DATA) - 512, least) for least in (512, 513)] == [True, False]
    assert not window.reach(len(DATA), 1)
    assert window.reach(0, 512)


@pytest.mark.parametrize("error", [OSError("no"), OverflowError("no")])
def test_what_cannot_be_read_is_not_there(error: Exception) -> None:
    class Broken(Memory):
        def read_at(self, offset: int, size: int) -> bytes:
            if offset:
                raise error
            return super().read_at(offset, size)

    window = Window(Broken(DATA))
    assert [window.reach(offset, 512) for offset in (0, 1 << 19, 0)] == [True, False, True]


def test_neighbours_come_with_few_reads_and_what_is_passed_over_is_not_read() -> None:
    dense, loose = Memory(DATA), Memory(DATA)
    window = Window(dense)
    assert all(window.reach(offset, 512) for offset in range(0, len(DATA), 512))
    assert dense.reads < 25
    window = Window(loose)
    assert all(window.reach(offset, 512) for offset in range(0, len(DATA), 1 << 17))
    assert loose.bytes_read <= 8 * 4096
