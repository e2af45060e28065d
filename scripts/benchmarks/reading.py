"""Readers: sequential, at random places, and whole files; as a program, one that starts when told.

``reading.py BLOCK BEGIN END PATH`` opens PATH, prints a line, waits for one, reads, and prints when
it began and ended in seconds of the clock that all processes share.
"""

import os
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path

MIB = 1 << 20
PAGE = 4096


def read_range(path: str | Path, block: int, begin: int, end: int) -> tuple[float, float]:
    """Read the bytes from *begin* to *end* in pieces of *block*; return when that began and ended.

    Raises EOFError if the file is shorter.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _read(descriptor, block, begin, end)
    finally:
        os.close(descriptor)


def _read(descriptor: int, block: int, begin: int, end: int) -> tuple[float, float]:
    buffer = memoryview(bytearray(block))
    started = time.monotonic()
    at = begin
    while at < end:
        count = os.preadv(descriptor, [buffer[: min(block, end - at)]], at)
        if not count:
            raise EOFError
        at += count
    return started, time.monotonic()


def rate(path: str | Path, block: int, begin: int, end: int) -> float:
    """Return the bytes a second of reading from *begin* to *end*."""
    started, ended = read_range(path, block, begin, end)
    return (end - begin) / (ended - started)


def first_byte(path: str | Path) -> None:
    """Read one byte."""
    read_range(path, 1, 0, 1)


def random_pages(size: int, count: int, seed: int = 1) -> list[int]:
    """Return the offsets of at most *count* pages of a file of *size* bytes in random order, none twice."""
    pages = range(size // PAGE)
    return [PAGE * page for page in random.Random(seed).sample(pages, min(count, len(pages)))]  # noqa: S311 - no secret


def latencies(descriptor: int, offsets: Iterable[int]) -> list[float]:
    """Return the seconds that a read of one page took at each of *offsets*."""
    buffer = [bytearray(PAGE)]
    seconds = []
    for offset in offsets:
        started = time.perf_counter()
        os.preadv(descriptor, buffer, offset)
        seconds.append(time.perf_counter() - started)
    return seconds


def read_files(top: Path, names: Iterable[str]) -> tuple[float, int]:
    """Read each of the files *names* below *top* whole; return the seconds and how many bytes there were."""
    prefix, total, buffer = f"{top}/", 0, [bytearray(MIB)]
    started = time.monotonic()
    for name in names:
        descriptor = os.open(prefix + name, os.O_RDONLY)
        while count := os.readv(descriptor, buffer):
            total += count
        os.close(descriptor)
    return time.monotonic() - started, total


def main() -> None:
    """Read as the arguments say, when told."""
    block, begin, end = map(int, sys.argv[1:4])
    descriptor = os.open(sys.argv[4], os.O_RDONLY)
    print("ready", flush=True)
    sys.stdin.readline()
    print(*_read(descriptor, block, begin, end), flush=True)


if __name__ == "__main__":
    main()
