"""The data of directories: blocks of entries, sorted by name, each block with its names behind its entries."""

from collections.abc import Iterable, Iterator

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


def with_dots(entries: Iterable[tuple[bytes, int, int]], own: int, parent: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield sorted *entries* (name, nid, mode) with ``.`` and ``..``, which the kernel finds in their order."""
    dots = [(DOTS, parent, 0o040000), (DOT, own, 0o040000)]
    for entry in entries:
        while dots and entry[0] > dots[-1][0]:
            yield dots.pop()
        yield entry
    while dots:
        yield dots.pop()


def packed(entries: Iterable[tuple[bytes, int, int]]) -> Iterator[bytes]:
    """Yield the blocks of a directory; the last one ends with its last name, so do the others but for zeros."""
    names: list[bytes] = []
    numbers: list[tuple[int, int]] = []
    used, last = 0, b""
    for name, nid, mode in entries:
        used += DIRENT_SIZE + len(name)
        if used > BLOCK:
            check_names(names, last)
            last = names[-1]
            yield _block(names, numbers)
            names, numbers = [], []
            used = DIRENT_SIZE + len(name)
        names.append(name)
        numbers.append((nid, _TYPES[mode >> 12]))
    check_names(names, last)
    yield _block(names, numbers)


def _block(names: list[bytes], numbers: list[tuple[int, int]]) -> bytes:
    offset = DIRENT_SIZE * len(names)
    entries = []
    for name, (nid, kind) in zip(names, numbers, strict=True):
        entries.append(pack_dirent(nid, offset, kind))
        offset += len(name)
    return b"".join(entries + names)
