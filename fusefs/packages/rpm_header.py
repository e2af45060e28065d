"""The header of an installed package, as rpm stores it in its database (rpm: docs/manual/format_header.md).

Two numbers of 4 bytes, big-endian: how many entries, and how many bytes of data.  Then the entries, of four numbers
each: tag, type, offset in the data, count.  Then the data.
"""

import struct

from fusefs.packages.database import MAX_WORD, Package, package

_NAME, _VERSION, _RELEASE, _EPOCH, _ARCHITECTURE = 1000, 1001, 1002, 1003, 1022
"""Tags."""
_INT32, _STRING, _I18NSTRING = 4, 6, 9
"""Types."""
_LENGTHS = struct.Struct(">II")
_ENTRY = struct.Struct(">IIII")
_MAX_ENTRIES = 1 << 16
"""rpm's own limit."""
_NUMBER = struct.Struct(">I")


def package_in(header: bytes) -> Package | None:
    """Return the package that *header* describes, None if it is of no package; ValueError if it is malformed."""
    if len(header) < _LENGTHS.size:
        raise ValueError("a header is too short")
    entries, length = _LENGTHS.unpack_from(header)
    start = _LENGTHS.size + entries * _ENTRY.size
    if entries > _MAX_ENTRIES or start + length > len(header):
        raise ValueError("a header is longer than its bytes")
    words: dict[int, bytes] = {}
    for tag, kind, offset, count in _ENTRY.iter_unpack(header[_LENGTHS.size : start]):
        if tag not in (_NAME, _VERSION, _RELEASE, _EPOCH, _ARCHITECTURE) or not count:
            continue
        at = start + offset
        if tag == _EPOCH and kind == _INT32 and offset + _NUMBER.size <= length:
            (epoch,) = _NUMBER.unpack_from(header, at)
            words[tag] = b"%d" % epoch
        elif tag != _EPOCH and kind in (_STRING, _I18NSTRING) and offset < length:
            limit = min(start + length, at + MAX_WORD + 1)  # longer ones are no words; entries may share the bytes
            end = header.find(b"\0", at, limit)
            words[tag] = header[at : end if end >= 0 else limit]
    version = words.get(_VERSION, b"")
    if _EPOCH in words:
        version = words[_EPOCH] + b":" + version
    if release := words.get(_RELEASE):
        version += b"-" + release
    return package("rpm", words.get(_NAME, b""), version, words.get(_ARCHITECTURE, b""))
