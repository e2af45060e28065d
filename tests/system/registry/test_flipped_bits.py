"""A bit that is flipped on the way, anywhere in any document or layer, is never shown."""

import random
from pathlib import Path

import pytest

import fusefs
from fusefs.errors import DigestMismatch
from tests.support.builders import compressed, layer
from tests.support.fault_proxy import Proxy, cut, flip
from tests.support.layouts import Layout
from tests.support.registries import Registry, push

DATA = random.Random(3).randbytes(2000)
LAYER = layer({"data": DATA})
FLIPS = 8
"""Bits of each blob that are flipped, one in each run."""


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_a_flipped_bit_is_a_wrong_digest(
    server: Registry, proxy: Proxy, tmp_path: Path, compression: str | None
) -> None:
    layout = Layout()
    manifest = layout.image([LAYER], compression)
    push(layout.list(manifest, "1"), server)
    for path, data in layout.files.items():
        if not path.startswith("blobs/"):
            continue
        key = "manifests/" if manifest["digest"].endswith(path[-64:]) else path[-64:]
        for offset in {*range(0, len(data), len(data) // FLIPS), len(data) - 1}:
            proxy.always = {key: flip(offset)}
            with pytest.raises(DigestMismatch):
                _read(proxy.image(), tmp_path)
    proxy.always = {}
    assert _read(proxy.image(), tmp_path) == DATA


def test_a_flipped_bit_of_a_compressed_layer_in_the_middle_of_a_continued_transfer(
    server: Registry, proxy: Proxy, tmp_path: Path
) -> None:
    layout = Layout()
    stored = compressed(LAYER, "gzip")
    push(layout.list(layout.image([LAYER], "gzip"), "1"), server)
    key = next(path[-64:] for path, data in layout.files.items() if data == stored)
    for offset in range(0, len(stored) - 500, 331):
        proxy.faults[key] = [cut(500), flip(offset), cut(500), flip(offset)]
        with pytest.raises(DigestMismatch):
            _read(proxy.image(), tmp_path)
    assert _read(proxy.image(), tmp_path) == DATA


def _read(image: str, tmpdir: Path) -> bytes:
    with fusefs.open_image(image, tmpdir=str(tmpdir), cache=False, environment={"HOME": str(tmpdir)}) as opened:
        return (opened.rootfs / "data").read_bytes()
