"""The manifests and indexes of an image layout: each is read and parsed once, however often it is listed.

What a document states is remembered by its digest and size, and not the document: a document of 4 MiB may be listed
thousands of times, and thousands of them once.
"""

from typing import Generic, NamedTuple, TypeVar

from fusefs.errors import ImgfsError
from fusefs.image.model import Document
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.oci.platform import Platform
from fusefs.sources.archive.blobs import StoredBlobs, check_size, document, is_stored, stored_document

_Key = tuple[Digest, int]
BlobsT_co = TypeVar("BlobsT_co", bound=StoredBlobs, covariant=True)


class StatedManifest(NamedTuple):
    """The parts of a manifest on which a choice depends."""

    config: Descriptor
    of_image: bool
    """It is of an image, not of an artifact."""


class Layout(Generic[BlobsT_co]):
    """The documents of a layout."""

    def __init__(self, blobs: BlobsT_co) -> None:
        """Read from *blobs*."""
        self.blobs = blobs
        self._stored_blobs: dict[Digest, bool] = {}
        self._sizes: dict[Digest, int | None] = {}
        self._media_types: dict[_Key, str | None] = {}
        self._indexes: dict[_Key, tuple[Descriptor, ...] | None] = {}
        self._manifests: dict[_Key, StatedManifest | None] = {}
        self._platforms: dict[_Key, Platform | None] = {}

    @property
    def name(self) -> str:
        """The name of the source in messages."""
        return self.blobs.name

    def is_stored(self, descriptor: Descriptor) -> bool:
        """Return whether the blob of *descriptor* is stored or embedded."""
        if descriptor.data is not None:
            return True
        if descriptor.digest not in self._stored_blobs:
            self._stored_blobs[descriptor.digest] = is_stored(self.blobs, descriptor)
        return self._stored_blobs[descriptor.digest]

    def typed(self, found: Descriptor) -> Descriptor:
        """Return *found* with a media type: without one, the stored manifest or index states what it is."""
        if found.media_type:
            return found
        key = _key(found)
        if key not in self._media_types:
            self._media_types[key] = self._media_type(found)
        media_type = self._media_types[key]
        return found if media_type is None else found._replace(media_type=media_type)

    def index(self, found: Descriptor) -> tuple[Descriptor, ...] | None:
        """Return the descriptors that the index *found* lists, None if it is not stored."""
        key = _key(found)
        if key not in self._indexes:
            self._indexes[key] = self._index(found)
        return self._indexes[key]

    def manifest(self, found: Descriptor) -> StatedManifest | None:
        """Return what the manifest *found* states, None if it cannot be read."""
        key = _key(found)
        if key not in self._manifests:
            self._manifests[key] = self._manifest(found)
        return self._manifests[key]

    def platform(self, found: Descriptor) -> Platform | None:
        """Return the platform that the config of the manifest *found* states, None if it cannot be read."""
        manifest = self.manifest(found)
        if manifest is None or manifest.config.media_type not in documents.IMAGE_CONFIGS:
            return None
        key = _key(manifest.config)
        if key not in self._platforms:
            self._platforms[key] = self._platform(manifest.config)
        return self._platforms[key]

    def _stored(self, found: Descriptor, what: str) -> Document | None:
        """Return a document, None if it is not stored.  One of another size than stated is not read."""
        digest = found.digest
        if digest not in self._sizes:
            self._sizes[digest] = self.blobs.blob_size(found)
        size = self._sizes[digest]
        if size is not None:
            check_size(self.blobs, found, what, size)
        return stored_document(self.blobs, found, what)

    def _media_type(self, found: Descriptor) -> str | None:
        stored = self._stored(found, "the manifest")
        return stored and documents.media_type_of(stored.content.data, f"{self.name}: {found.digest}")

    def _index(self, found: Descriptor) -> tuple[Descriptor, ...] | None:
        stored = self._stored(found, "the index")
        return stored and documents.parse_index(stored.content.data, f"{self.name}: the index {found.digest}").manifests

    def _manifest(self, found: Descriptor) -> StatedManifest | None:
        try:
            stored = self._stored(found, "the manifest")
            manifest = stored and documents.parse_manifest(stored.content.data, self.name)
        except ImgfsError:  # reported if this manifest is chosen
            return None
        return manifest and StatedManifest(
            manifest.config,
            manifest.config.media_type in documents.IMAGE_CONFIGS
            and not manifest.artifact_type
            and all(layer.media_type in documents.LAYERS for layer in manifest.layers),
        )

    def _platform(self, config: Descriptor) -> Platform | None:
        try:
            data = document(self.blobs, config, "the image config").content.data
            stated = documents.parse_image_config(data, self.name).platform
        except ImgfsError:  # reported if this manifest is chosen
            return None
        return stated if str(stated) else None


def _key(found: Descriptor) -> _Key:
    return found.digest, found.size
