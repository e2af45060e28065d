"""A complete image: every document and blob of it, where it is stored, and what it is called."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from fusefs.content.protocol import Content, Literal
from fusefs.errors import DigestMismatch
from fusefs.oci import documents
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import Descriptor
from fusefs.oci.platform import Platform
from fusefs.oci.transport import Source
from fusefs.tar.compression import Compression

Hash = Callable[[Content, str], Digest]
"""Returns the digest of a content by an algorithm."""

_OCI_LAYERS = {
    None: documents.OCI_LAYER,
    Compression.GZIP: f"{documents.OCI_LAYER}+gzip",
    Compression.ZSTD: f"{documents.OCI_LAYER}+zstd",
    # These have no media type; containers/image tells the compression from the bytes.
    Compression.XZ: documents.OCI_LAYER,
    Compression.BZIP2: documents.OCI_LAYER,
}


_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document of the image: its exact bytes and how others refer to them."""

    descriptor: Descriptor
    content: Literal

    @classmethod
    def of(cls, media_type: str, data: bytes) -> "Document":
        """Describe *data*."""
        return cls(Descriptor(media_type, len(data), Digest.of([data])), Literal(data))


@dataclass(frozen=True, slots=True)
class Layer:
    """One entry of the image's list of layers; a repeated layer is an entry each time."""

    diff_id: DiffID | None
    """None where the config is no image config: an artifact."""
    descriptor: Descriptor
    """Of the stored bytes."""
    content: Content | None
    """The stored bytes; None for a foreign layer that is not stored."""
    compression: Compression | None
    """How the stored bytes are compressed."""
    where: str
    """Of which image it is and what the source calls it, for messages."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose layers can be read until the process ends."""

    source: Source
    tag: str
    """What the image is called in an image layout."""
    platform: Platform | None
    """None where the config is no image config."""
    created_ns: int
    """Nanoseconds since 1970."""
    config: Document
    manifest: Document
    """The manifest to show: stored, or generated where containers/image generates one."""
    layers: tuple[Layer, ...]
    """In order, the base first."""
    documents: tuple[Document, ...] = ()
    """Stored indexes and manifests on the way to the config."""

    @property
    def name(self) -> str:
        """What the user calls the image."""
        return self.source.name

    @property
    def oci_manifest(self) -> Document:
        """The manifest in OCI form: the stored one, or one that says what is stored."""
        for document in (self.manifest, *self.documents):
            if document.descriptor.media_type == documents.OCI_MANIFEST:
                return document
        config = replace(self.config.descriptor, media_type=documents.OCI_CONFIG)
        layers = (replace(layer.descriptor, media_type=_oci_media_type(layer)) for layer in self.layers)
        return Document.of(documents.OCI_MANIFEST, documents.write_manifest(documents.OCI_MANIFEST, config, layers))

    def blobs(self) -> Iterator[tuple[Descriptor, Content]]:
        """Yield every blob that is stored or generated; one that is listed twice comes twice."""
        for document in (self.config, self.manifest, self.oci_manifest, *self.documents):
            yield document.descriptor, document.content
        for layer in self.layers:
            if layer.content is not None:
                yield layer.descriptor, layer.content

    def verify(self, digest_of: Hash) -> None:
        """Compare every stored layer with its digest; DigestMismatch names the first bad one.

        An uncompressed layer's is its diffID.  JSON documents were compared when they were read.
        """
        checked: set[Digest] = set()
        for layer in self.layers:
            stated = layer.descriptor.digest
            if layer.content is None or stated in checked:
                continue
            found = digest_of(layer.content, stated.algorithm)
            if found != stated:
                raise DigestMismatch(f"{layer.where} has the digest {found}, the image says {stated}")
            checked.add(stated)


class LayerCache(Protocol):
    """Where the layer indexes and plain tars of one image are cached.  Safe under concurrency."""

    @property
    def path(self) -> str:
        """The directory of the files, for messages and for the space that is free there."""

    @property
    def of_user(self) -> bool:
        """Whether the image is in a file of the user, which others may change."""

    def room(self, need: int) -> int:
        """Make room for *need* bytes; return how many more may be cached, 0 if these may not."""

    def later(self, work: Callable[[], None]) -> None:
        """Do *work* when nobody waits for it."""

    def new_file(self) -> int:
        """Return the descriptor of a new file without a name; NoSpace if there can be none."""

    def add(self, name: str, descriptor: int) -> None:
        """Cache the file *descriptor*, a complete one of `new_file`, as *name*; errors are logged."""

    def open_cached(self, name: str) -> int | None:
        """Return the descriptor of the cached file *name*, None if there is none; the caller closes it."""

    def drop(self, name: str, why: str) -> None:
        """Remove the cached file *name*; who has it open can go on reading it."""


@dataclass(frozen=True, slots=True)
class SourcedImage:
    """An image as a source returns it."""

    image: Image
    cache: LayerCache | None = None
    """Where its layer indexes and plain tars are cached; None if they are not."""


def _oci_media_type(layer: Layer) -> str:
    """Return OCI's media type for what is stored; for a foreign layer that is not, for what is said of it."""
    stated = layer.descriptor.media_type
    if not stated.startswith(_FOREIGN):
        return _OCI_LAYERS[layer.compression]
    if layer.content is None:
        return _OCI_FOREIGN + stated.removeprefix(_FOREIGN).replace(".", "+")
    return _OCI_FOREIGN + _OCI_LAYERS[layer.compression].removeprefix(documents.OCI_LAYER)
