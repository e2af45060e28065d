"""The table of contents of a layer, read entry by entry: it may be as large as the limit, and its memory is bounded.

Both formats have the same one, by the CRFS project: ``{"version": 1, "entries": [{"name": …, "type": …}, …]}``.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from fusefs.oci.untrusted_json import Json

LIMIT = 150 << 20
"""Bytes of a table of contents and of a tar-split, plain; containers/storage has the same limit."""
MAX_PIECE = 16 << 20
"""Bytes of a piece, plain: readers hold it in memory.  Builders make pieces of 64 KiB and 4 MiB by default."""
MAX_TAR = 1 << 43
"""Bytes of a plain tar: the file with holes must be possible in any file system."""
_MAX_ENTRY = 1 << 20
"""Characters of one entry."""
_AHEAD = 1 << 16
"""Characters that are there before a value is read, so that few are cut off."""
_SPACE = " \t\r\n"
_BLANK = re.compile(f"[{_SPACE}]*+")
_MAX_NUMBER = 1 << 62
_MAX_FIELDS = 100
_KNOWN = frozenset({"version", "tarSplitDigest"})
"""Fields of a table of contents, besides the entries, that say something."""


class Unusable(Exception):
    """A layer cannot be read piece by piece, or does not have what its documents say.  It is fetched whole."""


class JsonStream:
    """JSON text that arrives in pieces, read value by value."""

    def __init__(self, pieces: Iterable[bytes], name: str, max_value: int = _MAX_ENTRY) -> None:
        """*name* is that of the document in messages; a value has at most *max_value* characters."""
        self._pieces = iter(pieces)
        self._name = name
        self._max_value = max_value
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._scan = json.JSONDecoder(parse_constant=self._refuse).raw_decode
        self._text = ""
        self._at = 0
        self._ended = False

    def next(self) -> str:
        """Return the next character that is not white space, without taking it; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, expected: str) -> None:
        """Take the character *expected*."""
        if self.next() != expected:
            raise self.error()
        self._at += 1

    def value(self) -> Json:
        """Take a value."""
        self.next()
        wanted = _AHEAD
        while True:
            while len(self._text) - self._at < wanted and self._more():
                pass
            try:
                value, end = self._scan(self._text, self._at)
            except RecursionError:
                raise Unusable(f"{self._name} is nested too deeply") from None
            except ValueError:
                if self._ended or len(self._text) - self._at > self._max_value:
                    raise self.error() from None
            else:
                if end < len(self._text) or self._ended:  # a number that ends with the text may go on
                    self._at = end
                    return value  # type: ignore[no-any-return]
            wanted = 2 * (len(self._text) - self._at)

    def following(self, separator: str) -> Iterator[Json]:
        """Take values that follow, each behind the character *separator*, as many as were read so far.

        It is quicker than `value`, which takes those at whose beginning this ends.
        """
        text, scan, blank = self._text, self._scan, _BLANK.match
        try:
            while text.startswith(separator, self._at) and (begin := blank(text, self._at + 1)):
                value, end = scan(text, begin.end())
                if end == len(text):  # a number may go on
                    return
                self._at = end
                yield value
        except (ValueError, RecursionError):
            return

    def _more(self) -> bool:
        """Read the next piece, and forget what was taken; return whether there is more."""
        if self._ended:
            return False
        piece = next(self._pieces, None)
        self._ended = piece is None
        self._text = self._text[self._at :] + self._decode(piece or b"", self._ended)
        self._at = 0
        return True

    def error(self) -> Unusable:
        """Return the error for text that is not the expected JSON."""
        return Unusable(f"{self._name} is not the JSON that is expected")

    def _refuse(self, constant: str) -> Json:
        raise ValueError(constant)


class Toc:
    """A table of contents: its entries in order; then its other fields are known."""

    def __init__(self, pieces: Iterable[bytes], name: str) -> None:
        self.fields: dict[str, Json] = {}
        """The other fields, complete after the last entry; the list of entries is None, and so is an unknown field."""
        self._json = JsonStream(pieces, name)
        self._name = name

    def entries(self) -> Iterator["Entry"]:
        """Yield the entries.  Raises Unusable if the text is not a table of contents."""
        stream = self._json
        stream.take("{")
        while stream.next() != "}":
            key = stream.value()
            stream.take(":")
            if not isinstance(key, str) or key in self.fields or len(self.fields) > _MAX_FIELDS:
                raise stream.error()
            self.fields[key] = None
            if key == "entries":
                yield from self._items()
            else:
                value = stream.value()
                self.fields[key] = value if key in _KNOWN else None
            if stream.next() == ",":
                stream.take(",")
        stream.take("}")
        if stream.next() or "entries" not in self.fields:
            raise stream.error()

    def _items(self) -> Iterator["Entry"]:
        stream = self._json
        stream.take("[")
        if stream.next() == "]":
            stream.take("]")
            return
        while True:
            for item in chain((stream.value(),), stream.following(",")):
                if not isinstance(item, dict):
                    raise stream.error()
                yield Entry(item, self._name)
            if stream.next() == "]":
                stream.take("]")
                return
            stream.take(",")


class Entry:
    """An entry of a table of contents."""

    __slots__ = ("_fields", "_where")

    def __init__(self, fields: Mapping[str, Json], where: str) -> None:
        self._fields = fields
        self._where = where

    def text(self, field: str) -> str:
        """Return a field that is a string, empty if it is missing."""
        value = self._fields.get(field, "")
        if type(value) is str:
            return value
        if value:
            raise Unusable(f"{self._where} has a {field} that is not a string")
        return ""

    def path(self, field: str) -> bytes:
        """Return a name or a link as it is in the tar; Unusable if JSON cannot say it."""
        text = self.text(field)
        if "\ufffd" in text or "\0" in text:
            raise Unusable(f"{self._where} has a {field} that is not UTF-8")
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise Unusable(f"{self._where} has a {field} that is not UTF-8") from None

    def number(self, field: str) -> int:
        """Return a field that is a number of bytes or an ID, 0 if it is missing."""
        value = self._fields.get(field) or 0
        if type(value) is not int or not 0 <= value < _MAX_NUMBER:
            raise Unusable(f"{self._where} has a {field} that is not a number")
        return value

    def texts(self, field: str) -> Mapping[str, str]:
        """Return a field that is an object of strings, empty if it is missing."""
        value = self._fields.get(field) or {}
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise Unusable(f"{self._where} has {field} that are not strings")
        return value  # type: ignore[return-value]

    def sha256(self, *fields: str) -> bytes:
        """Return the digest in the first of *fields* that is there; Unusable for another algorithm, and without one."""
        text = ""
        for field in fields:
            text = text or self.text(field)
        try:
            digest = bytes.fromhex(text[7:]) if text.startswith("sha256:") else b""
        except ValueError:
            digest = b""
        if len(digest) != 32 or len(text) != 71:  # spaces between the digits are none
            raise Unusable(f"{self._where} has a piece without a SHA-256 digest")
        return digest
