"""Writes the tree of a layer as a layer index."""

from array import array
from collections import deque
from typing import BinaryIO

from fusefs.layers.draft_nodes import DraftNode, Folder
from fusefs.layers.record import RECORDS, IndexHeader, pack_place

_PIECE = 1 << 18
"""Bytes that are written at once."""


class IndexWriter:
    """Writes records, breadth first.  In the heap the names follow the bytes that it already has."""

    def __init__(self, file: BinaryIO, heap: bytearray) -> None:
        """Write to *file*, from its beginning; names are added to *heap*."""
        self._file = file
        self._heap = heap
        self._piece = bytearray()
        """Records that are still to be written."""
        self._count = 0
        """Number of records so far."""
        self._room = 1
        """Number of records so far, and of those in all directories so far."""
        self._queue: deque[tuple[int, Folder]] = deque()
        """Directories whose children have no records yet, with their own records' numbers."""
        self._lower = array("I")

    def write(self, root: Folder, headers: "array[int]", sums: "array[int]") -> None:
        """Write a whole tree, which is emptied, and of each member its header's offset and CRC-32."""
        file, heap = self._file, self._heap
        file.write(bytes(RECORDS))
        self._add({b"": root}, 0)
        while self._queue:
            number, folder = self._queue.popleft()
            self._add(folder.children, number)
            folder.children.clear()
        file.write(self._piece)
        file.write(heap)
        for table in (headers, sums, self._lower):
            file.write(table)
        file.seek(0)
        file.write(IndexHeader.of(self._count, len(heap), len(headers), len(self._lower)).packed())
        file.flush()

    def _add(self, children: dict[bytes, DraftNode], directory: int) -> None:
        """Add the records of the *children* of a *directory*."""
        piece, heap, place = self._piece, self._heap, pack_place
        number = self._count
        for name in sorted(children):
            node = children[name]
            if isinstance(node, bytes):
                piece += place(len(heap), len(name), directory, 0, 0, number, 1) + node
            elif isinstance(node, Folder):
                size = len(node.children)
                piece += place(len(heap), len(name), directory, self._room, size, number, 1) + node.packed
                self._room += size
                self._queue.append((number, node))
            else:
                node.number = node.number or number  # 0 is the root, which has one name
                piece += place(len(heap), len(name), directory, 0, 0, node.number, node.names) + node.packed
                if node.lower:
                    self._lower.append(number)
            heap += name
            number += 1
            if len(piece) > _PIECE:
                self._file.write(piece)
                piece.clear()
        self._count = number
