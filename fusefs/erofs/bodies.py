"""The data of an inode: in blocks of a device, behind the inode, in blocks before it, or in chunks."""

from collections.abc import Iterator
from typing import NamedTuple

from fusefs.content.file import Sparse
from fusefs.content.protocol import Bytes, Content, Literal, chunks
from fusefs.erofs.chunks import ChunkTable, Run
from fusefs.erofs.devices import Devices
from fusefs.erofs.limits import Unfit
from fusefs.erofs.ondisk import BLOCK, CHUNK_BASED, FLAT_INLINE, FLAT_PLAIN, SLOT
from fusefs.erofs.stream import MAX_INLINE


class Piece(NamedTuple):
    """Bytes that are stored in the metadata."""

    content: Content
    offset: int
    size: int

    def chunks(self) -> Iterator[Bytes]:
        """Yield the bytes, a MiB at a time."""
        return chunks(self.content.slice(self.offset, self.size))


class Body(NamedTuple):
    """The data of an inode."""

    size: int = 0
    layout: int = FLAT_PLAIN
    union: int = 0
    """What the inode states: its first block in a device, its device number, or the size of its chunks."""
    blocks: tuple[Piece, ...] = ()
    """Stored in whole blocks before the inode; without a table they are the data."""
    tail: Piece | None = None
    """Stored behind the inode."""
    table: ChunkTable | None = None

    @property
    def block_count(self) -> int:
        """The number of whole blocks."""
        return sum(-(-piece.size // BLOCK) for piece in self.blocks)

    @property
    def tail_size(self) -> int:
        """Bytes behind the inode."""
        return self.tail.size if self.tail else 0


EMPTY = Body()


def stored(content: Content) -> Body:
    """Return the body of bytes that no device has: all of them are stored in the metadata."""
    piece = Piece(content, 0, content.size)
    if piece.size <= MAX_INLINE:
        return Body(piece.size, FLAT_INLINE, 0, tail=piece) if piece.size else EMPTY
    return Body(piece.size, FLAT_PLAIN, 0, blocks=(piece,))


def file_body(content: Content, head: int, devices: Devices) -> Body:
    """Return the body of a file; *head* are the bytes of the inode with its extended attributes.

    Raises Unfit if its bytes are neither in memory nor in a device.
    """
    if isinstance(content, Literal) or not content.size:
        return stored(content)
    if isinstance(content, Sparse):
        return _in_chunks(content, list(_runs(content, devices)), devices)
    place = content.file_place()
    if place is None:
        raise Unfit("the bytes of a file lie in no local file")
    run = Run(0, content.size, devices.of(place, content.size), place.offset)
    return _in_one_run(content, run, head, devices) or _in_chunks(content, [run], devices)


def _in_one_run(content: Content, run: Run, head: int, devices: Devices) -> Body | None:
    """Return the body without chunks, None if there has to be a chunk."""
    block, unaligned = divmod(run.at, BLOCK)
    tail = run.size % BLOCK
    whole = block + -(-run.size // BLOCK) <= run.device.blocks
    if unaligned or (whole and devices.indexed):
        return None
    start = run.device.start + block
    if whole:
        return Body(run.size, FLAT_PLAIN, start)
    # The last block is not whole: kernels may fail to read it, and loop devices do not have it.
    if head % SLOT + tail > BLOCK:
        return None
    return Body(run.size, FLAT_INLINE, start if run.size > tail else 0, tail=Piece(content, run.size - tail, tail))


def _runs(content: Sparse, devices: Devices) -> Iterator[Run]:
    for offset, run in content.runs():
        place = run.file_place()
        if place is None:
            raise Unfit("the bytes of a sparse file lie in no local file")
        yield Run(offset, run.size, devices.of(place, run.size), place.offset)


def _in_chunks(content: Content, runs: list[Run], devices: Devices) -> Body:
    table = ChunkTable(content.size, runs, devices)
    blocks = tuple(Piece(content, offset, length) for offset, length in table.copied())
    return Body(content.size, CHUNK_BASED, table.union, blocks, table=table)
