"""The blobs of one repository by their descriptors: from the cache, otherwise from the registry."""

from contextlib import closing
from typing import TYPE_CHECKING

from fusefs.cache.store import Cache
from fusefs.content.protocol import Bytes, Content
from fusefs.content.remote import RemoteBlob
from fusefs.errors import DigestMismatch, InvalidImage, RegistryError, Unavailable
from fusefs.image.model import LayerCache
from fusefs.log import logger
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.oci.reference import RegistryReference
from fusefs.sources.registry.entry import BlobEntry, TagMemo
from fusefs.sources.registry.supply import BlobSupply, not_cached
from fusefs.text import printable
from fusefs.tree.once import Once

if TYPE_CHECKING:
    from fusefs.sources.registry.transfer import Transfers

log = logger(__name__)

_FOREIGN = ("foreign", "nondistributable")
"""Words in the media types of layers that registries do not store."""


class RegistryStore:
    """The blobs of a repository.

    Documents are read at once and kept in memory, layers at their first access.
    """

    lazy = True

    def __init__(
        self,
        reference: RegistryReference,
        name: str,
        transfers: "Once[Transfers] | None",
        cache: Cache | None,
        tmpdir: str,
    ) -> None:
        """*name* stands in messages; without *transfers*, only cached blobs are there.

        Blobs that are not cached are spooled in *tmpdir*.
        """
        self.name = name
        self.layer_caches: dict[Digest, LayerCache] = {}
        self._reference = reference
        self._transfers = transfers
        self._cache = cache
        self._tmpdir = tmpdir
        self._documents: dict[Digest, bytes] = {}
        self._layers: dict[Digest, RemoteBlob] = {}

    def top(self) -> Descriptor:
        """Return the descriptor of the manifest or index that the reference names.

        By digest and cached, that takes no request; by tag and cached, one HEAD.  A cached one whose registry cannot
        be reached is used with a warning.
        """
        reference = self._reference
        if reference.digest:
            return self._described(_parsed(reference.digest))
        memo = None if self._cache is None else TagMemo(self._cache, str(reference))
        known = None if memo is None else memo.digest()
        if known is not None and self._from_cache(known) is None:
            known = None
        digest = self._of_tag(known)
        if memo is not None and digest != known:
            memo.remember(digest)
        return self._described(digest)

    def cache_of(self, manifest: Descriptor) -> LayerCache | None:
        """Return the cache for what is made of a whole image; None without a cache."""
        return self._entry(manifest)

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Return True, except for a foreign layer: a request for the blob would be needed to know it."""
        return not (descriptor.urls and any(word in descriptor.media_type for word in _FOREIGN))

    def blob_size(self, descriptor: Descriptor) -> int | None:
        """Return None: it is compared when the blob is fetched."""

    def blob_data(self, descriptor: Descriptor) -> bytes | None:
        """Return the bytes of a document, whose digest is right."""
        data = self._from_cache(descriptor.digest)
        return self._document(descriptor.digest, descriptor) if data is None else data

    def blob_content(self, descriptor: Descriptor) -> Content | None:
        """Return the content of a layer, which is fetched at its first access."""
        if not self.has_blob(descriptor):
            return None
        if descriptor.digest not in self._layers:
            entry = self._entry(descriptor)
            if entry is not None:
                self.layer_caches[descriptor.digest] = entry
            supply = BlobSupply(descriptor, self.name, self._transfers, entry, self._tmpdir)
            self._layers[descriptor.digest] = RemoteBlob(descriptor.size, supply)
        content = self._layers[descriptor.digest]
        if content.size != descriptor.size:
            raise InvalidImage(
                f"{self.name}: {descriptor.digest} has {content.size} bytes in one descriptor, "
                f"{descriptor.size} in another"
            )
        return content

    def _of_tag(self, known: Digest | None) -> Digest:
        """Return the digest that the tag has; *known* is the one that it had, whose document is cached."""
        tag = self._reference.tag
        if self._transfers is None:
            if known is None:
                raise not_cached(self.name)
            return known
        if known is None:
            return self._manifest(tag, None)
        try:
            return self._transfers.get().digest_of(tag) or self._manifest(tag, None)
        except RegistryError as error:
            log.warning("%s: using the cached image, which may be old: %s", self.name, error)
            return known

    def _described(self, digest: Digest) -> Descriptor:
        """Return the descriptor of a manifest or index."""
        data = self._from_cache(digest)
        if data is None:
            self._manifest(str(digest), digest)
            data = self._documents[digest]
        return Descriptor(documents.media_type_of(data, f"{self.name}: {digest}"), len(data), digest)

    def _document(self, digest: Digest, descriptor: Descriptor) -> bytes:
        if descriptor.media_type in documents.MANIFESTS | documents.INDEXES:
            self._manifest(str(digest), digest)
            return self._documents[digest]
        if descriptor.size > documents.DOCUMENT_LIMIT:
            raise InvalidImage(
                f"{self.name}: {digest} has {descriptor.size} bytes, more than {documents.DOCUMENT_LIMIT}"
            )
        return self._keep(descriptor, self._received(descriptor))

    def _received(self, descriptor: Descriptor) -> bytes:
        """Return a document from the registry, asked for once more if its digest is wrong."""
        supply = BlobSupply(descriptor, self.name, self._transfers, None, self._tmpdir)
        data = bytearray(descriptor.size)

        def take(offset: int, piece: Bytes) -> None:
            data[offset : offset + len(piece)] = piece

        for again in (False, True):
            supply.receive(0, descriptor.size, take, again=again)
            try:
                supply.verify([data])
                break
            except DigestMismatch:
                if again:
                    raise
        return bytes(data)

    def _manifest(self, reference: str, digest: Digest | None) -> Digest:
        """Fetch the manifest or index *reference*, which has the *digest* if that is known, and return its digest."""
        if self._transfers is None:
            raise not_cached(f"the manifest {reference}")
        found = self._transfers.get().manifest(reference, digest)
        digest = digest or found.digest or Digest.of([found.data])
        self._keep(Descriptor(found.media_type, len(found.data), digest), found.data)
        return digest

    def _keep(self, descriptor: Descriptor, data: bytes) -> bytes:
        self._documents[descriptor.digest] = data
        entry = self._entry(descriptor)
        if entry is not None and self._cache is not None:
            self._cache.later(lambda: entry.add_document(data))
        return data

    def _from_cache(self, digest: Digest) -> bytes | None:
        """Return a document that is in memory or in the cache."""
        if digest not in self._documents:
            entry = self._entry(Descriptor("", 0, digest))
            if entry is None:
                return None
            with closing(entry):
                data = entry.document()
            if data is None:
                return None
            self._documents[digest] = data
        return self._documents[digest]

    def _entry(self, descriptor: Descriptor) -> BlobEntry | None:
        if self._cache is None:
            return None
        return BlobEntry(self._cache, descriptor, f"docker://{self._reference.name}")


def _parsed(digest: str) -> Digest:
    try:
        return Digest.parse(digest)
    except ValueError as error:
        raise Unavailable(printable(str(error))) from None
