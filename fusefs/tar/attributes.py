"""A tar member's attributes: mode, owner, time, device number, extended attributes, and the map of a sparse file.

Formats: the header fields of ustar and GNU tar; PAX records of POSIX.1-2001, ``SCHILY.xattr.*`` (star), and
the four ways of GNU tar to store a sparse file.  ``LIBARCHIVE.xattr.*`` is ignored, as by all engines.
"""

import stat
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from fusefs.content.protocol import Bytes
from fusefs.tar.header import BLOCK, BrokenHeader, Kind, number
from fusefs.tar.members import Member

_TYPES = {
    Kind.REGULAR: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}
_MAX_ID = (1 << 32) - 2
"""The largest user or group ID; the kernel takes the next one for "no ID"."""
_NOBODY = 65534
_MAX_MAJOR = (1 << 12) - 1
_MAX_MINOR = (1 << 20) - 1
_MAX_XATTR = 1 << 16
"""Bytes of one value, and of the list of names: the kernel's limit."""
_MAX_XATTR_NAME = 255
_MAX_MTIME = (1 << 62) - 1
_MAX_MAP = 1 << 20
"""Bytes of a sparse map in PAX format 1.0."""

Read = Callable[[int, int], Bytes]
"""Returns bytes of the tar: (offset, size)."""
Run = tuple[int, int, int]
"""Stored bytes of a sparse file: offset in the file, offset in the tar, size."""


class FileAttributes(NamedTuple):
    """The attributes that stat(2) and listxattr(2) return."""

    mode: int
    """Type and permissions, as st_mode."""
    uid: int
    gid: int
    mtime: int
    """Whole seconds since 1970; may be negative."""
    mtime_ns: int
    """Nanoseconds after `mtime`, 0 to 999,999,999."""
    major: int
    minor: int
    xattrs: tuple[tuple[bytes, bytes], ...]


def file_attributes(member: Member) -> FileAttributes:
    """Return the attributes of *member*; BrokenHeader if its header or a PAX record is invalid."""
    block, pax = member.block, member.pax
    mtime, mtime_ns = recorded_time(pax[b"mtime"]) if b"mtime" in pax else header_time(block[136:148])
    device = member.kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)
    major = number(block[329:337], "devmajor") if device else 0
    minor = number(block[337:345], "devminor") if device else 0
    if not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
        raise BrokenHeader(f"device number {major}:{minor} has more than 12 and 20 bits")
    mode, uid, gid = ownership(member.kind, block[100:124], pax)
    return FileAttributes(mode, uid, gid, mtime, mtime_ns, major, minor, tuple(_xattrs(member)))


def ownership(kind: Kind, fields: bytes, pax: Mapping[bytes, bytes]) -> tuple[int, int, int]:
    """Return mode with type, uid and gid from the header's *fields* for these and the PAX records."""
    # Linux has no permissions for a symbolic link and reports 0777.
    permissions = 0o777 if kind is Kind.SYMLINK else number(fields[:8], "mode") & 0o7777
    uid, gid = _owner(pax.get(b"uid"), fields[8:16], "uid"), _owner(pax.get(b"gid"), fields[16:24], "gid")
    return _TYPES.get(kind, stat.S_IFREG) | permissions, uid, gid


def header_time(field: bytes) -> tuple[int, int]:
    """Return the seconds and nanoseconds of the header's mtime *field*."""
    return _representable(number(field, "mtime")), 0


def recorded_time(text: bytes) -> tuple[int, int]:
    """Return the seconds and nanoseconds of the PAX record mtime."""
    seconds, nanoseconds = _time(text)
    return _representable(seconds), nanoseconds


def _representable(seconds: int) -> int:
    return max(-_MAX_MTIME, min(seconds, _MAX_MTIME))


def _owner(record: bytes | None, field: bytes, field_name: str) -> int:
    value = number(field, field_name) if record is None else _integer(record, field_name)
    return value if 0 <= value <= _MAX_ID else _NOBODY


def _integer(text: bytes, keyword: str) -> int:
    try:
        return int(text) if len(text) < 20 and text.lstrip(b"-").isdigit() else _MAX_ID + 1
    except ValueError:
        raise BrokenHeader(f"the PAX record {keyword} is no number") from None


