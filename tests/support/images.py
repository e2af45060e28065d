"""Images in memory, and layers that are refused."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fusefs.content.file import Extent, OpenFile
from fusefs.errors import ImgfsError
from fusefs.image.model import Document, Image, Layer
from fusefs.image.uncompressed import uncompressed_tar
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Descriptor
from fusefs.tar.compression import Compression
from tests.support.builders import COMPRESSIONS, CREATED_NS
from tests.support.changesets import changeset, file, whiteout
from tests.support.conformance import SOURCE, open_descriptors

LARGE = changeset(file("large", bytes(16 << 20)), file("d/b", b"2"), whiteout("x"))
"""At least 16 MiB: a child process indexes it."""


@contextmanager
def image_of(*layers: bytes, compression: Compression | None = None) -> Iterator[Image]:
    """Return an image with *layers*, called ``layer 0`` and so on, whose stored bytes are in memory."""
    file_ = OpenFile(os.memfd_create("image", os.MFD_CLOEXEC), "image")
    stored = []
    try:
        for number, data in enumerate(layers):
            raw = data if compression is None else COMPRESSIONS[compression.value](data)
            at = os.lseek(file_.descriptor, 0, os.SEEK_CUR)
            os.write(file_.descriptor, raw)
            extent = Extent(file_, at, len(raw))
            descriptor = Descriptor(DOCKER_LAYER, len(raw), Digest.of([raw]))
            stored.append(Layer(DiffID(Digest.of([data])), descriptor, extent, compression, f"layer {number}"))
        config, manifest = Document.of(DOCKER_CONFIG, b"config"), Document.of(DOCKER_MANIFEST, b"manifest")
        yield Image(SOURCE, "latest", None, CREATED_NS, config, manifest, tuple(stored))
    finally:
        file_.close()


def refused(layer: Layer, directory: str = tempfile.gettempdir()) -> tuple[type[ImgfsError], str]:
    """Return the class and message of the error for *layer*; its file must not stay open."""
    before = open_descriptors()
    with pytest.raises(ImgfsError) as caught:
        uncompressed_tar(layer, directory)
    assert open_descriptors() <= before
    return type(caught.value), str(caught.value)
