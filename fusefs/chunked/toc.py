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
_TAIL = 1 << 12
"""Characters at the end of a text in which the last object is searched."""
_SPACE = " \t\r\n"
_BLANK = re.compile(f"[{_SPACE}]*+")
_NEXT_OBJECT = re.compile(f"}}(?=[{_SPACE}]*+,[{_SPACE}]*+{{)")
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
        self._is_new = False
        """Whether `_objects` has not tried this text: once is enough, and each attempt looks at all of it."""

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

    def following(self) -> Iterator[Json]:
        """Take values that follow, each behind a comma, as many as were read so far.

        It is quicker than `value`, which takes those at whose beginning this ends.
        """
        yield from self._objects()
        text, scan, blank = self._text, self._scan, _BLANK.match
        try:
            while text.startswith(",", self._at) and (begin := blank(text, self._at + 1)):
                value, end = scan(text, begin.end())
                if end == len(text):  # a number may go on
                    return
                self._at = end
                yield value
        except (ValueError, RecursionError):
            return

    def _objects(self) -> list[Json]:
        """Take all values that follow, up to the last object that another one follows, with one scan.

        Take none if that fails: the values one by one tell the reason.
        """
        if not self._is_new:
            return []
        self._is_new = False
        begin, end = self._at, self._at
        for found in _NEXT_OBJECT.finditer(self._text, max(begin, len(self._text) - _TAIL)):
            end = found.end()
        if end == begin or not self._text.startswith(",", begin):
            return []
        text = f"[{self._text[begin + 1 : end]}]"
        try:
            values, scanned = self._scan(text)
        except (ValueError, RecursionError):
            return []
        if scanned != len(text):
            return []
        self._at = end
        return values  # type: ignore[no-any-return]

    def matching(self, pattern: re.Pattern[str]) -> Iterator[tuple[str | None, ...]]:
        """Take what *pattern* matches, as often as it does in what was read so far; yield its groups.

        What a caller stops at is not taken.
        """
        text, match = self._text, pattern.match
        while (found := match(text, self._at)) is not None:
            yield found.groups()
            self._at = found.end()

    def _more(self) -> bool:
        """Read the next piece, and forget what was taken; return whether there is more."""
        if self._ended:
            return False
        piece = next(self._pieces, None)
        self._ended = piece is None
        self._text = self._text[self._at :] + self._decode(piece or b"", self._ended)
        self._at = 0
        self._is_new = True
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
        self.name = name

    def entries(self) -> Iterator[dict[str, Json]]:
        """Yield the fields of each entry.  Raises Unusable if the text is not a table of contents."""
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

    def _items(self) -> Iterator[dict[str, Json]]:
        stream = self._json
        if stream.next() == "n":  # skopeo writes null for an empty layer
            stream.value()
            return
        stream.take("[")
        if stream.next() == "]":
            stream.take("]")
            return
        while True:
            for item in chain((stream.value(),), stream.following()):
                if not isinstance(item, dict):
                    raise stream.error()
                yield item
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
        value = self._fields.get(field) or ""
        if type(value) is not str:
            raise Unusable(f"{self._where} has a {field} that is not a string")
        return value

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
        value = self._fields.get(field)
        if not value:
            return {}
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise Unusable(f"{self._where} has {field} that are not strings")
        return value  # type: ignore[return-value]

    def sha256(self) -> bytes:
        """Return the digest of a piece; Unusable for another algorithm, and without one."""
        text = self.text("chunkDigest") or self.text("digest")
        try:
            digest = bytes.fromhex(text[7:]) if text.startswith("sha256:") else b""
        except ValueError:
            digest = b""
        if len(digest) != 32 or len(text) != 71:  # spaces between the digits are none
            raise Unusable(f"{self._where} has a piece without a SHA-256 digest")
        return digest
