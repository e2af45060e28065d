"""Random gzip streams, whole and damaged: both inflaters find what Python's gzip finds."""

import gzip
import io
import zlib
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import pytest
from isal import isal_zlib

from fusefs.tar.gzip_stream import GzipStream
from tests.fuzz.random_archives import archive, damaged

STREAMS = 800
LIBRARIES: dict[str, Any] = {"isal": isal_zlib, "zlib": zlib}
_HEADER_SUM, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16


class Result(NamedTuple):
    """The plain bytes of a stream, and the error at their end, empty if there is none."""

    plain: bytes
    error: str


def _read(read1: Callable[[int], bytes], size: int) -> Result:
    out: list[bytes] = []
    try:
        while data := read1(size):
            assert len(data) <= size
            out.append(data)
    except EOFError:
        return Result(b"".join(out), "truncated")
    except gzip.BadGzipFile as error:
        return Result(b"".join(out), str(error))
    except zlib.error:
        return Result(b"".join(out), "invalid deflate data")
    return Result(b"".join(out), "")


class Pieces(io.RawIOBase):
    """A stream that arrives in pieces."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = io.BytesIO(data)
        self._size = size

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read at most a piece."""
        data = self._data.read(min(self._size, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def _member(data: bytes, rng: Random) -> bytes:
    """Return a member, its header with any of the optional parts."""
    level, strategy = rng.randint(0, 9), rng.choice((0, 0, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE))
    deflate = zlib.compressobj(level, zlib.DEFLATED, -rng.randint(9, 15), rng.randint(1, 9), strategy)
    body = b""
    for start in range(0, len(data), size := rng.choice((100, 5_000, 1 << 20))):
        body += deflate.compress(data[start : start + size])
        if rng.randint(0, 3) == 0:
            body += deflate.flush(rng.choice((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)))
    body += deflate.flush()
    flags = rng.choice((0, _NAME, _NAME, rng.randint(0, 255)))
    parts = b""
    if flags & _EXTRA:
        extra = rng.randbytes(rng.choice((0, 6, 300)))
        parts += len(extra).to_bytes(2, "little") + extra
    for text in (_NAME, _COMMENT):
        if flags & text:
            parts += b"n" * rng.choice((0, 5, 500)) + b"\0"
    if flags & _HEADER_SUM:
        parts += rng.randbytes(2)  # not compared
    trailer = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return b"\x1f\x8b\x08" + bytes([flags]) + rng.randbytes(6) + parts + body + trailer


def _stream(rng: Random) -> bytes:
    plain = archive(rng) * rng.choice((1, 1, 1, 40))
    cuts = sorted(rng.randrange(len(plain) + 1) for _ in range(rng.choice((0, 0, 1, 3, 30))))
    parts = [plain[start:end] for start, end in zip([0, *cuts], [*cuts, len(plain)], strict=True)]
    return b"".join(_member(part, rng) + bytes(rng.choice((0, 0, 0, 1, 512))) for part in parts)


def _ended(data: bytes, rng: Random) -> bytes:
    """Return *data* with something behind it."""
    return data + rng.choice((b"x", b"\x1f", b"\x1f\x8b", b"garbage", rng.randbytes(30), bytes(9), bytes(9) + b"\x1f"))


def _agree(data: bytes, rng: Random) -> Result:
    """Return the result of Python's gzip, which both inflaters must have, whatever the pieces."""
    expected = _read(gzip.GzipFile(fileobj=io.BytesIO(data)).read1, 1 << 20)
    for name, library in LIBRARIES.items():
        size, piece = rng.choice((1, 600, 1 << 20)), rng.choice((1, 7, 600, 1 << 20))
        if len(data) > 1 << 16 or len(expected.plain) > 1 << 16:
            size, piece = 1 << 20, 1 << 20
        found = _read(GzipStream(io.BufferedReader(Pieces(data, piece), 1 << 18), library).read1, size)
        assert found.error == expected.error, name
        if expected.error:  # at the damage they may give up at different bytes
            assert found.plain.startswith(expected.plain) or expected.plain.startswith(found.plain), name
        else:
            assert found == expected, name
    return expected


@pytest.mark.parametrize("seed", range(4))
def test_whole_streams(seed: int) -> None:
    rng = Random(seed)
    for _ in range(STREAMS // 16):
        assert _agree(_stream(rng), rng).error == ""


@pytest.mark.parametrize("seed", range(4))
def test_damaged_streams(seed: int) -> None:
    rng = Random(seed)
    errors = 0
    for _ in range(STREAMS // 4):
        damage = rng.choice((damaged, damaged, _ended))
        errors += bool(_agree(damage(_stream(rng), rng), rng).error)
    assert errors > STREAMS // 8