def _time(text: bytes) -> tuple[int, int]:
    """Return a PAX time, ``[-]seconds[.fraction]``, as seconds and the nanoseconds after them."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole.removeprefix(b"-") or b"0"
    if not digits.isdigit() or len(digits) > 20 or not (fraction or b"0").isdigit():
        raise BrokenHeader(f"the PAX record mtime is no time: {text[:40]!r}")
    seconds, nanoseconds = int(digits), int(fraction[:9].ljust(9, b"0"))
    if not negative:
        return seconds, nanoseconds
    return (-seconds - 1, 10**9 - nanoseconds) if nanoseconds else (-seconds, 0)


def _xattrs(member: Member) -> list[tuple[bytes, bytes]]:
    prefix = b"SCHILY.xattr."
    found = ((key.removeprefix(prefix), value) for key, value in member.pax.items() if key.startswith(prefix))
    return [(name, value) for name, value in found if name and b"\0" not in name]


def listable_xattrs(xattrs: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Return those of *xattrs* within the kernel's limits for a value and for the list of names."""
    found = []
    room = _MAX_XATTR
    for name, value in xattrs:
        if len(name) <= _MAX_XATTR_NAME and len(value) <= _MAX_XATTR and len(name) + 1 <= room:
            found.append((name, value))
            room -= len(name) + 1
    return tuple(found)


def sparse_runs(member: Member, read: Read) -> tuple[int, list[Run]]:
    """Return a sparse file's size and its stored runs, in order.

    BrokenHeader if runs overlap, are not in order, or exceed the file or its data.
    """
    pax = member.pax
    if pax.get(b"GNU.sparse.major") == b"1":
        size = _count(pax.get(b"GNU.sparse.realsize", b""), "GNU.sparse.realsize")
        pairs, start = _map_1_0(member, read)
    elif b"GNU.sparse.map" in pax:
        size = _count(pax.get(b"GNU.sparse.size", b""), "GNU.sparse.size")
        pairs, start = (
            _pairs([_count(text, "map") for text in pax[b"GNU.sparse.map"].split(b",") if text]),
            member.offset,
        )
    elif member.block[156:157] != b"S":  # records of an unknown version: the bytes as stored
        return member.size, [(0, member.offset, member.size)] if member.size else []
    else:
        size = number(member.block[483:495], "real size")
        pairs, start = _old_gnu_map(member, read), member.offset
    if not 0 <= size < 1 << 63:
        raise BrokenHeader(f"a sparse file of {size} bytes")
    return size, _checked(pairs, size, start, member.offset + member.size)


def _map_1_0(member: Member, read: Read) -> tuple[list[tuple[int, int]], int]:
    """Return the map at the start of the data, and the offset after it.

    The map is decimal numbers, one a line, padded to a block.
    """
    text = bytes(read(member.offset, min(member.size, _MAX_MAP)))
    numbers: list[int] = []
    position = 0
    wanted = 1
    while len(numbers) < wanted:
        end = text.find(b"\n", position, position + 24)
        if end < 0:
            raise BrokenHeader("the sparse map is cut off")
        numbers.append(_count(text[position:end], "map"))
        position = end + 1
        wanted = 1 + 2 * numbers[0]
    return _pairs(numbers[1:]), member.offset + -(-position // BLOCK) * BLOCK


def _old_gnu_map(member: Member, read: Read) -> list[tuple[int, int]]:
    """Return the map: 4 pairs in the header, 21 in each block between header and data."""
    first = member.block_offset + BLOCK
    if member.offset - first > _MAX_MAP:
        raise BrokenHeader(f"a sparse map of {member.offset - first} bytes")
    blocks = bytes(read(first, member.offset - first))
    fields = member.block[386:482] + b"".join(blocks[at : at + 504] for at in range(0, len(blocks), BLOCK))
    numbers = [number(fields[at : at + 12], "sparse map") for at in range(0, len(fields), 12) if fields[at]]
    return _pairs(numbers)


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    if len(numbers) % 2:
        raise BrokenHeader("the sparse map has an odd number of entries")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _checked(pairs: list[tuple[int, int]], size: int, start: int, end: int) -> list[Run]:
    runs: list[Run] = []
    position = 0
    for offset, length in pairs:
        if offset < position or length < 0 or offset + length > size or start + length > end:
            raise BrokenHeader(f"the sparse map is wrong: {length} bytes at {offset} of {size}")
        if length:
            runs.append((offset, start, length))
        position, start = offset + length, start + length
    return runs


def _count(text: bytes, keyword: str) -> int:
    if not text.isdigit() or len(text) > 19:
        raise BrokenHeader(f"{keyword} is no number: {text[:40]!r}")
    return int(text)
