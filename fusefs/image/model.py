"""The model of an image: its documents and blobs, and its names."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from fusefs.content.protocol import Content, Literal
from fusefs.errors import DigestMismatch
from fusefs.oci import documents
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import Descriptor
from fusefs.oci.platform import Platform
from fusefs.oci.transport import Source
from fusefs.tar.compression import Compression
from fusefs.text import printable

Hash = Callable[[Content, str], Digest]
"""Function that returns the digest of a content by an algorithm."""

_OCI_LAYERS = {
    None: documents.OCI_LAYER,
    Compression.GZIP: f"{documents.OCI_LAYER}+gzip",
    Compression.ZSTD: f"{documents.OCI_LAYER}+zstd",
    # No media types exist for these; containers/image detects the compression from the bytes.
    Compression.XZ: documents.OCI_LAYER,
    Compression.BZIP2: documents.OCI_LAYER,
    Compression.UNKNOWN: documents.OCI_LAYER,
}


_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"


class Document(NamedTuple):
    """A JSON document of the image: its exact bytes and their descriptor."""

    descriptor: Descriptor
    content: Literal

    @classmethod
    def of(cls, media_type: str, data: bytes) -> "Document":
        """Return the document with the bytes *data*."""
        return cls(Descriptor(media_type, len(data), Digest.of([data])), Literal(data))


class Layer(NamedTuple):
    """One layer in the image's list of layers; a repeated layer occurs there several times."""

    diff_id: DiffID | None
    """None if the config is not an image config (an artifact)."""
    descriptor: Descriptor
    """The descriptor of the stored bytes."""
    content: Content | None
    """The stored bytes; None for a foreign layer that is not stored."""
    compression: Compression | None
    """How the stored bytes are compressed; of a layer in a registry, as far as the documents tell."""
    where: str
    """The name of the image and the source's name of the layer, for messages."""
    is_tar: bool = True
    """Whether the plain bytes are a tar, unlike those of a signature or an encrypted layer."""

    @property
    def readable(self) -> bool:
        """Whether it is stored and a changeset of a file system."""
        return self.content is not None and self.diff_id is not None and self.is_tar


class Image(NamedTuple):
    """An image whose layers can be read until the process ends."""

    source: Source
    tag: str
    """The name of the image in an image layout."""
    platform: Platform | None
    """None if the config is not an image config."""
    created_ns: int
    """Time of creation, nanoseconds since 1970."""
    config: Document
    manifest: Document
    """The manifest: the stored one, or one generated as containers/image does."""
    layers: tuple[Layer, ...]
    """The layers, the base first."""
    documents: tuple[Document, ...] = ()
    """Stored OCI indexes and manifests that lead to the config."""
    generated: bool = False
    """Whether imgfs generated the manifest, so that no registry has its digest."""
    repo_digests: tuple[str, ...] = ()
    """The names with digests that the image has in registries, as far as its source knows them."""
    artifact: bool = False
    """Whether it is no image: its config is not an image config, and its layers are files."""
    verified: bool = False
    """Whether the stored layers were compared with their digests; otherwise their digests are only stated."""

    @property
    def name(self) -> str:
        """The user's name for the image."""
        return self.source.name

    @property
    def why_no_rootfs(self) -> str:
        """Why its layers are not a root file system; empty if they are."""
        if self.artifact:
            return f"it is an artifact, its config is {printable(self.config.descriptor.media_type)}"
        for number, layer in enumerate(self.layers):
            if layer.content is None:
                return f"layer {number} is not stored"
            if layer.diff_id is None:
                return "its config states no diffIDs"
            if not layer.is_tar:
                return f"layer {number} ({printable(layer.descriptor.media_type)}) is not a tar"
        return ""

    @property
    def oci_manifest(self) -> Document:
        """The manifest in OCI form: the stored one, or a generated one that describes the stored blobs."""
        for document in (self.manifest, *self.documents):
            if document.descriptor.media_type == documents.OCI_MANIFEST:
                return document
        config = self.config.descriptor
        if not self.artifact:
            config = config._replace(media_type=documents.OCI_CONFIG)
        layers = (layer.descriptor._replace(media_type=_oci_media_type(layer)) for layer in self.layers)
        return Document.of(documents.OCI_MANIFEST, documents.write_manifest(documents.OCI_MANIFEST, config, layers))

    def blobs(self) -> Iterator[tuple[Descriptor, Content]]:
        """Yield each stored or generated blob, as often as the image lists it."""
        for document in (self.config, self.manifest, self.oci_manifest, *self.documents):
            yield document.descriptor, document.content
        for layer in self.layers:
            if layer.content is not None:
                yield layer.descriptor, layer.content

    def verify(self, digest_of: Hash) -> "Image":
        """Compare each stored layer with its digest and return the image as verified.

        DigestMismatch names the first layer that differs.

        The digest of an uncompressed layer is its diffID.  JSON documents were compared when they were read.
        """
        checked: set[Digest] = set()
        for layer in self.layers:
            stated = layer.descriptor.digest
            if layer.content is None or stated in checked:
                continue
            actual = digest_of(layer.content, stated.algorithm)
            if actual != stated:
                raise DigestMismatch(f"{layer.where} has the digest {actual}, the image says {stated}")
            checked.add(stated)
        return self._replace(verified=True)


