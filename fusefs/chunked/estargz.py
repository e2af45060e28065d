"""eStargz: each chunk of a file is a gzip member of its own, and the last file is a table of contents.

An annotation of the layer's descriptor states the SHA-256 of the table's JSON.  The footer, an empty gzip member at the
end of the blob, tells where the table begins (stargz-snapshotter, docs/estargz.md).  The table lists the members of
the tar but itself.  It does not have their headers: those of the tar shown here are made from it.
"""

import base64
import binascii
import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from fusefs.chunked.annotations import ESTARGZ_TOC
from fusefs.chunked.frames import from_gzip, gzip_stream, needed
from fusefs.chunked.headers import Headers, HeaderTar, HeldHeaders, write_at
from fusefs.chunked.pieces import PieceTable, PieceTar, Ranges
from fusefs.chunked.toc import LIMIT, MAX_PIECE, MAX_TAR, Entry, Toc, Unusable
from fusefs.content.file import OpenFile
from fusefs.layers.scan import LayerScan
from fusefs.tar.header import BLOCK
from fusefs.tar.writing import HeaderFields, header_block, member_header

_NAME = b"stargz.index.json"
_TAIL, _MAX_TAIL = 1 << 16, 1 << 20
"""Bytes that are fetched at once: the table, if it has less than 20,000 members, and the footer are in them.

More would take longer than a second request: 1 MiB takes 0.08 s at 100 Mbit/s.
"""
_FOOTER = re.compile(
    rb"\x1f\x8b\x08\x04.{6}(?:\x1a\0SG\x16\0|\x16\0)([0-9a-f]{16})STARGZ\x01\0\0\xff\xff\0{8}", re.DOTALL
)
"""Of 51 bytes, or 47 as written before version 0.3."""
_FOOTER_SIZE = 51
_TYPES = {
    "reg": b"0", "hardlink": b"1", "symlink": b"2", "char": b"3", "block": b"4", "dir": b"5", "fifo": b"6",
}  # fmt: skip
_MAX_EXTENDED = 1 << 20
"""Bytes of an extended header that a scan takes."""
_MAX_NUMBER = 1 << 21
_MAX_TIME = 40
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def estargz_tar(annotations: Mapping[str, str], blob: Ranges, file: OpenFile) -> PieceTar:
    """Return a tar with the members of a layer; *file*, a new one, gets its headers.

    Raises Unusable, OSError if the table of contents cannot be fetched, and NoSpace.
    """
    start, stream = _table(blob)
    hasher = sha256()
    tar = _Builder(file, start)
    toc = Toc(_contents(stream, hasher.update), "its table of contents")
    for fields in toc.entries():
        tar.add(Entry(fields, toc.name))
    if f"sha256:{hasher.hexdigest()}" != annotations.get(ESTARGZ_TOC):
        raise Unusable("its table of contents does not have the digest that the manifest states")
    # Decompressed once more: it is a file of the layer, and may be too large to be held in memory meanwhile.
    headers, held = tar.end(_contents(stream))
    return PieceTar(headers, tar.table, blob, from_gzip, None if held is None else LayerScan(held, held))


