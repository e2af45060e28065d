"""Compares a tar that was read piece by piece with that of the whole layer, once that is here and verified."""

from collections.abc import Iterator
from hashlib import sha256
from itertools import zip_longest

from fusefs.chunked.pieces import PieceTar
from fusefs.content.protocol import Content
from fusefs.errors import InvalidImage
from fusefs.tar.attributes import FileAttributes, file_attributes
from fusefs.tar.header import BrokenHeader
from fusefs.tar.members import ContentSource, Member, scan
from fusefs.text import printable

_STEP = 1 << 20


def compare(pieces: PieceTar, tar: Content, where: str) -> bool:
    """Compare *tar*, the verified one of the layer called *where*, with *pieces*.

    Raises InvalidImage if they differ.  Returns False if they do so only in fractions of a second, which a table of
    contents does not have.
    """
    exact = True
    try:
        for shown, real in zip_longest(_members(pieces.headers, where), _members(tar, where)):
            if shown is None or real is None or not _same_data(pieces, shown, tar, real):
                raise _differ((shown or real).name, where)
            ours, theirs = _attributes(shown), _attributes(real)
            if ours != theirs:
                exact = False
                if ours is None or theirs is None or ours != _rounded(theirs, ours):
                    raise _differ(shown.name, where)
    except BrokenHeader as error:
        raise InvalidImage(f"{where}: its tar has not what its table of contents lists: {error}") from None
    return exact


def _differ(name: bytes, where: str) -> InvalidImage:
    return InvalidImage(f"{where}: its table of contents and its tar differ at {printable(name[:300])}")


def _members(tar: Content, where: str) -> Iterator[Member]:
    return scan(ContentSource(tar, where), lambda _: None)


def _attributes(member: Member) -> FileAttributes | None:
    """Return the attributes of *member*, extended ones in the order of their names; None if no file can have them."""
    try:
        attributes = file_attributes(member)
    except BrokenHeader:  # nothing shows it
        return None
    return attributes._replace(xattrs=tuple(sorted(attributes.xattrs)))


def _rounded(real: FileAttributes, shown: FileAttributes) -> FileAttributes:
    """Return *real* with the time of *shown* if that is the same, rounded to a second."""
    if shown.mtime_ns or abs(shown.mtime - real.mtime) > 1:
        return real
    return real._replace(mtime=shown.mtime, mtime_ns=0)


def _same_data(pieces: PieceTar, shown: Member, tar: Content, real: Member) -> bool:
    """Return whether two members have the same name, kind, link and data: the digests of the pieces, zeros between."""
    if (shown.name, shown.kind, shown.link, shown.size) != (real.name, real.kind, real.link, real.size) or real.sparse:
        return False
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
