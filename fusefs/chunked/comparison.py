"""Compares a tar that was read piece by piece with that of the whole layer, once that is here and verified."""

from collections.abc import Iterator
from hashlib import sha256
from itertools import zip_longest

from fusefs.chunked.pieces import PieceTar
from fusefs.content.protocol import Content
from fusefs.errors import InvalidImage
from fusefs.tar.attributes import file_attributes
from fusefs.tar.header import BrokenHeader
from fusefs.tar.members import ContentSource, Member, scan
from fusefs.text import printable

_STEP = 1 << 20


def difference(pieces: PieceTar, tar: Content, where: str) -> str:
    """Return how *tar*, the verified one of the layer called *where*, differs from *pieces*; empty if it does not.

    A time may differ by its fraction of a second, which a table of contents does not have.
    """
    try:
        for shown, real in zip_longest(_members(pieces.headers, where), _members(tar, where)):
            if shown is None or real is None or not (_same(shown, real) and _same_data(pieces, shown, tar, real)):
                name = (shown or real).name[:300]
                return f"{where}: its table of contents and its tar differ at {printable(name)}"
    except (InvalidImage, BrokenHeader) as error:
        return f"{where}: its tar has not what its table of contents lists: {error}"
    return ""


def _members(tar: Content, where: str) -> Iterator[Member]:
    return scan(ContentSource(tar, where), lambda _: None)


def _same(shown: Member, real: Member) -> bool:
    if (shown.name, shown.kind, shown.link, shown.size, False) != (
        *(real.name, real.kind, real.link, real.size),
        real.sparse,
    ):
        return False
    ours, theirs = file_attributes(shown), file_attributes(real)
    if ours.mtime_ns == 0 and abs(ours.mtime - theirs.mtime) <= 1:
        theirs = theirs._replace(mtime=ours.mtime, mtime_ns=0)
    return ours._replace(xattrs=()) == theirs._replace(xattrs=()) and dict(ours.xattrs) == dict(theirs.xattrs)


def _same_data(pieces: PieceTar, shown: Member, tar: Content, real: Member) -> bool:
    """Return whether the data of a member have the digests of its pieces, and zeros between them."""
    at = 0
    for piece, digest in pieces.pieces(shown.offset, shown.size):
        begin = piece.start - shown.offset
        if not _zeros(tar, real.offset + at, begin - at):
            return False
        if sha256(tar.read_at(real.offset + begin, piece.size)).digest() != digest:
            return False
        at = begin + piece.size
    return _same_rest(pieces, shown, tar, real, at)


def _same_rest(pieces: PieceTar, shown: Member, tar: Content, real: Member, at: int) -> bool:
    """Return whether the bytes without a piece are the same: zeros, or the table of contents itself."""
    return all(
        pieces.headers.read_at(shown.offset + offset, min(_STEP, shown.size - offset))
        == tar.read_at(real.offset + offset, min(_STEP, shown.size - offset))
        for offset in range(at, shown.size, _STEP)
    )


def _zeros(tar: Content, offset: int, size: int) -> bool:
    return not any(any(tar.read_at(offset + at, min(_STEP, size - at))) for at in range(0, size, _STEP))
