"""tar-split: all bytes of a tar that are not those of files, with the places of these (github.com/vbatts/tar-split).

A line is a segment of raw bytes, or a file of *size* bytes, which follow the segments before it.
"""

import base64
import binascii
from array import array
from collections.abc import Iterable

from fusefs.chunked.pieces import write_at
from fusefs.chunked.toc import MAX_TAR, JsonStream, Unusable
from fusefs.content.file import OpenFile

_FILE, _SEGMENT = 1, 2
_MAX_LINE = 4 << 20


class TarSplit:
    """The tar with holes that a tar-split describes, in a file."""

    def __init__(self, pieces: Iterable[bytes], file: OpenFile, name: str) -> None:
        """Write all segments of *pieces* into *file*, at their places.  Raises Unusable, and NoSpace."""
        self.offsets, self.sizes = array("Q"), array("Q")
        """Offset and size of each member's data, in order."""
        self.size = 0
        """Of the tar."""
        lines = JsonStream(pieces, name, _MAX_LINE)
        while lines.next():
            line = lines.value()
            if not isinstance(line, dict):
                raise lines.error()
            kind, payload, size = line.get("type"), line.get("payload"), line.get("size", 0)
            if kind == _SEGMENT and isinstance(payload, str):
                self._segment(file, payload, lines)
            elif kind == _FILE and type(size) is int and 0 <= size <= MAX_TAR:
                self.offsets.append(self.size)
                self.sizes.append(size)
                self.size += size
            else:
                raise lines.error()
            if self.size > MAX_TAR:
                raise Unusable(f"{name} describes a tar of more than {MAX_TAR} bytes")

    def _segment(self, file: OpenFile, payload: str, lines: JsonStream) -> None:
        try:
            data = base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError):
            raise lines.error() from None
        write_at(file, self.size, data)
        self.size += len(data)
