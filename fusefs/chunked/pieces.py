"""The plain tar of a layer as a content whose pieces are fetched, decompressed and verified when they are read.

The tar is a file with holes.  A piece is written once its digest is right.
"""

import struct
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol

from fusefs.chunked.frames import Decompress
from fusefs.chunked.headers import HeaderTar, write_at
from fusefs.content import patience
from fusefs.content.pieces import FetchFailed
from fusefs.content.protocol import Buffer, Bytes, Content, FilePlace, Slice, clipped
from fusefs.content.recent import RecentErrors
from fusefs.errors import DigestMismatch, ImgfsError
from fusefs.layers.scan import Found, LayerScan

_ROW = struct.Struct("<4Q32s")
"""Size, source, length, inner, digest."""
_GAP = 1 << 16
"""Bytes between two pieces that are fetched with them, rather than by a second request."""
_MAX_FETCH = 8 << 20
"""Bytes of one request, and of the window of a reader that goes on and on."""
_FIRST_WINDOW = 1 << 18
_READERS = 64
"""Places at which readers may go on."""


class Ranges(Protocol):
    """A compressed blob, range by range."""

    @property
    def size(self) -> int:
        """The number of bytes."""

    def unverified_range(self, offset: int, size: int) -> Bytes:
        """Return a range as the registry sent it; OSError if it does not."""

    def drop_range(self, offset: int, size: int) -> None:
        """Fetch the range again at the next read: it is damaged."""


class Piece(NamedTuple):
    """A run of bytes of a file."""

    start: int
    """Offset in the tar."""
    size: int
    source: int
    """Offset of the compressed bytes in the blob."""
    length: int
    """How many these are."""
    inner: int
    """Offset of the run in the plain bytes that these begin."""


class PieceTable:
    """The pieces of a layer in the order of the tar; 72 bytes of memory each."""

    def __init__(self) -> None:
        self.total = 0
        """The plain bytes of all pieces."""
        self._starts = array("Q")
        self._rows = bytearray()
        """The other fields, and the digests."""

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Piece:
        size, source, length, inner, _ = _ROW.unpack_from(self._rows, number * _ROW.size)
        return Piece(self._starts[number], size, source, length, inner)

    def add(  # noqa: PLR0913, PLR0917 - thousands of `Piece` take longer
        self, start: int, size: int, source: int, length: int, inner: int, digest: bytes
    ) -> None:
        """Add the next piece, whose fields these are, and whose plain bytes have the SHA-256 *digest*."""
        self._starts.append(start)
        self._rows += _ROW.pack(size, source, length, inner, digest)
        self.total += size

    def digest(self, number: int) -> bytes:
        """Return the digest of a piece."""
        return _ROW.unpack_from(self._rows, number * _ROW.size)[-1]  # type: ignore[no-any-return]

    def _end(self, number: int) -> int:
        size: int = _ROW.unpack_from(self._rows, number * _ROW.size)[0]
        return self._starts[number] + size

    def span(self, offset: int, size: int) -> range:
        """Return the numbers of the pieces that overlap a run of the tar."""
        starts = self._starts
        first = bisect_right(starts, offset) - 1
        if first < 0 or self._end(first) <= offset:
            first += 1
        last = first
        while last < len(starts) and starts[last] < offset + size:
            last += 1
        return range(first, last)


class _Claim:
    """Pieces that one thread fetches now."""

    __slots__ = ("ended", "error", "pieces", "shared", "since", "trying")

    def __init__(self, pieces: Sequence[int]) -> None:
        self.pieces = pieces
        self.trying: Sequence[int] = pieces
        """Those that are being fetched; after an error, those that it may be about."""
        self.ended = self.shared = False
        self.error: ImgfsError | None = None
        self.since = 0.0
        """After an error: when the thread began or got bytes last; see `patience.since`."""

    def fails(self, wanted: range) -> bool:
        """Return whether its error is about no other pieces than those *wanted*."""
        return all(number in wanted for number in self.trying)


