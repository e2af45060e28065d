"""Decompresses pieces of layers, each by itself, and streams of a known kind within limits."""

import importlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fusefs.chunked.toc import Unusable

_CHUNK = 1 << 18
_STEP = 1 << 16
"""Compressed bytes that are given to a library at once: it copies those that it does not need yet."""
_WINDOW_LOG = 27
"""Limit of a zstd window, as in `tar.compression`."""
_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_GZIP = 31
"""zlib's number for gzip."""
_SLACK = 1 << 12
_MAX_FRAMES = 16
"""Frames of a piece.  Builders write one, and an empty one now and then; all that follow a frame are copied."""

Decompress = Callable[[bytes, int, int], bytes]
"""Returns the plain bytes of a piece: (compressed bytes, offset in their plain bytes, size).  ValueError if damaged."""


def from_zstd(data: bytes, inner: int, size: int) -> bytes:
    """Return *size* plain bytes, all that the frames *data* have."""
    plain = b"".join(_zstd(memoryview(data), size))
    if inner or len(plain) != size:
        raise ValueError(f"it has not {size} bytes")
    return plain


def from_gzip(data: bytes, inner: int, size: int) -> bytes:
    """Return *size* plain bytes from *inner* on, of a member that *data* begin with; what follows is not read."""
    try:
        plain = zlib.decompressobj(_GZIP).decompress(data, inner + size)[inner:]
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(plain) != size:
        raise ValueError(f"it has not {size} bytes")
    return plain


def needed(inner: int, size: int) -> int:
    """Return how many bytes of deflate data *size* bytes from *inner* on take at most."""
    return inner + size + (inner + size >> 4) + _SLACK


def zstd_stream(data: memoryview, limit: int, name: str) -> Iterator[bytes]:
    """Yield the plain bytes of *data*, exactly *limit*; *name* is for messages."""
    yield from _exactly(_zstd(data, limit), limit, name)


def _exactly(pieces: Iterator[bytes], size: int, name: str) -> Iterator[bytes]:
    total = 0
    try:
        for piece in pieces:
            total += len(piece)
            yield piece
    except ValueError as error:
        raise Unusable(f"{name} is damaged: {error}") from None
    if total != size:
        raise Unusable(f"{name} has {total} bytes, the manifest says {size}")


def _zstd(data: memoryview, limit: int) -> Iterator[bytes]:
    """Yield the plain bytes of all frames; ValueError for more than *limit*, and for damage."""
    library: Any = importlib.import_module(_ZSTD)
    options = {library.DecompressionParameter.window_log_max: _WINDOW_LOG}
    at = 0
    try:
        for _ in range(_MAX_FRAMES):
            if at == len(data):
                return
            frame = library.ZstdDecompressor(options=options)
            while not frame.eof:
                fed = data[at : at + _STEP] if frame.needs_input else b""
                at += len(fed)
                plain = frame.decompress(fed, min(_CHUNK, limit + 1))
                limit -= len(plain)
                if limit < 0:
                    raise ValueError("it has more bytes than stated")
                if plain:
                    yield plain
                elif not frame.eof and frame.needs_input and at == len(data):
                    raise ValueError("it is cut off")
            at -= len(frame.unused_data)
        raise ValueError("it has too many frames")
    except library.ZstdError as error:
        raise ValueError(str(error)) from None


def gzip_stream(parts: Iterable[bytes], limit: int, name: str) -> Iterator[bytes]:
    """Yield the plain bytes of the first gzip member in *parts*; Unusable for more than *limit*, and for damage."""
    member = zlib.decompressobj(_GZIP)
    steps = (memoryview(part)[at : at + _STEP] for part in parts for at in range(0, len(part), _STEP))
    fed: bytes | memoryview = b""
    total = 0
    while not member.eof:
        fed = fed or next(steps, b"")
        try:
            plain = member.decompress(fed, _CHUNK)
        except zlib.error as error:
            raise Unusable(f"{name} is damaged: {error}") from None
        if not plain and not fed and not member.eof:
            raise Unusable(f"{name} is cut off")
        fed = member.unconsumed_tail
        total += len(plain)
        if total > limit:
            raise Unusable(f"{name} has more than {limit} bytes")
        if plain:
            yield plain
