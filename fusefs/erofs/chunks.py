"""Files whose data are not one run of whole blocks: a table says where each chunk is.

Chunks of one file have one size, a power of two of blocks.  A chunk that is not one run in a device, from a whole
block on, is copied into the metadata; a chunk without data is a hole.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fusefs.erofs.devices import Device, Devices
from fusefs.erofs.limits import MAX_CHUNK_BITS, MAX_TABLE, Unfit
from fusefs.erofs.ondisk import (
    BLOCK,
    BLOCK_BITS,
    CHUNK_BLOCK_SIZE,
    CHUNK_INDEX_SIZE,
    CHUNK_INDEXES,
    HOLE,
    pack_chunk_index,
)


class Run(NamedTuple):
    """Stored bytes of a file."""

    offset: int
    """In the file."""
    size: int
    device: Device
    at: int
    """Offset in the device."""


class _Spans(NamedTuple):
    """The chunks of one run, by number; the ends are not among them."""

    first: int
    first_whole: int
    """The first chunk that the run has all bytes of."""
    end_whole: int
    end: int


class ChunkTable:
    """Where the chunks of a file are."""

    def __init__(self, size: int, runs: Sequence[Run], devices: Devices) -> None:
        """Choose the size of chunks for which table and copies are smallest; Unfit if they are too large."""
        self._size = size
        self._runs = runs
        self._indexed = devices.indexed
        self.unit = CHUNK_INDEX_SIZE if devices.indexed else CHUNK_BLOCK_SIZE
        """Bytes of an entry."""
        self.cost = MAX_TABLE + 1
        """Bytes of the table and the copied chunks."""
        self._bits = 0
        for bits in range(MAX_CHUNK_BITS + 1):
            cost = self._cost(bits)
            if cost < self.cost:
                self.cost, self._bits = cost, bits
        if self.cost > MAX_TABLE:
            raise Unfit(f"a file of {size} bytes has holes, or begins inside of a block: EROFS cannot describe it")

    @property
    def union(self) -> int:
        """The union of the inode: size of the chunks and of the entries."""
        return self._bits | (CHUNK_INDEXES if self._indexed else 0)

    @property
    def count(self) -> int:
        """The number of chunks."""
        return _ceil(self._size, BLOCK << self._bits)

    def copied(self) -> Iterator[tuple[int, int]]:
        """Yield offset and size of each chunk that is copied, in order."""
        length = BLOCK << self._bits
        for number in self._copied(self._bits):
            yield number * length, min(length, self._size - number * length)

    def packed(self, base: int) -> bytes:
        """Return the entries; the copied chunks follow each other in the metadata from the block *base* on."""
        blocks = array("I", [HOLE]) * self.count
        numbers = array("H", [0]) * (self.count if self._indexed else 0)
        for run in self._runs:
            spans = self._spans(run, self._bits)
            whole = slice(spans.first_whole, spans.end_whole)
            block = (run.at - run.offset >> BLOCK_BITS) + (0 if self._indexed else run.device.start)
            chunks = range(block + (whole.start << self._bits), block + (whole.stop << self._bits), 1 << self._bits)
            blocks[whole] = array("I", chunks)
            if self._indexed:
                numbers[whole] = array("H", [run.device.number]) * len(chunks)
        for chunk in self._copied(self._bits):  # in the metadata, which are device 0
            blocks[chunk] = base
            base += 1 << self._bits
        if self._indexed:
            return b"".join(map(pack_chunk_index, numbers, blocks))
        return blocks.tobytes()

    def _cost(self, bits: int) -> int:
        """Return the size of table and copies with these chunks; less than that if it is not the smallest one."""
        cost = self.unit * _ceil(self._size, BLOCK << bits)
        for _ in self._copied(bits) if cost < self.cost else ():
            cost += BLOCK << bits
            if cost >= self.cost:
                break
        return cost

    def _copied(self, bits: int) -> Iterator[int]:
        """Yield the chunks that are copied, in order."""
        last = -1
        for run in self._runs:
            spans = self._spans(run, bits)
            for part in range(spans.first, spans.first_whole), range(spans.end_whole, spans.end):
                for chunk in range(max(part.start, last + 1), part.stop):
                    last = chunk
                    yield chunk

    def _spans(self, run: Run, bits: int) -> _Spans:
        length = BLOCK << bits
        stop = run.offset + run.size
        first, end = run.offset // length, _ceil(stop, length)
        if (run.at - run.offset) % BLOCK:
            return _Spans(first, end, end, end)
        first_whole, end_whole = _ceil(run.offset, length), stop // length
        if stop == self._size and _ceil(run.at + run.size, BLOCK) <= run.device.blocks:
            end_whole = end  # the last chunk may be shorter
        return _Spans(first, first_whole, max(first_whole, end_whole), end)


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)
