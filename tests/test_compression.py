"""Compression formats, told from the first bytes."""

import pytest

from fusefs.compression import FIRST_BYTES, Compression, compression_of
from tests.builders import COMPRESSIONS, END, LAYERS, header, layer


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
