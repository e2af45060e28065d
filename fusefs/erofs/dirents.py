"""The data of directories: blocks of entries, sorted by name, each block with its names behind its entries."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from fusefs.erofs.limits import check_names
from fusefs.erofs.ondisk import BLOCK, DIRENT_SIZE, FILE_TYPES, pack_dirent

DOT, DOTS = b".", b".."
_TYPES = [FILE_TYPES.get(number << 12, 0) for number in range(16)]
"""Types of directory entries by the upper bits of st_mode."""


def size_of(lengths: Iterable[int]) -> int:
    """Return the size in bytes of a directory with names of these *lengths*, ``.`` and ``..`` among them."""
    blocks = used = 0
    for length in lengths:
        used += DIRENT_SIZE + length
        if used > BLOCK:
            blocks += 1
            used = DIRENT_SIZE + length
    return blocks * BLOCK + used


def packed(entries: Iterable[tuple[bytes, int, int]]) -> Iterator[bytes]:
    """Yield the blocks of a directory; the last one ends with its last name, so do the others but for zeros.

    *entries* are name, nid and st_mode of each, sorted, ``.`` and ``..`` among them.
    """
    names: list[bytes] = []
    nids: list[int] = []
    modes: list[int] = []
    used, last = 0, b""
    for name, nid, mode in entries:
        used += DIRENT_SIZE + len(name)
        if used > BLOCK:
            check_names(names, last)
            yield _block(names, nids, modes)
            used, last = DIRENT_SIZE + len(name), names[-1]
            names, nids, modes = [], [], []
        names.append(name)
        nids.append(nid)
        modes.append(mode)
    check_names(names, last)
    yield _block(names, nids, modes)


def _block(names: list[bytes], nids: list[int], modes: list[int]) -> bytes:
    offsets = accumulate(map(len, names), initial=DIRENT_SIZE * len(names))
    return b"".join([*map(pack_dirent, nids, offsets, [_TYPES[mode >> 12] for mode in modes]), *names])