class LayerCache(Protocol):
    """A cache for the layer indexes and plain tars of one image.  Safe under concurrency."""

    @property
    def path(self) -> str:
        """The directory of the files, for messages and its free space."""

    @property
    def of_user(self) -> bool:
        """Whether the image is in a user's file, which others may change."""

    def room(self, need: int) -> int:
        """Make room for *need* bytes; return how many more may be cached, 0 if these may not."""

    def later(self, work: Callable[[], None]) -> None:
        """Do *work* in the background."""

    def new_file(self) -> int:
        """Return the descriptor of a new file without a name; NoSpace if it cannot be created."""

    def add(self, name: str, descriptor: int) -> None:
        """Cache the file *descriptor*, made by `new_file` and complete, as *name*; errors are logged."""

    def open_cached(self, name: str) -> int | None:
        """Return the descriptor of the cached file *name*, None if there is none; the caller closes it."""

    def name_of(self, descriptor: int) -> str | None:
        """Return the name of the cached file that is open as *descriptor*, None if it is not one of these."""

    def drop(self, name: str, why: str) -> None:
        """Remove the cached file *name*; readers that have it open can continue."""

    def close(self) -> None:
        """Stop using the cache, which others may then remove; closing twice is allowed."""


class InUse(Protocol):
    """What nobody removes as long as it is in use."""

    def close(self) -> None:
        """Stop using it; closing twice is allowed."""


class Referrer(NamedTuple):
    """An artifact that refers to an image, such as its signature, as a registry or an index lists it."""

    digest: Digest
    """Of its manifest."""
    artifact_type: str
    size: int
    """Bytes of its manifest, as the list states them."""
    subject: Digest
    """The manifest or index of the image to which it refers."""


class Referrers(NamedTuple):
    """The artifacts that refer to an image, as far as they are known."""

    found: tuple[Referrer, ...]
    flaw: str = ""
    """Why there may be others, empty if all are found."""


class Traffic:
    """What a mount has received from other machines.  Safe under concurrency: `_lock` guards the numbers."""

    def __init__(self) -> None:
        self.bytes_fetched = 0
        """Of documents and blobs."""
        self.requests = 0
        self.errors = 0
        """Attempts that failed, whether or not another one succeeded."""
        self._lock = threading.Lock()

    def count(self, *, received: int = 0, requests: int = 0, errors: int = 0) -> None:
        """Add to the numbers."""
        with self._lock:
            self.bytes_fetched += received
            self.requests += requests
            self.errors += errors


class SourcedImage(NamedTuple):
    """An image as a source returns it."""

    image: Image
    cache: LayerCache | None = None
    """The cache for its layer indexes and plain tars; None if they are not cached."""
    layer_caches: Mapping[Digest, LayerCache] = MappingProxyType({})
    """Caches of layers that have one of their own, by digest."""
    referrers: Callable[[], Referrers] | None = None
    """Asks for the artifacts that refer to it, and raises no error; None if the source knows of none."""
    traffic: Traffic | None = None
    """What was received for it, for an image whose bytes are on another machine."""
    documents: Sequence[InUse] = ()
    """Cache entries of its manifest, config and tag, without which its layers are found by nobody."""


def _oci_media_type(layer: Layer) -> str:
    """Return OCI's media type of the stored bytes; for a foreign layer that is not stored, of its descriptor."""
    stated = layer.descriptor.media_type
    if layer.content is not None and not layer.readable:
        return stated
    if not stated.startswith(_FOREIGN):
        return _OCI_LAYERS[layer.compression]
    if layer.content is None:
        return _OCI_FOREIGN + stated.removeprefix(_FOREIGN).replace(".", "+")
    return _OCI_FOREIGN + _OCI_LAYERS[layer.compression].removeprefix(documents.OCI_LAYER)
