"""The documents of a layer, remembered for the next time: then its names take no request."""

import struct

from fusefs.chunked.pieces import Ranges
from fusefs.content.protocol import Bytes

_HEADER = struct.Struct("<QQ")
"""Offset and size of a range; its bytes follow."""
_MOST = 32 << 20
"""Bytes that are remembered: documents of 300,000 files.  Larger ones are held in memory once, and asked for again."""


class RememberedRanges:
    """A blob some ranges of which may be known from the last time.  They are as unverified as those of the blob.

    For use by one thread until `forget`.
    """

    def __init__(self, blob: Ranges, known: bytes) -> None:
        """*known* is what `packed` returned the last time, or nothing."""
        self.size = blob.size
        self._blob = blob
        self._known: list[tuple[int, bytes]] = []
        self._asked: list[tuple[int, bytes]] = []
        self._remembers = True
        at = 0
        while at + _HEADER.size <= len(known):
            offset, size = _HEADER.unpack_from(known, at)
            at += _HEADER.size
            self._known.append((offset, known[at : at + size]))
            at += size

    def unverified_range(self, offset: int, size: int) -> Bytes:
        """Return a range, if possible one that is known."""
        for start, data in self._known:
            if start <= offset and offset + size <= start + len(data):
                return data[offset - start : offset - start + size]
        found = self._blob.unverified_range(offset, size)
        if self._remembers:
            self._asked.append((offset, bytes(found)))
            if sum(len(data) for _, data in self._asked) > _MOST:
                self.forget()
        return found

    def drop_range(self, offset: int, size: int) -> None:
        """Forget all that is known, and let the blob fetch the range again."""
        self._known.clear()
        self._asked.clear()
        self._blob.drop_range(offset, size)

    def packed(self) -> bytes:
        """Return what was asked of the blob, for the next time; empty if everything was known."""
        return b"".join(_HEADER.pack(offset, len(data)) + data for offset, data in self._asked)

    def forget(self) -> None:
        """Forget all, and remember no more: what follows are pieces."""
        self._known, self._asked, self._remembers = [], [], False
