"""One tar header block, and the records of a PAX extended header, as typed values.

Formats: V7, POSIX.1-1988 ustar, GNU, star, and POSIX.1-2001 PAX.  Where readers disagree, this one
follows Go's archive/tar: the engines read images with it.
"""

import re
from enum import Enum
from typing import NamedTuple
from zlib import adler32

BLOCK = 512
"""Bytes in a tar block; headers and padding are multiples of it."""

_ZEROS = bytes(BLOCK)
_GNU_MAGIC = b"ustar  \0"
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_SPARSE_0_0 = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_PAX_LENGTH = re.compile(rb"[0-9]{1,10} ")


class Kind(Enum):
    """A member's type, in words; several typeflags may mean the same type."""

    REGULAR = "regular file"
    HARD_LINK = "hard link"
    SYMLINK = "symbolic link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"
    OTHER = "member of an unknown type"
    PAX = "PAX extended header"
    PAX_GLOBAL = "PAX global extended header"
    GNU_LONG_NAME = "GNU long name"
    GNU_LONG_LINK = "GNU long link name"


_KINDS = {
    b"\0": Kind.REGULAR,
    b"0": Kind.REGULAR,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
    b"7": Kind.REGULAR,
    b"S": Kind.REGULAR,
    b"x": Kind.PAX,
    b"g": Kind.PAX_GLOBAL,
    b"L": Kind.GNU_LONG_NAME,
    b"K": Kind.GNU_LONG_LINK,
}

WITHOUT_DATA = frozenset(
    {Kind.HARD_LINK, Kind.SYMLINK, Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE, Kind.DIRECTORY, Kind.FIFO}
)
"""Kinds whose header is followed by no data, whatever its size field holds."""

EXTENDED = frozenset({Kind.PAX, Kind.GNU_LONG_NAME, Kind.GNU_LONG_LINK})
"""Kinds that describe the member after them."""


class BrokenHeader(ValueError):
    """The block is not a tar header; the message gives the reason, without the offset."""


class Header(NamedTuple):
    """The fields of one header block, without extended headers.

    A tuple, like all values that are made for each member of a layer.
    """

    kind: Kind
    name: bytes
    link: bytes
    """Target of a symbolic or hard link, otherwise empty."""
    size: int
    """Bytes of data after the header, from the size field."""
    legacy_type: bool
    """Typeflag NUL: a name that ends with a slash makes it a directory."""
    gnu_sparse: bool
    extended_sparse: bool
    """More blocks of the GNU sparse map lie between this header and the data."""


def is_zero(block: bytes | bytearray) -> bool:
    """Return whether *block* has only zero bytes."""
    return block == _ZEROS if len(block) == BLOCK else not any(block)


def is_header(block: bytes | bytearray) -> bool:
    """Return whether *block* begins with a tar header whose checksum is right."""
    return len(block) >= BLOCK and not is_zero(block[:BLOCK]) and _checksum_matches(bytes(block[:BLOCK]))


def parse_header(block: bytes) -> Header:
    """Return the header in a *block* of 512 bytes that are not all zero; BrokenHeader if it is not a header."""
    if not _checksum_matches(block):
        raise BrokenHeader("the checksum does not match")
    size = number(block[124:136], "size")
    if size < 0:
        raise BrokenHeader(f"negative size {size}")
    typeflag = block[156:157]
    sparse = typeflag == b"S" and block[257:265] == _GNU_MAGIC
    return Header(
        kind=_KINDS.get(typeflag, Kind.OTHER),
        name=stored_name(block),
        link=_string(block[157:257]),
        size=size,
        legacy_type=typeflag == b"\0",
        gnu_sparse=sparse,
        extended_sparse=sparse and block[482] != 0,
    )


def stored_name(block: bytes) -> bytes:
    """Return the name in a header *block*: ustar and star divide it into a prefix and the rest."""
    name = block[:100].partition(b"\0")[0]
    if not block[345] and not block[357]:  # no prefix, and neither atime nor ctime of GNU tar
        return name
    magic = block[257:265]
    prefix = b""
    if magic[:6] == b"ustar\0":
        star = block[508:512] == b"tar\0"
        prefix = _string(block[345:476] if star else block[345:500])
    elif magic == _GNU_MAGIC and not all(map(_is_time, (block[345:357], block[357:369]))):
        prefix = _string(block[345:500])
        if not prefix.isascii():
            prefix = b""
    return prefix + b"/" + name if prefix else name


