"""tar-split: all bytes of a tar that are not those of files, with the places of these (github.com/vbatts/tar-split).

A line is a segment of raw bytes, or a file of *size* bytes, which follow the segments before it.
"""

import binascii
from array import array
from collections.abc import Iterable
from itertools import chain

from fusefs.chunked.pieces import write_at
from fusefs.chunked.toc import MAX_TAR, JsonStream, Unusable
from fusefs.content.file import OpenFile
from fusefs.oci.untrusted_json import Json

_FILE, _SEGMENT = 1, 2
_MAX_LINE = 4 << 20
_MAX_HELD = 1 << 20


class TarSplit:
    """The tar with holes that a tar-split describes, in a file."""

    def __init__(self, pieces: Iterable[bytes], file: OpenFile, name: str) -> None:
        """Write all segments of *pieces* into *file*, at their places.  Raises Unusable, and NoSpace."""
        self.offsets, self.sizes = array("Q"), array("Q")
        """Offset and size of each member's data, in order."""
        self.size = 0
        """Of the tar."""
        self._file, self._name = file, name
        self._held: list[bytes] = []
        """Segments one behind the other that are not in the file yet, and how many bytes they have."""
        self._held_size = 0
        lines = JsonStream(pieces, name, _MAX_LINE)
        while lines.next():
            for line in chain((lines.value(),), lines.following("\n")):
                self._take(line)
        self._write()

    def _take(self, line: Json) -> None:
        fields = line if isinstance(line, dict) else {}
        kind, payload, size = fields.get("type"), fields.get("payload"), fields.get("size", 0)
        if kind == _SEGMENT and isinstance(payload, str):
            self._segment(payload)
        elif kind == _FILE and type(size) is int and 0 <= size <= MAX_TAR:
            if size:
                self._write()
            self.offsets.append(self.size)
            self.sizes.append(size)
            self.size += size
        else:
            raise self._error()
        if self.size > MAX_TAR:
            raise Unusable(f"{self._name} describes a tar of more than {MAX_TAR} bytes")

    def _segment(self, payload: str) -> None:
        try:
            data = binascii.a2b_base64(payload, strict_mode=True)
        except ValueError:
            raise self._error() from None
        self._held.append(data)
        self._held_size += len(data)
        self.size += len(data)
        if self._held_size > _MAX_HELD:
            self._write()

    def _write(self) -> None:
        write_at(self._file, self.size - self._held_size, b"".join(self._held))
        self._held.clear()
        self._held_size = 0

    def _error(self) -> Unusable:
        return Unusable(f"{self._name} is not the JSON that is expected")
