"""Compression formats: told from the first bytes, and decompressed."""

import errno
import gc
import gzip
import importlib
import io
import random
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from isal import isal_zlib

from fusefs.errors import InvalidImage, Unavailable, Unsupported
from fusefs.tar import gzip_stream
from fusefs.tar.compression import FIRST_BYTES, Compression, compression_of, decompressed, is_unread
from tests.support.builders import COMPRESSIONS, END, LAYERS, header, layer


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("data", [LAYERS[0], b""], ids=["a layer", "nothing"])
def test_each_format_is_told(name: str, data: bytes) -> None:
    assert compression_of(COMPRESSIONS[name](data)[:FIRST_BYTES]) is Compression(name)


@pytest.mark.parametrize("nibble", range(16))
def test_a_skippable_zstd_frame_is_zstd(nibble: int) -> None:
    first = bytes([0x50 + nibble]) + b"\x2a\x4d\x18" + bytes(20)
    assert compression_of(first) is Compression.ZSTD


@pytest.mark.parametrize("level", range(1, 10))
def test_each_level_of_bzip2_is_bzip2(level: int) -> None:
    assert compression_of(b"BZh%d1AY&SY" % level) is Compression.BZIP2


@pytest.mark.parametrize(
    "first",
    [b"", b"\x1f\x8b", b"\x28\xb5\x2f", b"\xfd7zXZ", b"BZh9", b"BZh01AY&SY", b"plain text", END, LAYERS[0][:512]],
)
def test_all_else_is_plain(first: bytes) -> None:
    assert compression_of(first) is None


@pytest.mark.parametrize(
    "name", [b"BZh91AY&SY", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"\x50\x2a\x4d\x18"]
)
def test_a_tar_whose_first_file_has_such_a_name_is_plain(name: bytes) -> None:
    assert compression_of(header(name)) is None
    assert compression_of(bytearray(header(name))) is None


def test_a_name_like_that_in_a_broken_header_is_no_tar() -> None:
    first = layer({"BZh91AY&SY": b""})[:FIRST_BYTES]
    assert compression_of(first[:-1] + b"\1") is Compression.BZIP2