class PieceTar:
    """The plain tar.  Safe under concurrency.

    `_changed` guards `_here`, `_busy` and `_next`; readers look at `_here` without it: a byte of it changes once, after
    the piece is in the file.  A missing piece is in at most one claim, whose thread ends it, however its fetch ends.
    Threads that waited for a claim share its error, if they wanted all pieces that it may be about; so do readers that
    come soon after wrong bytes.
    """

    def __init__(
        self,
        headers: HeaderTar,
        table: PieceTable,
        blob: Ranges,
        decompress: Decompress,
        scan: LayerScan | Found | None = None,
    ) -> None:
        """*blob* has the pieces of *table*.  *scan* is a scan of the *headers* that need not read the file."""
        self.size = self.stored = headers.size
        self.scanned = headers.size - table.total
        """Bytes that a scan has to look at: those that are not of a piece."""
        self.headers = headers
        """The tar with zeros in place of pieces that are not here."""
        self._scan = scan
        self._file = headers.file
        self._table = table
        self._blob = blob
        self._decompress = decompress
        self._here = bytearray(len(table))
        self._busy: dict[int, _Claim] = {}
        self._wrong = RecentErrors()
        self._next: OrderedDict[int, int] = OrderedDict()
        """The piece at which a reader may go on, and the bytes of its window."""
        self._changed = threading.Condition()
        self._error: ImgfsError | None = None

    def take_scan(self) -> LayerScan | Found | None:
        """Return the quick scan of the headers, the first time; until then, it takes memory."""
        scan, self._scan = self._scan, None
        return scan

    @property
    def identity(self) -> str:
        """Always the same: the digest alone distinguishes the bytes."""
        return "0"

    def slice(self, offset: int, size: int) -> Content:
        """Return a part of the bytes."""
        return Slice(self, offset, size)

    def file_place(self) -> FilePlace | None:
        """Return None: the file has holes."""

    def fetch(self) -> None:
        """Do nothing: a read waits for its own pieces."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes; fetches the pieces that are not here.  Raises FetchFailed, or OSError."""
        size = clipped(self.size, offset, size)
        if not size:
            return b""
        self.check()
        self._ensure(self._table.span(offset, size))
        return self.headers.read_at(offset, size)

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the bytes if they are here and in the page cache, else None."""
        size = clipped(self.size, offset, size)
        if not size:
            return b""
        if self._error is not None or not all(self._here[number] for number in self._table.span(offset, size)):
            return None
        return self.headers.read_cached(offset, size, buffer)

    def check(self) -> None:
        """Raise the error if the whole layer turned out to differ."""
        if self._error is not None:
            raise FetchFailed(self._error)

    def fail(self, error: ImgfsError) -> None:
        """Let all further reads fail with *error*."""
        self._error = error.with_traceback(None)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def pieces(self, offset: int, size: int) -> Iterator[tuple[Piece, bytes]]:
        """Yield the pieces in a run of the tar, with their digests."""
        for number in self._table.span(offset, size):
            yield self._table[number], self._table.digest(number)

    def _ensure(self, wanted: range) -> None:
        """Let all pieces *wanted* be here; several threads that want one share the fetch, and its error."""
        alone = False
        with patience.one_read():
            self._wrong.resume(wanted)
            while not self._are_here(wanted):
                with self._changed:
                    claim, is_own = self._claim(wanted, alone=alone)
                if is_own:
                    self._fetch_claim(claim, wanted)
                if claim.error is not None and not self._are_here(wanted):
                    if claim.fails(wanted):
                        raise FetchFailed(claim.error, shared=claim.shared or not is_own)
                    alone = True  # it may be a piece that this thread has not asked for, and that is not in the cache
                    patience.progressed(claim.since)

    def _are_here(self, wanted: range) -> bool:
        return all(self._here[number] for number in wanted)

    def _claim(self, wanted: range, *, alone: bool) -> tuple[_Claim, bool]:
        """Return a new claim of missing pieces that are in no claim, and True.

        If there are none: wait until the pieces are here or a claim that has some of them ends; return that, and False.
        Raises FetchFailed if missing pieces proved wrong a moment ago.
        """
        missing = [number for number in wanted if not self._here[number]]
        self._wrong.check(missing)
        free = [number for number in missing if number not in self._busy]
        if missing and not free:
            claim = self._busy[missing[0]]
            self._changed.wait_for(lambda: claim.ended or self._are_here(wanted))
            return claim, False
        claim = _Claim(free if alone or not free else free + self._ahead(free))
        self._busy.update(dict.fromkeys(claim.pieces, claim))
        return claim, True

    def _fetch_claim(self, claim: _Claim, wanted: range) -> None:
        """Fetch the pieces of *claim*, for a reader of those *wanted*, and end it, with an error or without."""
        try:
            for run in _runs([(number, self._table[number]) for number in claim.pieces]):
                self._fetch(run, claim)
        except FetchFailed as failure:
            claim.error, claim.since = failure.error.with_traceback(None), patience.since()
            claim.shared = failure.shared
            if claim.fails(wanted):
                self._wrong.add(failure, claim.trying)
        finally:
            with self._changed:
                for number in claim.pieces:
                    del self._busy[number]
                claim.ended = True
                self._changed.notify_all()

    def _ahead(self, missing: Sequence[int]) -> list[int]:
        """Return more pieces to fetch at once, for a reader that goes on where one stopped."""
        window = self._next.pop(missing[0], 0)
        ahead: list[int] = []
        number = missing[-1] + 1
        room = window
        while number < len(self._here) and not self._here[number] and number not in self._busy:
            room -= self._table[number].length
            if room < 0:
                break
            ahead.append(number)
            number += 1
        self._next[number] = min(max(2 * window, _FIRST_WINDOW), _MAX_FETCH)
        if len(self._next) > _READERS:
            self._next.popitem(last=False)
        return ahead

    def _fetch(self, run: "_Run", claim: _Claim) -> None:
        """Fetch the pieces of *run* by one request, and write them into the file.  A damaged one is fetched again."""
        claim.trying = [number for number, _ in run.pieces]
        data = memoryview(self._blob.unverified_range(run.source, run.length))
        for number, piece in run.pieces:
            claim.trying = [number]
            at = piece.source - run.source
            plain = self._plain(number, piece, data[at : at + piece.length])
            if plain is None:
                self._blob.drop_range(piece.source, piece.length)
                plain = self._plain(number, piece, self._blob.unverified_range(piece.source, piece.length))
            if plain is None:
                self._blob.drop_range(piece.source, piece.length)
                raise FetchFailed(
                    DigestMismatch(
                        f"{self._file.name}: the bytes {piece.source}-{piece.source + piece.length - 1} do not have "
                        f"the digest sha256:{self._table.digest(number).hex()} of the table of contents"
                    )
                )
            self._write(piece.start, plain)
            self._here[number] = 1

    def _plain(self, number: int, piece: Piece, data: Bytes | memoryview) -> bytes | None:
        """Return the plain bytes of a piece, None if they are not those of its digest."""
        try:
            plain = self._decompress(bytes(data), piece.inner, piece.size)
        except ValueError:
            return None
        return plain if sha256(plain).digest() == self._table.digest(number) else None

    def _write(self, start: int, data: bytes) -> None:
        write_at(self._file, start, data)


class _Run(NamedTuple):
    """Pieces that one request fetches."""

    source: int
    length: int
    pieces: list[tuple[int, Piece]]


def _runs(pieces: list[tuple[int, Piece]]) -> Iterator[_Run]:
    """Divide *pieces* into runs that are close together in the blob."""
    source = end = 0
    run: list[tuple[int, Piece]] = []
    for number, piece in sorted(pieces, key=lambda item: item[1].source):
        behind = piece.source + piece.length
        if run and (piece.source > end + _GAP or max(end, behind) - source > _MAX_FETCH):
            yield _Run(source, end - source, run)
            run = []
        if not run:
            source = end = piece.source
        run.append((number, piece))
        end = max(end, behind)
    if run:
        yield _Run(source, end - source, run)