def _is_time(field: bytes) -> bool:
    """Return whether archive/tar takes *field* for GNU tar's atime or ctime.

    Go before 1.8 wrote a ustar prefix in their place.  The rule is that of readHeader in Go's
    src/archive/tar/reader.go, with parseNumeric and parseOctal of strconv.go: the two are a prefix if one of
    them begins with no NUL and is no number of 63 bits, and the prefix is ASCII (golang.org/issues/12594, 21005).
    """
    if not field[0]:
        return True
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:  # negative, in two's complement
            value ^= (1 << (8 * len(field) - 1)) - 1
        return value < 1 << 63
    digits = _string(field.strip(b" \0"))
    return not digits or not digits.translate(None, b"01234567")


def number(field: bytes, field_name: str) -> int:
    """Return the value of a numeric header field: octal text, or base-256 as GNU tar writes it."""
    digits = field[:-1]
    try:
        if digits.isdigit() and field[-1] in b"\0 ":  # as nearly all are written
            return int(digits, 8)
        if field[0] & 0x80:
            value = int.from_bytes(field, "big")
            bits = 8 * len(field)
            # Bit 6 of the first byte is the sign; the marker bit above it does not count.
            return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
        digits = field.strip(b" \0").partition(b"\0")[0]
        if not digits:
            return 0
        if digits.isdigit():  # int() alone would take signs, spaces and underscores
            return int(digits, 8)
    except ValueError:
        pass
    raise BrokenHeader(f"the {field_name} field is no octal number: {field!r}")


def pax_records(data: bytes) -> dict[bytes, bytes]:
    r"""Return the records of a PAX extended header (POSIX.1-2001, "pax Header Block").

    Each record is ``"%d %s=%s\n" % (length of the whole record, keyword, value)``.  A record
    with an empty value takes the keyword back.  BrokenHeader on anything else.
    """
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        match = _PAX_LENGTH.match(data, position)
        if match is None:
            raise BrokenHeader(f"PAX record {len(records) + 1} has no length")
        end = position + int(match[0])
        record = data[match.end() : end]
        if end > len(data) or not record.endswith(b"\n"):
            raise BrokenHeader(f"PAX record {len(records) + 1} has a wrong length {int(match[0])}")
        keyword, equals, value = record[:-1].partition(b"=")
        if not keyword or not equals:
            raise BrokenHeader(f"PAX record {len(records) + 1} has no keyword")
        if keyword in _SPARSE_0_0:  # these two repeat: together they are the map of later versions
            before = records.get(b"GNU.sparse.map")
            records[b"GNU.sparse.map"] = value if before is None else before + b"," + value
        elif value:
            records[keyword] = value
        else:
            records.pop(keyword, None)
        position = end
    return records


def pax_size(value: bytes) -> int:
    """Return the value of a PAX ``size`` record, in bytes."""
    if _DECIMAL.fullmatch(value) is None:
        raise BrokenHeader(f"the PAX record size is no number: {value[:40]!r}")
    return int(value)


def _checksum_matches(block: bytes) -> bool:
    try:
        stated = stated_sum(block[148:156])
    except BrokenHeader:
        return False
    unsigned = byte_sum(block)
    if stated == unsigned:
        return True
    # Old tars summed signed characters.
    high = sum(1 for byte in block[:148] + block[156:] if byte > 0x7F)
    return stated == unsigned - 256 * high


def stated_sum(field: bytes) -> int:
    """Return the sum of all bytes of a header that has this checksum *field*; BrokenHeader if it is not a number."""
    return number(field, "checksum") + sum(field) - 8 * 0x20  # the checksum counts its own field as spaces


def byte_sum(block: bytes) -> int:
    """Return the sum of the bytes of a *block*.

    The low half of an Adler-32 is 1 + the sum, modulo 65521 (RFC 1950): no modulo if the sum cannot be as large.
    """
    if block.isascii():  # 512 * 127 at most
        return (adler32(block) & 0xFFFF) - 1
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2


def _string(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