def _table(blob: Ranges) -> tuple[int, list[bytes]]:
    """Return where the table of contents begins, and the bytes of the blob from there on: one request, or two."""
    size = blob.size
    guess = min(size, max(_TAIL, min(size // 32, _MAX_TAIL)))
    tail = bytes(blob.unverified_range(size - guess, guess))
    footer = _FOOTER.fullmatch(tail, max(0, len(tail) - _FOOTER_SIZE)) or _FOOTER.fullmatch(
        tail, max(0, len(tail) - _FOOTER_SIZE + 4)
    )
    if footer is None:
        raise Unusable("it has no footer of an eStargz layer")
    start = int(footer[1], 16)
    if not start < size or size - start > LIMIT:
        raise Unusable("its footer states a wrong position of the table of contents")
    if start < size - guess:
        return start, [bytes(blob.unverified_range(start, size - guess - start)), tail]
    return start, [tail[start - (size - guess) :]]


def _contents(stream: list[bytes], see: Callable[[bytes], object] = lambda _: None) -> Iterator[bytes]:
    """Yield the JSON, of which each piece is given to *see*: the one member of the tar in *stream*.

    Unusable unless the member is as builders write it, and nothing follows.
    """
    plain = gzip_stream(stream, LIMIT + (1 << 20), "its table of contents")
    data = b""
    while len(data) < BLOCK and (more := next(plain, b"")):
        data += more
    size = _table_size(data[:BLOCK])
    data = data[BLOCK:]
    while size:
        piece, data = data[:size], data[size:]
        size -= len(piece)
        see(piece)
        yield piece
        if size:
            data = next(plain, b"")
            if not data:
                raise Unusable("its table of contents is cut off")
    if any(data) or any(map(any, plain)):
        raise Unusable("something follows its table of contents")


def _table_size(block: bytes) -> int:
    """Return the size of the table; Unusable unless *block*, of which no digest tells, is as builders write it."""
    size = _octal(block[124:136])
    if block != _own_header(size):
        raise Unusable("the header of its table of contents is not as builders write it")
    return size


def _own_header(size: int) -> bytes:
    return header_block(HeaderFields(_NAME, b"0", size=size))


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else 0


class _Source(NamedTuple):
    """Where the bytes of a piece are: only the next member of the blob tells their end."""

    start: int
    size: int
    offset: int
    inner: int
    digest: bytes


class _Builder:
    """Builds the tar: headers in a file, pieces in a table."""

    def __init__(self, file: OpenFile, payload: int) -> None:
        """Write headers into *file*; the blob has chunks in its first *payload* bytes."""
        self.table = PieceTable()
        self._file = file
        self._headers = Headers(file)
        self._payload = payload
        self._data = 0
        """Offset of the data of the current file, and how many bytes of it have no chunk yet."""
        self._left = 0
        self._size = 0
        self._waiting: list[_Source] = []
        """Pieces in the last member of the blob so far."""

    def add(self, entry: Entry) -> None:
        """Add an entry: a member of the tar, or a further chunk of the last one."""
        kind = entry.text("type")
        if kind == "chunk":
            self._chunk(entry)
            return
        self._finish()
        if kind not in _TYPES:
            raise Unusable(f"its table of contents has an entry of the unknown type {kind[:20]!a}")
        size = entry.number("size") if kind == "reg" else 0
        self._headers.add(_headers(entry, kind, size))
        self._data = self._headers.size
        self._size = self._left = size
        self._headers.skip(-(-size // BLOCK) * BLOCK)
        if self._headers.size > MAX_TAR:
            raise Unusable("its table of contents states a file that is too large")
        if size:
            self._chunk(entry)

    def _chunk(self, entry: Entry) -> None:
        if not self._left or entry.number("chunkOffset") != self._size - self._left:
            raise Unusable("its table of contents has a chunk that belongs to no file")
        size = entry.number("chunkSize") or self._left
        offset, inner = entry.number("offset"), entry.number("innerOffset")
        if size > min(self._left, MAX_PIECE) or inner > MAX_PIECE:
            raise Unusable("its table of contents has a chunk of a wrong or too large size")
        last = self._waiting[0].offset if self._waiting else -1
        if not last <= offset < self._payload:
            raise Unusable("its table of contents has chunks that are not in order, or behind their end")
        if offset > last:
            self._end_member(offset)
        start = self._data + self._size - self._left
        self._waiting.append(_Source(start, size, offset, inner, entry.sha256()))
        self._left -= size

    def _finish(self) -> None:
        if self._left:
            raise Unusable("its table of contents does not have all chunks of a file")

    def _end_member(self, end: int) -> None:
        """Let the last member of the blob end at *end*."""
        for start, size, offset, inner, digest in self._waiting:
            self.table.add(start, size, offset, min(end - offset, needed(inner, size)), inner, digest)
        self._waiting.clear()

    def end(self, json: Iterable[bytes]) -> tuple[HeaderTar, HeldHeaders | None]:
        """Add the table itself, and return the headers as `Headers.end` does."""
        self._finish()
        self._end_member(self._payload)
        begin = at = self._headers.size + BLOCK
        for piece in json:
            write_at(self._file, at, piece)
            at += len(piece)
        self._headers.add(_own_header(at - begin))
        return self._headers.end(-(-at // BLOCK) * BLOCK + 2 * BLOCK)


def _headers(entry: Entry, kind: str, size: int) -> bytes:
    """Return the header of a member, behind an extended one if that is necessary."""
    mode, uid, gid, major, minor = map(entry.number, ("mode", "uid", "gid", "devMajor", "devMinor"))
    if max(mode, major, minor) >= _MAX_NUMBER:
        raise Unusable("its table of contents has a number that is too large for a tar")
    mtime = _seconds(entry.text("modtime"))
    name, link = entry.path("name"), entry.path("linkName")
    fields = HeaderFields(name, _TYPES[kind], link, mode, uid, gid, size, mtime, major, minor)
    written = member_header(fields, list(_xattrs(entry)))
    if len(written) > _MAX_EXTENDED:
        raise Unusable("its table of contents has an entry that is too large")
    return written


def _xattrs(entry: Entry) -> Iterator[tuple[bytes, bytes]]:
    for key, text in entry.texts("xattrs").items():
        if "\ufffd" in key:
            raise Unusable("its table of contents has an extended attribute whose name is not UTF-8")
        try:
            yield key.encode(), base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Unusable("its table of contents has an extended attribute that is not base64") from None


def _seconds(modtime: str) -> int:
    """Return an RFC 3339 time in seconds since 1970; without one, builders leave out 0."""
    return _repeated(modtime) if len(modtime) < _MAX_TIME else _parsed(modtime)


def _parsed(modtime: str) -> int:
    try:
        return (dt.datetime.fromisoformat(modtime) - _EPOCH) // dt.timedelta(seconds=1) if modtime else 0
    except (ValueError, TypeError):
        raise Unusable("its table of contents has a time that is not one") from None


_repeated = lru_cache(1024)(_parsed)
"""The same for a short text: many entries have the same time."""
