"""zstd:chunked, by containers/storage: each file is a zstd frame of its own, and two documents tell where they are.

Annotations of the layer's descriptor state the positions of both documents in the blob, and the SHA-256 of the
compressed table of contents, which states that of the compressed tar-split.  So everything is verified by the
manifest's digest.  Images from before 2024-05 have no digest of the tar-split.
"""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import islice, zip_longest
from typing import NamedTuple

from fusefs.chunked.annotations import ZSTD_CHUNKED_PREFIX
from fusefs.chunked.frames import from_zstd, zstd_stream
from fusefs.chunked.headers import Headers
from fusefs.chunked.pieces import PieceTable, PieceTar, Ranges
from fusefs.chunked.tarsplit import TarSplit
from fusefs.chunked.toc import LIMIT, MAX_PIECE, Entry, Toc, Unusable
from fusefs.content.file import OpenFile
from fusefs.content.protocol import Bytes
from fusefs.errors import InvalidImage
from fusefs.layers.scan import PLAIN_KINDS, Found, LayerScan
from fusefs.oci.untrusted_json import Json
from fusefs.tar.header import Kind
from fusefs.tar.members import ContentSource
from fusefs.text import printable

_CHECKSUM, _TOC, _TAR_SPLIT = (
    ZSTD_CHUNKED_PREFIX + name for name in ("manifest-checksum", "manifest-position", "tarsplit-position")
)
_POSITION = re.compile(r"[0-9]{1,18}(:[0-9]{1,18}){2,3}")
_CRFS = 1
"""The kind of table of contents."""
_MAX_COMPRESSED = MAX_PIECE + (MAX_PIECE >> 6) + (1 << 16)
"""Bytes of the frames of a piece."""
_SOME = 1 << 10
"""Members that are scanned at once."""
_KINDS = {
    "reg": Kind.REGULAR, "hardlink": Kind.HARD_LINK, "symlink": Kind.SYMLINK, "dir": Kind.DIRECTORY,
    "char": Kind.CHARACTER_DEVICE, "block": Kind.BLOCK_DEVICE, "fifo": Kind.FIFO,
}  # fmt: skip

_LINKS = (Kind.HARD_LINK, Kind.SYMLINK)


class Position(NamedTuple):
    """Where a compressed document lies in the blob."""

    offset: int
    length: int
    plain: int
    """Bytes of the plain document."""

    @property
    def end(self) -> int:
        """Offset behind it."""
        return self.offset + self.length


def zstd_chunked_tar(annotations: Mapping[str, str], blob: Ranges, file: OpenFile) -> PieceTar:
    """Return the plain tar of a layer whose descriptor has *annotations*; *file*, a new one, gets its headers.

    Raises Unusable, OSError if the documents cannot be fetched, and NoSpace.
    """
    toc_at, split_at = _position(annotations, _TOC, blob.size), _position(annotations, _TAR_SPLIT, blob.size)
    first = min(toc_at.offset, split_at.offset)
    span = max(toc_at.end, split_at.end) - first
    if span > toc_at.length + split_at.length + (1 << 16):
        raise Unusable("its two documents do not lie next to each other")
    if span > LIMIT:
        raise Unusable(f"its two documents have more than {LIMIT >> 20} MiB")
    stated = annotations.get(_CHECKSUM, "")
    documents = blob.unverified_range(first, span)
    if _sha256(_part(documents, toc_at, first)) != stated:
        blob.drop_range(first, span)
        documents = blob.unverified_range(first, span)
        if _sha256(_part(documents, toc_at, first)) != stated:
            raise Unusable("its table of contents does not have the digest that the manifest states")
    toc = Toc(
        zstd_stream(_part(documents, toc_at, first), toc_at.plain, "the table of contents"), "its table of contents"
    )
    compressed = _part(documents, split_at, first)
    headers = Headers(file)
    split = TarSplit(zstd_stream(compressed, split_at.plain, "the tar-split"), headers, "its tar-split")
    tar, held = headers.end(headers.size)
    scan = LayerScan(ContentSource(tar, file.name)) if held is None else LayerScan(held, held)
    found = None if held is None else Found(scan)
    table = _matched(toc, zip_longest(_members(scan, found), split.offsets, split.sizes), blob.size)
    if toc.fields.get("version") != 1:
        raise Unusable("its table of contents is not of version 1")
    if not toc.fields.get("tarSplitDigest"):
        raise Unusable("its table of contents, of an old version, has no digest of the tar-split")
    if toc.fields["tarSplitDigest"] != _sha256(compressed):
        raise Unusable("its tar-split does not have the digest that the table of contents states")
    if held is not None and found is not None and found.is_full:
        return PieceTar(tar, table, blob, from_zstd, LayerScan(held, held))
    return PieceTar(tar, table, blob, from_zstd, found)


def _position(annotations: Mapping[str, str], name: str, size: int) -> Position:
    text = annotations.get(name, "")
    if not _POSITION.fullmatch(text):
        raise Unusable(f"the annotation {name} is missing or malformed")
    offset, length, plain, *kind = map(int, text.split(":"))
    if offset + length > size or max(length, plain) > LIMIT:
        raise Unusable(f"the annotation {name} states a position behind the end, or more than {LIMIT >> 20} MiB")
    if (name == _TOC) != bool(kind) or kind not in ([], [_CRFS]):
        raise Unusable(f"the annotation {name} states an unknown kind")
    return Position(offset, length, plain)


