"""The memory that a compressed stream states it needs, for messages: the libraries tell only that it is too much."""

_SKIPPABLE = b"\x2a\x4d\x18"
_SIZES = {0: 1, 1: 2, 2: 4, 3: 8}
"""Bytes of a zstd frame's content size, by its flag."""
_DICTIONARY_IDS = (0, 1, 2, 4)
"""Bytes of a zstd dictionary's number, by its flag."""
_LZMA2 = 0x21
_LARGEST = 40
"""The code of an LZMA2 dictionary of 4 GiB - 1."""


def zstd_window(data: bytes) -> int | None:
    """Return the bytes of the window of the first frame in *data*, None if that does not say (RFC 8878, 3.1.1.1)."""
    while data[1:4] == _SKIPPABLE:
        data = data[8 + int.from_bytes(data[4:8], "little") :]
    if len(data) < 18:  # a whole header
        data += bytes(18)
    descriptor = data[4]
    if not descriptor & 0x20:
        base = 1 << (10 + (data[5] >> 3))
        return base + (base >> 3) * (data[5] & 7)
    at = 5 + _DICTIONARY_IDS[descriptor & 3]  # a single segment: the window is as large as the content
    size = _SIZES[descriptor >> 6]
    return int.from_bytes(data[at : at + size], "little") + (256 if size == 2 else 0)


def xz_dictionary(data: bytes) -> int | None:
    """Return the bytes of the dictionary of the first block in *data*, None if it has none (xz 1.2, 3.1 and 5.3.1)."""
    header = data[12 : 12 + (data[12] + 1) * 4] if len(data) > 12 else b""
    if len(header) < 2:
        return None
    at = 2
    for present in (0x40, 0x80):  # the sizes of the block
        if header[1] & present:
            _, at = _number(header, at)
    for _ in range((header[1] & 3) + 1):
        name, at = _number(header, at)
        size, at = _number(header, at)
        code = header[at] if at < len(header) else _LARGEST + 1
        if name == _LZMA2 and code <= _LARGEST:
            return (1 << 32) - 1 if code == _LARGEST else (2 | code & 1) << (code // 2 + 11)
        at += size
    return None


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length and the position behind it (xz, 1.2)."""
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            break
    return value, at
