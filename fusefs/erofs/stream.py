"""Where inodes go, and the file that they are written to."""

from typing import BinaryIO

from fusefs.content.protocol import Bytes
from fusefs.erofs.limits import MAX_BLOCKS, Unfit
from fusefs.erofs.ondisk import BLOCK, SLOT

MAX_INLINE = BLOCK - SLOT + 4
"""Bytes that can always be placed behind an inode: they may not cross a block's end, and begin at a word."""
_BUFFER = 1 << 20


class Cursor:
    """A position in the metadata, moved ahead as blocks and inodes are placed.

    An inode is its head (the structure, extended attributes, chunk table) and its *tail*, the inline data.  The
    blocks that belong to it come before it.
    """

    __slots__ = ("inodes", "position")

    def __init__(self, position: int) -> None:
        """Begin at *position*, in bytes."""
        self.position = position
        self.inodes = 0
        """How many were placed."""

    def blocks(self, count: int) -> int:
        """Place *count* blocks, and return the number of the first one."""
        first = -(-self.position // BLOCK)
        if count:
            self.advance((first + count) * BLOCK, 0)
        return first

    def inode(self, head: int, tail: int = 0) -> int:
        """Place an inode with *head* and *tail* bytes, and return its nid."""
        nid = self.next_nid
        begin = (nid * SLOT + head) % BLOCK
        if tail and begin + tail > BLOCK:
            nid += BLOCK // SLOT - begin // SLOT
        self.advance(nid * SLOT + head + tail, 1)
        return nid

    @property
    def next_nid(self) -> int:
        """The nid of the next inode if that has no tail and no blocks."""
        return -(-self.position // SLOT)

    def advance(self, position: int, inodes: int) -> None:
        """Move to *position*; so many *inodes* were placed before it."""
        self.position = position
        self.inodes += inodes
        if position > MAX_BLOCKS * BLOCK:
            raise Unfit(f"its metadata exceed {MAX_BLOCKS * BLOCK >> 30} GiB")


class Stream:
    """Writes a file from a position on, with zeros where nothing is put."""

    def __init__(self, out: BinaryIO) -> None:
        """Write to *out*, which is empty and can be positioned."""
        self._out = out
        self._buffer = bytearray()
        self._position = 0

    def seek(self, position: int) -> None:
        """Continue at *position*."""
        self.flush()
        self._out.seek(position)
        self._position = position

    def put(self, position: int, data: Bytes) -> None:
        """Put *data* at *position*, which is not before the end of what was put since `seek`."""
        gap = position - self._position - len(self._buffer)
        assert gap >= 0
        self._buffer += bytes(gap)
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered; OSError if that fails."""
        self._out.write(self._buffer)
        self._position += len(self._buffer)
        self._buffer.clear()
