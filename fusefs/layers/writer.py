"""How a layer's tree becomes an index file."""

from array import array
from collections import deque
from typing import BinaryIO

from fusefs.layers.draft_tree import Folder, Found
from fusefs.layers.record import HEADER, MAGIC, PLACE, RECORD

_PIECE = 1 << 18
"""Bytes that are written at once."""


class IndexFile:
    """An index file in the making: records, breadth first.  In the heap the names follow what was there before."""

    def __init__(self, file: BinaryIO, heap: bytearray) -> None:
        """Write to *file*, from its beginning; *heap* is added to."""
        self._file = file
        self._heap = heap
        self._piece = bytearray()
        """Records that are still to be written."""
        self._count = 0
        """How many there are so far."""
        self._room = 1
        """How many there are with the entries of all directories so far."""
        self._queue: deque[tuple[int, Folder]] = deque()
        """Directories whose entries are still to come, with their records."""
        self._lower = array("I")

    def write(self, root: Folder, headers: "array[int]", sums: "array[int]") -> None:
        """Write all of a tree, which is emptied, and of each member its header's offset and CRC-32."""
        file, heap = self._file, self._heap
        file.write(bytes(HEADER.size))
        self._add({b"": root}, 0)
        while self._queue:
            record, folder = self._queue.popleft()
            self._add(folder.entries, record)
            folder.entries.clear()
        file.write(self._piece)
        file.write(heap)
        for table in (headers, sums, self._lower):
            file.write(table)
        start = HEADER.size + self._count * RECORD.size
        tables = start + len(heap)
        size = tables + (8 + 4) * len(headers) + 4 * len(self._lower)
        file.seek(0)
        file.write(HEADER.pack(MAGIC, size, self._count, start, tables, len(headers), len(self._lower)))
        file.flush()

    def _add(self, entries: dict[bytes, Found], directory: int) -> None:
        """Add the records of the *entries* of a *directory*."""
        piece, heap, place = self._piece, self._heap, PLACE.pack
        record = self._count
        for name in sorted(entries):
            found = entries[name]
            if isinstance(found, bytes):
                piece += place(len(heap), len(name), directory, 0, 0, record, 1) + found
            elif isinstance(found, Folder):
                below = len(found.entries)
                piece += place(len(heap), len(name), directory, self._room, below, record, 1) + found.about
                self._room += below
                self._queue.append((record, found))
            else:
                found.record = found.record or record  # the root is none
                piece += place(len(heap), len(name), directory, 0, 0, found.record, found.names) + found.about
                if found.lower:
                    self._lower.append(record)
            heap += name
            record += 1
            if len(piece) > _PIECE:
                self._file.write(piece)
                piece.clear()
        self._count = record
