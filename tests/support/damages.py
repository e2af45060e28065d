"""Damage to an archive: what a byte, a cut or a lost block does to it."""

from collections.abc import Callable

from fusefs.tar.header import BLOCK, is_header
from tests.support.builders import resealed

Damage = Callable[[bytes, int, int], bytes]
"""Takes an archive and two numbers, returns what is left of it."""


def _flipped(data: bytes, place: int, value: int) -> bytes:
    return data[: place % len(data)] + bytes([value % 256]) + data[place % len(data) + 1 :]


def _cut(data: bytes, place: int, _: int) -> bytes:
    return data[: place % len(data)]


def _block_lost(data: bytes, place: int, count: int) -> bytes:
    start = place % len(data) // BLOCK * BLOCK
    return data[:start] + data[start + BLOCK * (1 + count % 4) :]


def _block_moved(data: bytes, place: int, target: int) -> bytes:
    start = place % len(data) // BLOCK * BLOCK
    to = target % len(data) // BLOCK * BLOCK
    return data[:to] + data[start : start + BLOCK] + data[to:]


def _zeroed(data: bytes, place: int, count: int) -> bytes:
    start = place % len(data)
    end = min(len(data), start + count % 3000)
    return data[:start] + bytes(end - start) + data[end:]


def _header_changed(data: bytes, place: int, value: int) -> bytes:
    """Change a byte of a header and make its checksum right again."""
    headers = [start for start in range(0, len(data) - BLOCK + 1, BLOCK) if is_header(data[start : start + BLOCK])]
    if not headers:
        return data
    start = headers[place % len(headers)]
    # Mostly where sizes and types are.
    field = (*range(124, 136), 156, *range(BLOCK))[value % (13 + BLOCK)]
    block = resealed(data[start : start + BLOCK], field, bytes([value >> 10 & 0xFF]))
    return data[:start] + block + data[start + BLOCK :]


DAMAGES: list[Damage] = [
    _flipped,
    _cut,
    _block_lost,
    _block_moved,
    _zeroed,
    _header_changed,
]