NOISE = random.Random(1).randbytes(3 << 20)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Yield *data* in pieces of *size* bytes."""
    yield from (data[start : start + size] for start in range(0, len(data), size))


def plain(data: bytes, compression: str, size: int = 1 << 16) -> bytes:
    """Return what comes out of compressed *data*."""
    return b"".join(decompressed(pieces(data, size), Compression(compression), "x"))


def failure(data: bytes, compression: str) -> tuple[bytes, str]:
    """Return what still comes out of damaged *data*, and what is said then."""
    out: list[bytes] = []
    with pytest.raises(InvalidImage) as caught:
        out.extend(decompressed(pieces(data, 1000), Compression(compression), "x"))
    return b"".join(out), str(caught.value)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("data", [b"", b"x", LAYERS[0], NOISE], ids=["nothing", "a byte", "a layer", "3 MiB"])
def test_what_was_compressed_comes_out(compression: str, data: bytes) -> None:
    assert plain(COMPRESSIONS[compression](data), compression) == data


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_it_may_come_byte_by_byte_and_with_nothing_between(compression: str) -> None:
    data = COMPRESSIONS[compression](LAYERS[0])
    spaced = [piece for byte in pieces(data, 1) for piece in (b"", byte)]
    assert b"".join(decompressed(spaced, Compression(compression), "x")) == LAYERS[0]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_it_may_be_many_members_or_frames_empty_ones_too(compression: str) -> None:
    parts = (b"", LAYERS[0], b"", NOISE, b"", LAYERS[2], b"")
    assert plain(b"".join(map(COMPRESSIONS[compression], parts)), compression) == b"".join(parts)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_it_comes_a_mib_or_two_at_a_time(compression: str) -> None:
    data = COMPRESSIONS[compression](bytes(64 << 20))
    sizes = [len(part) for part in decompressed([data], Compression(compression), "x")]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 2 << 20


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_cut_at_any_place_is_never_a_clean_end(compression: str) -> None:
    data = COMPRESSIONS[compression](LAYERS[0])
    for end in range(10, len(data)):  # with fewer bytes bzip2 is not told
        out, message = failure(data[:end], compression)
        assert message == f"x: truncated: the {compression} stream ends at offset {end}"
        assert LAYERS[0].startswith(out)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_cut_in_a_later_member_or_frame_is_found(compression: str) -> None:
    first, second = COMPRESSIONS[compression](LAYERS[0]), COMPRESSIONS[compression](LAYERS[2])
    out, message = failure((first + second)[:-3], compression)
    assert out.startswith(LAYERS[0])
    assert message == f"x: truncated: the {compression} stream ends at offset {len(first + second) - 3}"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_precedes_the_damage_comes_out_and_the_offset_is_named(compression: str) -> None:
    data = bytearray(COMPRESSIONS[compression](NOISE))
    middle, length = len(data) // 2, 300 << 10
    data[middle : middle + length] = b"\xff" * length
    out, message = failure(bytes(data), compression)
    assert out[: 800 << 10] == NOISE[: 800 << 10]
    match = re.fullmatch(rf"x: corrupt {compression} data before offset (\d+): .+", message)
    assert match is not None
    assert middle < int(match[1]) <= len(data)


@pytest.mark.parametrize("error", [Unavailable("gone"), OSError(errno.EIO, "broken disk"), ZeroDivisionError()])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_error_of_the_stream_itself_is_passed_on(compression: str, error: Exception) -> None:
    def stream() -> Iterator[bytes]:
        yield COMPRESSIONS[compression](NOISE)[: 1 << 20]
        raise error

    with pytest.raises(type(error)) as caught:
        list(decompressed(stream(), Compression(compression), "x"))
    assert caught.value is error


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_who_stops_reading_leaves_nothing_open(compression: str) -> None:
    reading = decompressed([COMPRESSIONS[compression](bytes(8 << 20))], Compression(compression), "x")
    next(reading)
    reading.close()
    gc.collect()  # an unclosed file would warn, which is a failure


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("place", ["its first byte", "its header", "its middle"])
def test_a_damaged_stream_after_a_whole_one_is_no_clean_end(compression: str, place: str) -> None:
    first, second = COMPRESSIONS[compression](LAYERS[0]), bytearray(COMPRESSIONS[compression](NOISE))
    start = {"its first byte": 0, "its header": 2, "its middle": len(second) // 2}[place]
    second[start : start + (300 << 10)] = b"\xfe" * len(second[start : start + (300 << 10)])
    out, message = failure(first + bytes(second), compression)
    assert out.startswith(LAYERS[0])
    assert message.startswith(f"x: corrupt {compression} data before offset ")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_neither_is_one_that_is_cut(compression: str) -> None:
    first, second = COMPRESSIONS[compression](LAYERS[0]), COMPRESSIONS[compression](LAYERS[2])
    for end in range(1, len(second)):
        out, message = failure(first + second[:end], compression)
        assert out.startswith(LAYERS[0])
        assert f"offset {len(first) + end}" in message


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_nor_is_anything_else_behind_one(compression: str) -> None:
    assert "corrupt" in failure(COMPRESSIONS[compression](LAYERS[0]) + b"something else", compression)[1]


@pytest.mark.parametrize("compression", ["gzip", "xz", "bzip2"])
@pytest.mark.parametrize("padding", [4, 512, 10240, 1 << 20])
def test_zeros_between_and_behind_streams_are_padding(compression: str, padding: int) -> None:
    parts = (LAYERS[0], b"", LAYERS[2])
    data = b"".join(COMPRESSIONS[compression](part) + bytes(padding) for part in parts)
    assert plain(data, compression) == b"".join(parts)


def with_zstd_window(log: int, mantissa: int = 0) -> bytes:
    """Return a zstd frame whose window has 2^*log* bytes and so many eighths more (RFC 8878, 3.1.1.1.2)."""
    module = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    frame = bytearray(module.compress(LAYERS[0], options={module.CompressionParameter.content_size_flag: 0}))
    assert not frame[4] & 0xE3  # no single segment, content size or dictionary: the window follows
    frame[5] = (log - 10) << 3 | mantissa
    return bytes(frame)


def with_xz_dictionary(code: int) -> bytes:
    """Return an xz stream of one block with a dictionary of (2 | code & 1) * 2^(code / 2 + 11) bytes (xz, 5.3.1)."""
    stream = bytearray(COMPRESSIONS["xz"](LAYERS[0]))
    end = 12 + (stream[12] + 1) * 4 - 4
    assert stream[13:16] == b"\0\x21\1"  # one filter, LZMA2
    stream[16] = code
    stream[end : end + 4] = zlib.crc32(stream[12:end]).to_bytes(4, "little")
    return bytes(stream)


LARGE = {"zstd": [with_zstd_window(28), with_zstd_window(29)], "xz": [with_xz_dictionary(31), with_xz_dictionary(34)]}
SINGLE = b"\x28\xb5\x2f\xfd"
"""The first bytes of a frame whose window is as large as its content."""
TOO_LARGE = {
    "zstd": [
        (with_zstd_window(29, 1), 576),
        (with_zstd_window(31), 2048),
        (with_zstd_window(41), 2 << 20),
        (SINGLE + b"\xa0" + ((1 << 29) + 1).to_bytes(4, "little") + bytes(9), 513),
        (SINGLE + b"\xe3" + bytes(4) + (1 << 40).to_bytes(8, "little") + bytes(9), 1 << 20),
    ],
    "xz": [(with_xz_dictionary(35), 768), (with_xz_dictionary(37), 1536), (with_xz_dictionary(40), 4096)],
}


@pytest.mark.parametrize("compression", LARGE)
def test_a_window_of_up_to_512_mib_is_read(compression: str) -> None:
    small = COMPRESSIONS[compression](LAYERS[0])
    for large in LARGE[compression]:
        assert plain(large, compression) == LAYERS[0]
        assert plain(large, compression, 1) == LAYERS[0]
        assert plain(small + large + small, compression) == LAYERS[0] * 3


@pytest.mark.parametrize("compression", TOO_LARGE)
def test_a_larger_window_is_not_read_and_not_called_corrupt(compression: str) -> None:
    small = COMPRESSIONS[compression](LAYERS[0])
    for too_large, size in TOO_LARGE[compression]:
        message = f"x: cannot read {compression} data with a window or dictionary of {size} MiB; 512 MiB are allowed"
        for data, before in ((too_large, b""), (small + too_large, LAYERS[0])):
            out: list[bytes] = []
            with pytest.raises(Unsupported) as refused:
                out.extend(decompressed(pieces(data, 7), Compression(compression), "x"))
            assert (b"".join(out), str(refused.value)) == (before, message)


def test_a_larger_dictionary_behind_the_beginning_of_a_stream_is_refused_with_the_limit() -> None:
    blocks = [COMPRESSIONS["xz"](NOISE), with_xz_dictionary(33)]
    first, second = (stream[12 : -12 - int.from_bytes(stream[-8:-4], "little") * 4 - 4] for stream in blocks)
    out: list[bytes] = []
    with pytest.raises(Unsupported) as refused:
        out.extend(decompressed([blocks[0][:12] + first + second], Compression.XZ, "x"))
    reason = "a window or dictionary of more than 128 MiB behind its beginning; 128 MiB are allowed"
    assert str(refused.value) == f"x: cannot read xz data with {reason}"
    assert out
    assert NOISE.startswith(b"".join(out))


@pytest.mark.parametrize("dictionary", [1 << 12, 3 << 29, (1 << 32) - 1])
def test_the_older_lzma_is_not_read_whatever_its_dictionary(dictionary: int) -> None:
    first = b"\x5d" + dictionary.to_bytes(4, "little") + bytes(100)
    assert compression_of(first) is None
    assert is_unread(first) == (dictionary & 0xFFFF == 0)  # as file(1) tells it


def test_one_stream_at_a_time_has_a_large_window() -> None:
    def reading(name: str, data: bytes) -> Iterator[bytes]:
        return decompressed([data], Compression(name), "x")

    first = reading("zstd", with_zstd_window(28))
    assert next(first) == LAYERS[0]
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(list, reading("xz", with_xz_dictionary(34)))
        assert plain(COMPRESSIONS["zstd"](LAYERS[0]), "zstd") == LAYERS[0]
        assert not other.done()
        assert list(first) == []
        assert b"".join(other.result(timeout=60)) == LAYERS[0]
    abandoned = reading("zstd", with_zstd_window(28))
    next(abandoned)
    del abandoned
    assert plain(with_zstd_window(29), "zstd") == LAYERS[0]


def test_gzip_is_read_by_isal_and_by_zlib_where_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    data = COMPRESSIONS["gzip"](NOISE)
    assert gzip_stream.LIBRARY is isal_zlib
    for name in ("isal", "isal.isal_zlib"):
        monkeypatch.setitem(sys.modules, name, None)
    try:
        assert importlib.reload(gzip_stream).LIBRARY is zlib
        assert plain(data, "gzip") == NOISE
        assert failure(data[:-1], "gzip")[1] == f"x: truncated: the gzip stream ends at offset {len(data) - 1}"
    finally:
        monkeypatch.undo()
        importlib.reload(gzip_stream)


def test_thousands_of_small_members_are_not_copied_over_and_over() -> None:
    """As estargz has them.  An inflater copies the bytes behind its member, up to all that it is given."""
    copied = 0

    class Inflater:
        def __init__(self) -> None:
            self._inflater = zlib.decompressobj(-15)

        def __getattr__(self, name: str) -> Any:
            nonlocal copied
            if name == "unused_data":
                copied += len(self._inflater.unused_data)
            return getattr(self._inflater, name)

    library = SimpleNamespace(decompressobj=lambda _: Inflater(), crc32=zlib.crc32)
    member = gzip.compress(b"a small file" * 20, mtime=0)
    file: Any = io.BytesIO(member * 10_000)
    stream, found = gzip_stream.GzipStream(io.BufferedReader(file, 1 << 18), library), 0
    while data := stream.read1(1 << 20):
        found += len(data)
    assert found == 10_000 * 240
    assert copied < 10_000 * (1 << 14)


@pytest.mark.parametrize("compression", LARGE)
def test_lack_of_memory_is_no_damage(compression: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(LARGE[compression][0])
    code = f"""
import importlib, resource
from fusefs.tar.compression import _MODULES, Compression, decompressed
importlib.import_module(_MODULES[Compression("{compression}")])
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (32 << 20),) * 2)
try:
    list(decompressed([open("data", "rb").read()], Compression("{compression}"), "x"))
except MemoryError:
    print("no memory")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("no memory\n", "")
