"""Compression formats: detected from the first bytes, never from a name; decompressed by their libraries."""

import contextlib
import importlib
import io
import re
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from enum import Enum
from typing import Any

from fusefs.content.protocol import Bytes
from fusefs.errors import ImgfsError, InvalidImage, Unsupported
from fusefs.tar.header import BLOCK, is_header
from fusefs.tar.windows import xz_dictionary, zstd_window

FIRST_BYTES = BLOCK
"""Bytes of a file that `compression_of` needs."""

_WINDOW_LOG, _LARGE_WINDOW_LOG = 27, 29
"""Limits of a zstd window and an xz dictionary: 2^27 bytes at any time, up to 2^29 for one stream at a time.

The first is that of the zstd command (--long=27), the second that of Podman and skopeo (klauspost/compress/zstd).
"""
_LARGE_WINDOW = threading.Lock()
"""Held by the stream that has a large window."""
_XZ_OVERHEAD = 1 << 20
"""Bytes that liblzma counts besides the dictionary; it takes some 64 KiB."""
_TOO_LARGE = ("requires too much memory", "Memory usage limit")
"""Texts of libzstd's windowTooLarge and of liblzma's LZMA_MEMLIMIT_ERROR."""
_NO_MEMORY = "not enough memory"
"""Text of libzstd's error memory_allocation, for which the libraries have no MemoryError."""
_MAX_FIRST = 1 << 16
"""Bytes of a stream in which its window or dictionary is told."""
_CHUNK = 1 << 20
_ENOUGH = 1 << 18
"""Plain bytes that are passed on without waiting for more, which would be copied together."""
_BUFFER = 1 << 18


class Compression(Enum):
    """The format of a compressed stream."""

    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"
    UNKNOWN = "unknown"
    """Compressed in a way that only the first bytes tell."""


_MAGIC = {
    Compression.GZIP: re.compile(rb"\x1f\x8b\x08"),  # RFC 1952
    Compression.ZSTD: re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),  # RFC 8878, both frames
    Compression.XZ: re.compile(rb"\xfd7zXZ\0"),
    Compression.BZIP2: re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"),
}
_UNREAD = re.compile(rb"\x04\x22\x4d\x18|LZIP|\x1f\x9d|\x5d\x00\x00")
"""First bytes of lz4, lzip, compress and the older lzma: formats that imgfs does not read."""
_MODULES = {
    Compression.GZIP: "fusefs.tar.gzip_stream",
    Compression.ZSTD: "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
    Compression.XZ: "lzma",
    Compression.BZIP2: "bz2",
}
"""Their libraries, imported when needed."""


def compression_of(first: Bytes) -> Compression | None:
    """Return the format of a stream that begins with *first*, None for a plain one.

    A valid tar header is plain whatever its first bytes are: these are a file name.
    """
    if is_header(first):
        return None
    for compression, magic in _MAGIC.items():
        if magic.match(first):
            importlib.import_module(_MODULES[compression])  # now: a serving process opens as few files as possible
            return compression
    return None


def is_unread(first: Bytes) -> bool:
    """Return whether a stream that begins with *first* has a compression format that imgfs does not read."""
    return not is_header(first) and _UNREAD.match(first) is not None


def decompressed(stream: Iterable[Bytes], compression: Compression, where: str) -> Generator[bytes, None, None]:
    """Yield the plain bytes of *stream*, up to two MiB at a time.

    Raises InvalidImage, naming *where* and the offset, if the stream is corrupt or truncated, and Unsupported
    if it needs more than 512 MiB of memory.  MemoryError and exceptions of *stream* are passed on.
    """
    compressed = _Compressed(stream)
    with _opened(io.BufferedReader(compressed, _BUFFER), compression) as file:
        damage: ImgfsError | None = None
        while damage is None:
            parts: list[bytes] = []
            try:
                # Piece by piece, so that bytes before the damage are still yielded.
                while sum(map(len, parts)) < _ENOUGH and (data := file.read1(_CHUNK)):
                    parts.append(data)
            except _TooLarge as error:
                damage = Unsupported(f"{where}: cannot read {compression.value} data with {error}")
            except EOFError:
                damage = InvalidImage(
                    f"{where}: truncated: the {compression.value} stream ends at offset {compressed.position}"
                )
            except Exception as error:
                if error is compressed.failure or isinstance(error, MemoryError):
                    raise
                if _NO_MEMORY in str(error):
                    raise MemoryError(str(error)) from None
                damage = InvalidImage(
                    f"{where}: corrupt {compression.value} data before offset {compressed.position}: {error}"
                )
            if parts:
                yield b"".join(parts)
            elif damage is None:
                return
        raise damage


