"""Writes tar headers: POSIX's ustar, with a PAX extended header for what that cannot say."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from fusefs.tar.header import BLOCK, byte_sum

_USTAR = struct.Struct("100s48s8ss100s8s64x16s167x")
"""Name; mode, owner, size and time; checksum; typeflag; link; magic and version; device numbers."""
_SUM = slice(148, 156)
_MAX_NAME = 100
_MAX_ID, _MAX_LARGE = 1 << 21, 1 << 33
"""Limits of 7 and 11 octal digits."""


class HeaderFields(NamedTuple):
    """The fields of a header.  The device numbers and the mode have at most 21 bits."""

    name: bytes
    typeflag: bytes
    link: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    """Seconds since 1970."""
    major: int = 0
    minor: int = 0


def member_header(
    fields: HeaderFields, xattrs: Sequence[tuple[bytes, bytes]] = (), more: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """Return the header block of a member, behind an extended header if the block cannot say all *fields*.

    *more* are other records of the extended header.
    """
    if not xattrs and not more and _fits(fields):
        return header_block(fields)
    records = [*more]
    records += [(b"SCHILY.xattr." + name, value) for name, value in xattrs]
    fits: dict[str, Any] = {}
    """Values that the block has in place of those that it cannot have."""
    for keyword, field in ((b"path", "name"), (b"linkpath", "link")):
        text = getattr(fields, field)
        if len(text) > _MAX_NAME:
            records.append((keyword, text))
            fits[field] = text[:_MAX_NAME]
    for field, limit in (("uid", _MAX_ID), ("gid", _MAX_ID), ("size", _MAX_LARGE), ("mtime", _MAX_LARGE)):
        value = getattr(fields, field)
        if not 0 <= value < limit:
            records.append((field.encode(), b"%d" % value))
            fits[field] = 0
    block = header_block(fields._replace(**fits))
    if not records:
        return block
    data = b"".join(_pax_record(*record) for record in records)
    return header_block(HeaderFields(b"", b"x", size=len(data))) + data + bytes(-len(data) % BLOCK) + block


def _fits(fields: HeaderFields) -> bool:
    """Return whether a header block alone can say all *fields*."""
    return (
        len(fields.name) <= _MAX_NAME
        and len(fields.link) <= _MAX_NAME
        and 0 <= fields.uid < _MAX_ID
        and 0 <= fields.gid < _MAX_ID
        and 0 <= fields.size < _MAX_LARGE
        and 0 <= fields.mtime < _MAX_LARGE
    )


def header_block(fields: HeaderFields) -> bytes:
    """Return a header block, as Go's archive/tar writes it; all *fields* fit."""
    name, typeflag, link, mode, uid, gid, size, mtime, major, minor = fields
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    devices = b"%07o\0%07o\0" % (major, minor)
    block = _USTAR.pack(name, numbers, b" " * 8, typeflag, link, b"ustar\x0000", devices)
    return block[: _SUM.start] + b"%06o\0 " % byte_sum(block) + block[_SUM.stop :]


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + len(b"%d" % len(rest))
    return b"%d" % (len(rest) + len(b"%d" % length)) + rest
