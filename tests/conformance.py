"""What is true of every image, from whatever source: one check, run over all of them."""

import hashlib
import json

from fusefs.content import Content, chunks
from fusefs.image import Image


def check_image(image: Image) -> None:
    """Assert that digests, sizes, order and every way of reading *image* agree."""
    for descriptor, content in image.blobs():
        assert content.size == descriptor.size
        check_reads(content)
        hasher = hashlib.new(descriptor.digest.algorithm)
        for chunk in chunks(content):
            hasher.update(chunk)
        assert hasher.hexdigest() == descriptor.digest.encoded
    config = json.loads(image.config.content.data)
    assert [str(layer.diff_id) for layer in image.layers] == (config["rootfs"]["diff_ids"] or [])
    manifest = json.loads(image.manifest.content.data)
    assert manifest["config"]["digest"] == str(image.config.descriptor.digest)
    assert manifest["config"]["size"] == len(image.config.content.data)
    stated = [(layer["digest"], layer["size"]) for layer in manifest["layers"]]
    assert stated == [(str(layer.descriptor.digest), layer.content.size) for layer in image.layers]


def check_reads(content: Content) -> None:
    """Assert that reads at the edges and across them return exactly the bytes that are there."""
    size = content.size
    whole = b"".join(chunks(content))
    assert len(whole) == size
    for offset in {0, 1, size // 2, max(0, size - 1), size, size + 1, size + (1 << 40)}:
        for length in (0, 1, 511, 4096, 128 << 10):
            expected = whole[offset : offset + length]
            assert bytes(content.read_at(offset, length)) == expected
            cached = content.read_cached(offset, length)
            assert cached is None or bytes(cached) == expected