def _opened(file: io.BufferedReader, compression: Compression) -> Any:
    """Return the plain bytes of *file* as a file with ``read1``."""
    module = importlib.import_module(_MODULES[compression])
    match compression:
        case Compression.GZIP:
            return contextlib.closing(module.GzipStream(file))
        case Compression.BZIP2:
            return contextlib.closing(_Streams(file, lambda _: module.BZ2Decompressor()))
        case Compression.XZ:
            # The default also accepts the older .lzma, and takes xz's padding for the beginning of one.
            return contextlib.closing(
                _Streams(
                    file,
                    lambda log: module.LZMADecompressor(module.FORMAT_XZ, (1 << log) + _XZ_OVERHEAD),
                    xz_dictionary,
                )
            )
        case Compression.ZSTD:
            limit = module.DecompressionParameter.window_log_max
            return contextlib.closing(
                _Streams(file, lambda log: module.ZstdDecompressor(options={limit: log}), zstd_window, padding=b"")
            )


class _TooLarge(Exception):
    """A stream wants more memory for its dictionary or window than it may have."""


class _Streams:
    """Consecutive streams of one format, with padding between and after them: zeros, of xz or of a tape.

    Python's own files of xz and bzip2 take a damaged stream for a clean end, unless it is the first.
    """

    def __init__(
        self,
        file: io.BufferedReader,
        begin: Callable[[int], Any],
        stated: Callable[[bytes], int | None] = lambda _: None,
        padding: bytes = b"\0",
    ) -> None:
        """Read *file*; *begin* returns a decompressor for one stream, of at most 2^(its argument) bytes of window.

        *stated* returns the bytes of the window that a stream states in its first bytes.
        """
        self._file = file
        self._begin = begin
        self._stated = stated
        self._padding = padding
        self._log = _WINDOW_LOG
        self._stream = begin(self._log)
        self._first: bytes | None = b""
        """All of the stream so far, while no plain byte has come out of it."""

    def read1(self, size: int) -> bytes:
        """Return some of the plain bytes, at most *size*; empty at the end.  Raises EOFError and _TooLarge."""
        plain = b""
        while not plain:
            data = b""
            if self._stream.eof:
                data = self._stream.unused_data.lstrip(self._padding)
                while not data:
                    if not (more := self._file.read1(_BUFFER)):
                        return b""
                    data = more.lstrip(self._padding)
                self._stream, self._first = self._begin(self._log), b""
            elif self._stream.needs_input and not (data := self._file.read1(_BUFFER)):
                raise EOFError
            plain = self._decompressed(data, size)
        return plain

    def close(self) -> None:
        """Let others have a large window."""
        self._stream = None
        if self._log == _LARGE_WINDOW_LOG:
            self._log = _WINDOW_LOG
            _LARGE_WINDOW.release()

    def _decompressed(self, data: bytes, size: int) -> bytes:
        if self._first is not None:
            self._first = self._first + data if len(self._first) < _MAX_FIRST else None
        try:
            plain: bytes = self._stream.decompress(data, size)
        except Exception as error:
            if not any(words in str(error) for words in _TOO_LARGE):
                raise
            if self._first is None or self._log == _LARGE_WINDOW_LOG:
                raise _TooLarge(self._refusal()) from None
            _LARGE_WINDOW.acquire()
            self._log = _LARGE_WINDOW_LOG
            self._stream = self._begin(self._log)
            first, self._first = self._first, b""
            return self._decompressed(first, size)
        if plain:
            self._first = None
        return plain

    def _refusal(self) -> str:
        """Return which window is too large, and how large it may be."""
        allowed = 1 << (self._log - 20)
        wanted = None if self._first is None else self._stated(self._first)
        if wanted is None:
            return f"a window or dictionary of more than {allowed} MiB behind its beginning; {allowed} MiB are allowed"
        return f"a window or dictionary of {-(-wanted >> 20)} MiB; {allowed} MiB are allowed"


class _Compressed(io.RawIOBase):
    """A stream of chunks as a file, for the libraries."""

    def __init__(self, stream: Iterable[Bytes]) -> None:
        self._stream = iter(stream)
        self._rest = memoryview(b"")
        self.position = 0
        """Bytes read so far."""
        self.failure: Exception | None = None
        """An exception of the stream itself, to tell it from the libraries' errors."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            try:
                chunk = next(self._stream, None)
            except Exception as error:
                self.failure = error
                raise
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self.position += count
        return count
