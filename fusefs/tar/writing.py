"""Writes tar headers: POSIX's ustar, with a PAX extended header for what that cannot say."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from fusefs.tar.header import BLOCK

_USTAR = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
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


def header_block(fields: HeaderFields) -> bytes:
    """Return a header block, as Go's archive/tar writes it; all *fields* fit."""
    packed = [
        fields.name, *(b"%07o" % number for number in (fields.mode, fields.uid, fields.gid)),
        b"%011o" % fields.size, b"%011o" % fields.mtime, b" " * 8, fields.typeflag, fields.link,
        b"ustar", b"00", b"", b"", b"%07o" % fields.major, b"%07o" % fields.minor, b"",
    ]  # fmt: skip
    packed[6] = b"%06o\0 " % sum(_USTAR.pack(*packed))
    return _USTAR.pack(*packed)


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + len(b"%d" % len(rest))
    return b"%d" % (len(rest) + len(b"%d" % length)) + rest
