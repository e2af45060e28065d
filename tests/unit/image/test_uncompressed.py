"""The plain tar of a compressed layer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.content.protocol import Literal, chunks
from fusefs.errors import DigestMismatch, InvalidImage, NoSpace
from fusefs.image.uncompressed import uncompressed_tar
from fusefs.oci.digest import DiffID, Digest
from tests.support.builders import COMPRESSIONS, LAYERS, sha256
from tests.support.conformance import check_reads, closing_what_is_opened, literal_layer
from tests.support.images import refused


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("data", [LAYERS[0], b"", bytes(5 << 20)], ids=["a layer", "nothing", "5 MiB"])
def test_the_plain_tar_comes_out_and_can_be_read_in_all_ways(
    tmp_path: Path, data: bytes, compression: str, algorithm: str
) -> None:
    content = uncompressed_tar(literal_layer(data, algorithm, compression), str(tmp_path))
    assert b"".join(chunks(content)) == data
    check_reads(content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_another_content_than_the_diff_id_says_is_refused(compression: str) -> None:
    lie = literal_layer(b"a lie", compression=compression)._replace(diff_id=DiffID(Digest.of([LAYERS[0]])))
    message = f"somewhere decompresses to the digest {sha256(b'a lie')}, the image says {sha256(LAYERS[0])}"
    assert refused(lie) == (DigestMismatch, message)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_truncated_layer_is_named(compression: str) -> None:
    whole = literal_layer(LAYERS[0], compression=compression)
    assert isinstance(whole.content, Literal)
    cut = whole._replace(content=Literal(whole.content.data[:-1]))
    message = f"somewhere: truncated: the {compression} stream ends at offset {whole.descriptor.size - 1}"
    assert refused(cut) == (InvalidImage, message)


def test_a_corrupt_layer_is_named() -> None:
    whole = COMPRESSIONS["gzip"](LAYERS[0])
    corrupt = literal_layer(LAYERS[0], compression="gzip")._replace(content=Literal(whole[:-8] + bytes(8)))
    error, message = refused(corrupt)
    assert error is InvalidImage
    assert message.startswith(f"somewhere: corrupt gzip data before offset {len(whole)}: CRC check failed")


def test_a_place_that_is_none_is_named() -> None:
    message = "cannot write in /nonexistent: No such file or directory; choose another directory with --tmpdir"
    assert refused(literal_layer(b"x", compression="gzip"), "/nonexistent") == (NoSpace, message)