def _part(documents: Bytes, position: Position, first: int) -> memoryview:
    return memoryview(documents)[position.offset - first : position.end - first]


def _sha256(data: memoryview) -> str:
    return f"sha256:{sha256(data).hexdigest()}"


_Seen = tuple[bytes, Kind, bytes, int, int]
"""Of a member: name, kind, link, offset and size of the data."""
_Split = tuple[_Seen | None, int | None, int | None]
"""What the headers say about a member, and the offset and size in the tar-split; None behind the last one."""


def _matched(toc: Toc, members: Iterator[_Split], blob_size: int) -> PieceTable:
    """Return the pieces of all files; Unusable unless *toc*, *split* and the tar's headers list the same members."""
    table = PieceTable()
    parts = _Parts(table, blob_size)
    for fields in toc.entries():
        entry = Entry(fields, toc.name)
        kind = entry.text("type")
        if kind == "chunk":
            parts.add(entry)
            continue
        parts.finish()
        member = next(members, (None, None, None))
        if not _agree(fields, kind, member):
            _compare(entry, *member)
        seen = member[0]
        if seen is not None and seen[4]:
            parts.begin(entry, seen[3], seen[4])
    parts.finish()
    if next(members, None) is not None:
        raise Unusable("its tar has members that its table of contents does not list")
    return table


def _agree(fields: Mapping[str, Json], kind: str, member: _Split) -> bool:
    """Return whether an entry and a member are surely the same, as nearly all: their fields are of common values."""
    name, link, size = fields.get("name"), fields.get("linkName", ""), fields.get("size", 0)
    return (
        type(name) is type(link) is str
        and type(size) is int
        and name.isascii()
        and link.isascii()
        and "\0" not in name
        and "\0" not in link
        and member[0] is not None
        and member == ((name.encode(), _KINDS.get(kind), link.encode(), member[1], size), member[0][3], size)
    )


def _compare(entry: Entry, member: _Seen | None, offset: int | None, size: int | None) -> None:
    stated = entry.path("name"), _KINDS.get(entry.text("type")), entry.path("linkName"), entry.number("size")
    if member is None or (*member[:3], member[4], offset, size) != (*stated, member[3], member[4]):
        raise Unusable(f"its table of contents and its tar differ at {printable(stated[0][:300])}")


def _members(scan: LayerScan, found: Found | None) -> Iterator[_Seen]:
    """Yield the members of *scan*; *found* takes note of them."""
    try:
        while True:
            plain = scan.plain()
            while some := list(islice(plain, _SOME)):
                if found is not None:
                    found.add_plain(some)
                for typeflag, path, _, offset, size, link, _, _ in some:
                    kind = PLAIN_KINDS[typeflag]
                    yield path, kind, link if kind in _LINKS else b"", offset, size
            member = scan.other()
            if found is not None:
                found.add_other(member)
            if member is None:
                return
            if member.sparse:
                raise Unusable("it has a sparse file")
            link = member.link if member.kind in _LINKS else b""
            yield member.name, member.kind, link, member.offset, member.size
    except InvalidImage as error:
        raise Unusable(str(error)) from None


class _Parts:
    """The parts of one file at a time: the entry of the file, and those of its further chunks."""

    def __init__(self, table: PieceTable, blob_size: int) -> None:
        self._table = table
        self._blob_size = blob_size
        self._offset = self._size = self._at = self._end = 0
        self._last: tuple[Entry, int, int] | None = None
        """The part whose end in the blob is not known yet: its entry, offset in the file, and size."""

    def begin(self, entry: Entry, offset: int, size: int) -> None:
        """Begin a file of *size* bytes at *offset* of the tar."""
        self._offset, self._size, self._at, self._end = offset, size, 0, entry.number("endOffset")
        self._append(entry, entry.number("chunkSize") or size)

    def add(self, entry: Entry) -> None:
        """Add a further chunk."""
        if self._last is None or entry.number("chunkOffset") != self._at:
            raise Unusable("its table of contents has a chunk that belongs to no file")
        self._close(entry.number("offset"))
        self._append(entry, entry.number("chunkSize"))

    def _append(self, entry: Entry, size: int) -> None:
        if not 0 < size <= self._size - self._at:
            raise Unusable("its table of contents has a chunk of a wrong size")
        self._last = entry, self._at, size
        self._at += size

    def finish(self) -> None:
        """End the file."""
        if self._last is None:
            return
        if self._at != self._size:
            raise Unusable("its table of contents does not have all chunks of a file")
        self._close(self._end)
        self._last = None

    def _close(self, end: int) -> None:
        assert self._last is not None
        entry, at, size = self._last
        if entry.text("chunkType") == "zeros":  # as the hole in the file reads
            return
        offset = entry.number("offset")
        if not offset < end <= self._blob_size or end - offset > _MAX_COMPRESSED or size > MAX_PIECE:
            raise Unusable("its table of contents has a chunk of a wrong or too large size")
        self._table.add(self._offset + at, size, offset, end - offset, 0, entry.sha256())
