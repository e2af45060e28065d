"""Compression formats, told from the first bytes, never from a name."""

import re
from enum import Enum

from fusefs.content import Bytes
from fusefs.tarheader import BLOCK, is_header

FIRST_BYTES = BLOCK
"""How many bytes of a file `compression_of` wants to see."""


class Compression(Enum):
    """How a stream is compressed."""

    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


_MAGIC = {
    Compression.GZIP: re.compile(rb"\x1f\x8b\x08"),  # RFC 1952
    Compression.ZSTD: re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),  # RFC 8878, both frames
    Compression.XZ: re.compile(rb"\xfd7zXZ\0"),
    Compression.BZIP2: re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"),
}


def compression_of(first: Bytes) -> Compression | None:
    """Return the format of a stream that begins with *first*, None for a plain one.

    A valid tar header is plain whatever its first bytes are: they are a file name.
    """
    if is_header(first):
        return None
    for compression, magic in _MAGIC.items():
        if magic.match(first):
            return compression
    return None
