"""The bounds of all that an image chooses: just below, at, and just above."""

from collections.abc import Callable
from stat import S_IFREG

import pytest

from fusefs.erofs import limits
from fusefs.erofs.limits import (
    Unfit,
    check_device_number,
    check_extent,
    check_inode,
    check_names,
    check_target,
    check_time,
)
from fusefs.erofs.stream import Cursor
from fusefs.errors import Unsupported

_ID = (1 << 32) - 1
_SIZE = (1 << 63) - 1
_TIME = 1 << 62

_CASES: list[tuple[Callable[..., None], tuple[object, ...], bool]] = [
    *((check_inode, (kind << 12, 1, 0, 0, 0), kind in {1, 2, 4, 6, 8, 10, 12}) for kind in range(17)),
    *((check_inode, (S_IFREG, nlink, 0, 0, 0), 0 < nlink <= _ID) for nlink in (-1, 0, 1, _ID, _ID + 1)),
    *((check_inode, (S_IFREG, 1, uid, 0, 0), 0 <= uid <= _ID) for uid in (-1, 0, 65_536, _ID, _ID + 1)),
    *((check_inode, (S_IFREG, 1, 0, gid, 0), 0 <= gid <= _ID) for gid in (-1, 0, 65_536, _ID, _ID + 1)),
    *((check_inode, (S_IFREG, 1, 0, 0, size), 0 <= size <= _SIZE) for size in (-1, 0, _SIZE, _SIZE + 1)),
    *((check_time, (seconds, 0), abs(seconds) <= _TIME) for seconds in (-_TIME - 1, -_TIME, _TIME, _TIME + 1)),
    *((check_time, (0, ns), 0 <= ns < 10**9) for ns in (-1, 0, 10**9 - 1, 10**9)),
    *((check_device_number, (major, 0), 0 <= major < 4096) for major in (-1, 0, 4095, 4096)),
    *((check_device_number, (0, minor), 0 <= minor < 1 << 20) for minor in (-1, 0, (1 << 20) - 1, 1 << 20)),
    *((check_target, (b"x" * size,), 0 < size <= 4095) for size in (0, 1, 4095, 4096)),
    (check_target, (b"a\0b",), False),
    *((check_names, ([b"x" * size], b""), 0 < size <= 255) for size in (0, 1, 255, 256)),
    *((check_names, ([name], b"m"), name > b"m") for name in (b"l", b"m", b"m\x01", b"n")),
    *((check_extent, extent, fits) for extent, fits in (((0, 0, 0), True), ((0, 1, 0), False), ((1, 0, 0), False))),
    *((check_extent, (offset, 5, 10), 0 <= offset <= 5) for offset in (-1, 0, 5, 6)),
    (check_extent, (5, -1, 10), False),
]


@pytest.mark.parametrize(("check", "arguments", "fits"), _CASES)
def test_numbers_and_names_up_to_their_bounds(
    check: Callable[..., None], arguments: tuple[object, ...], *, fits: bool
) -> None:
    if fits:
        check(*arguments)
        return
    with pytest.raises(Unfit):
        check(*arguments)


def test_metadata_have_at_most_8_gibibytes() -> None:
    cursor = Cursor((8 << 30) - 64)
    assert cursor.place(64) == (((8 << 30) - 64) // 32, 1 << 24)
    with pytest.raises(Unfit, match="8 GiB"):
        cursor.place(1)


def test_every_nid_has_room_in_32_bits() -> None:
    assert limits.MAX_BLOCKS * 512 // 32 < 1 << 32


def test_what_does_not_fit_is_something_that_is_not_supported() -> None:
    assert issubclass(Unfit, Unsupported)
