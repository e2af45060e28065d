"""Content that lies in no local file, as a layer in a registry; and an image of such layers."""

import threading
from collections.abc import Sequence

from fusefs.content.protocol import Bytes, Content, Slice
from fusefs.image.model import Document, Image, Layer
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Descriptor
from fusefs.tar.compression import Compression
from tests.support.builders import COMPRESSIONS, CREATED_NS
from tests.support.changesets import changeset, file, pax_sparse, whiteout
from tests.support.conformance import SOURCE

RUNS = [(0, b"begin"), (1 << 20, b"x" * 5000)]
SPARSE_SIZE = 2 << 20
SPARSE = bytearray(SPARSE_SIZE)
for _offset, _data in RUNS:
    SPARSE[_offset : _offset + len(_data)] = _data
DATA = bytes(range(256)) * 300
BASE = changeset(file("d/gone", b"1"), file("d/data", DATA), pax_sparse("1.0", "sparse", SPARSE_SIZE, RUNS))
TOP = changeset(whiteout("d/gone"), file("top", b"2"))


class RemoteContent:
    """Bytes that only `read_at` returns, as if each read were a request to a server; it counts the reads."""

    def __init__(self, data: bytes, identity: str = "remote") -> None:
        self._data = data
        self._lock = threading.Lock()
        self._closed = False
        self.identity = identity
        self.size = self.stored = len(data)
        self.reads = 0

    def slice(self, offset: int, size: int) -> Content:
        """Return a part of the bytes."""
        return Slice(self, offset, size)

    def file_place(self) -> None:
        """Return None: there is no file."""

    def fetch(self) -> None:
        """Do nothing: each read asks the server."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes, after a request that takes a while."""
        if self._closed:
            raise OSError("the connection is closed")
        with self._lock:
            self.reads += 1
        return self._data[offset : offset + size]

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> None:
        """Return None: each read waits for the server."""

    def check(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close the connection."""
        self._closed = True


def remote_layer(tar: bytes, compression: Compression | None = None) -> Layer:
    """Return a layer whose stored bytes are remote."""
    data = tar if compression is None else COMPRESSIONS[compression.value](tar)
    descriptor = Descriptor(DOCKER_LAYER, len(data), Digest.of([data]))
    return Layer(DiffID(Digest.of([tar])), descriptor, RemoteContent(data), compression, "a remote layer")


def remote_image(tars: Sequence[bytes] = (BASE, TOP), compression: Compression | None = None) -> Image:
    """Return an image of remote layers."""
    config, manifest = Document.of(DOCKER_CONFIG, b"{}"), Document.of(DOCKER_MANIFEST, b"{}")
    layers = tuple(remote_layer(tar, compression) for tar in tars)
    return Image(SOURCE, "latest", None, CREATED_NS, config, manifest, layers)
