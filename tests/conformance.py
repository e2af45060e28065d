"""What is true of every image, from whatever source: one check, run over all of them."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs.content import Content, Extent, Literal, OpenFile, chunks
from fusefs.digest import DiffID, Digest
from fusefs.errors import ImgfsError
from fusefs.image import Image, Layer
from fusefs.oci import DOCKER_LAYER, Descriptor
from fusefs.progress import Progress, Silent
from fusefs.sources import Settings, open_image
from fusefs.sources.docker_archive import DockerArchive
from fusefs.tarindex import TarIndex, scan


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
    assert [str(layer.diff_id) for layer in image.layers] == (config["rootfs"].get("diff_ids") or [])
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


def literal_layer(data: bytes, algorithm: str = "sha256") -> Layer:
    """Return a layer with *data*, which is in memory."""
    digest = DiffID(Digest.of([data], algorithm))
    return Layer(digest, Descriptor(DOCKER_LAYER, len(data), digest), Literal(data), "somewhere")


@contextmanager
def open_file(path: Path | str) -> Iterator[OpenFile]:
    """Open the file at *path*, called by its last name in messages, for as long as the block takes."""
    file = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), os.path.basename(path))
    try:
        yield file
    finally:
        file.close()


@contextmanager
def docker_archive(path: Path) -> Iterator[DockerArchive]:
    """Index the archive at *path*."""
    with open_file(path) as file:
        yield DockerArchive(file, TarIndex.of(file.name, scan(file)))


SETTINGS = Settings(host=None, context=None, tmpdir="/nonexistent", verify=False, environment={})
"""What an archive needs of the command line: nothing."""


def refusal(argument: str, settings: Settings = SETTINGS) -> tuple[type[ImgfsError], str]:
    """Return the class and message of the error for an IMAGE argument; no descriptor may stay open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ImgfsError) as caught:
        open_image(argument, settings, Silent())
    assert os.listdir("/proc/self/fd") == before
    return type(caught.value), str(caught.value)


@contextmanager
def opened(argument: str, settings: Settings = SETTINGS, progress: Progress | None = None) -> Iterator[Image]:
    """Open an image in an archive as the command does, and close its file."""
    image = open_image(argument, settings, progress or Silent())
    extent = image.layers[0].content
    assert isinstance(extent, Extent)
    try:
        yield image
    finally:
        extent._file.close()
