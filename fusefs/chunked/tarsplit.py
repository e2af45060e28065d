"""tar-split: all bytes of a tar that are not those of files, with the places of these (github.com/vbatts/tar-split).

A line is a segment of raw bytes, or a file of *size* bytes, which follow the segments before it.
"""

import re
from array import array
from binascii import a2b_base64
from collections.abc import Iterable

from fusefs.chunked.headers import Headers
from fusefs.chunked.toc import MAX_TAR, JsonStream, Unusable
from fusefs.oci.untrusted_json import Json

_FILE, _SEGMENT = 1, 2
_MAX_LINE = 4 << 20
_NUMBER, _SIZE = r"(?:0|[1-9][0-9]{0,17})", r"(?:0|[1-9][0-9]{0,11})"
_STRING = r'"[^"\\\x00-\x1f]*+"'
_END = rf',"position":{_NUMBER}\}}(?=\n)'
_LINES = re.compile(
    rf"""\n\{{"type":2,"payload":"([^"]*+)"{_END}"""
    rf"""(\n\{{"type":1,"name":{_STRING},(?:"size":({_SIZE}),)?"payload":(?:null|{_STRING}){_END})?"""
)
"""Further lines as builders write them: the payload of a segment; a file, its size."""


class TarSplit:
    """The tar with holes that a tar-split describes."""

    def __init__(self, pieces: Iterable[bytes], headers: Headers, name: str) -> None:
        """Give all segments of *pieces* to *headers*.  Raises Unusable, and NoSpace."""
        self.offsets, self.sizes = array("Q"), array("Q")
        """Offset and size of each member's data, in order."""
        self._headers, self._name = headers, name
        lines = JsonStream(pieces, name, _MAX_LINE)
        while lines.next():
            self._take(lines.value())
            for payload, file, size in lines.matching(_LINES):
                try:
                    headers.add(a2b_base64(payload or "", strict_mode=True))
                    self._check_size()
                except ValueError:  # it has escapes, for example
                    break
                if file is not None:
                    self._file(int(size or 0))

    def _take(self, line: Json) -> None:
        fields = line if isinstance(line, dict) else {}
        kind, payload, size = fields.get("type"), fields.get("payload"), fields.get("size", 0)
        if kind == _SEGMENT and isinstance(payload, str):
            self._segment(payload)
        elif kind == _FILE and type(size) is int and 0 <= size <= MAX_TAR:
            self._file(size)
        else:
            raise self._error()

    def _segment(self, payload: str) -> None:
        try:
            data = a2b_base64(payload, strict_mode=True)
        except ValueError:
            raise self._error() from None
        self._headers.add(data)
        self._check_size()

    def _file(self, size: int) -> None:
        self.offsets.append(self._headers.size)
        self.sizes.append(size)
        self._headers.skip(size)
        self._check_size()

    def _check_size(self) -> None:
        if self._headers.size > MAX_TAR:
            raise Unusable(f"{self._name} describes a tar of more than {MAX_TAR} bytes")

    def _error(self) -> Unusable:
        return Unusable(f"{self._name} is not the JSON that is expected")
