"""The blobs of one repository by their descriptors: from the cache, otherwise from the registry."""

from contextlib import closing
from typing import TYPE_CHECKING

from fusefs.cache.store import Cache
from fusefs.content.protocol import Bytes, Content
from fusefs.content.remote import RemoteBlob
from fusefs.errors import DigestMismatch, ImgfsError, InvalidImage, Unavailable
from fusefs.image.model import LayerCache
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.oci.reference import RegistryReference
from fusefs.sources.registry.entry import BlobEntry, HeldEntry, TagMemo
from fusefs.sources.registry.supply import BlobSupply, not_cached
from fusefs.text import printable
from fusefs.tree.once import Once

if TYPE_CHECKING:
    from fusefs.sources.registry.repository import Found
    from fusefs.sources.registry.transfer import Transfers

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
        self._failed: dict[Digest, ImgfsError] = {}
        """Documents that are wrong, missing or denied: whoever asks again gets no other answer."""
        self._layers: dict[Digest, RemoteBlob] = {}
        self._tag = None if cache is None or reference.digest else TagMemo(cache, str(reference))
        self.documents: list[HeldEntry] = [] if self._tag is None else [self._tag.held]
        """The cache entries of the documents, in use as soon as they are complete."""

    def top(self) -> Descriptor:
        """Return the descriptor of the manifest or index that the reference names.

        By digest and cached, that takes no request; by tag and cached, one HEAD.
        """
        if self._reference.digest:
            return self._described(_parsed(self._reference.digest))
        return self._described(self._of_tag(self.cached_top()))

    def cached_top(self) -> Descriptor | None:
        """Return what the tag named when it was remembered, None if that is not in the cache."""
        if self._tag is None:
            return None
        digest = self._tag.digest()
        return None if digest is None or self._from_cache(digest) is None else self._described(digest)

    def remember_top(self, top: Descriptor) -> None:
        """Remember that the tag names *top*, once that and all other documents that were read are in the cache."""
        cache, memo = self._cache, self._tag
        if cache is None or memo is None:
            return
        before = memo.digest()
        if before == top.digest:
            memo.held.hold()
            return
        read = [digest for digest in self._documents if digest != before]

        def remember() -> None:
            if all(self._is_cached(digest) for digest in read):
                memo.remember(top.digest)
                memo.held.hold()

        cache.later(remember)

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
        if not descriptor.size and descriptor.digest != Digest.of([], descriptor.digest.algorithm):
            raise InvalidImage(
                f"{self.name}: {descriptor.digest} has 0 bytes in its descriptor, "
                "but is not the digest of an empty blob"
            )
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

    def _of_tag(self, cached: Descriptor | None) -> Digest:
        """Return the digest that the tag has; *cached* is what it named before."""
        tag = self._reference.tag
        if self._transfers is None:
            if cached is None:
                raise not_cached(self.name)
            return cached.digest
        if cached is None:
            return self._manifest(tag, None)
        try:
            found = self._transfers.get().current(tag)
        except Unavailable as error:
            raise Unavailable(f"{error}; --offline uses the cached image") from None
        if found.data:
            return self._keep_manifest(found, None)
        return found.digest or self._manifest(tag, None)

    def _described(self, digest: Digest) -> Descriptor:
        """Return the descriptor of a manifest or index."""
        data = self._from_cache(digest)
        if data is None:
            self._manifest(str(digest), digest)
            data = self._documents[digest]
        return Descriptor(documents.media_type_of(data, f"{self.name}: {digest}"), len(data), digest)

    def _document(self, digest: Digest, descriptor: Descriptor) -> bytes:
        """Return a document from the registry."""
        if digest in self._failed:
            raise self._failed[digest].with_traceback(None)
        try:
            return self._asked(digest, descriptor)
        except (DigestMismatch, InvalidImage, Unavailable) as error:
            self._failed[digest] = error
            raise

    def _asked(self, digest: Digest, descriptor: Descriptor) -> bytes:
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
        return self._keep_manifest(self._transfers.get().manifest(reference, digest), digest)

    def _keep_manifest(self, found: "Found", digest: Digest | None) -> Digest:
        digest = digest or found.digest or Digest.of([found.data])
        self._keep(Descriptor(found.media_type, len(found.data), digest), found.data)
        return digest

    def _keep(self, descriptor: Descriptor, data: bytes) -> bytes:
        self._documents[descriptor.digest] = data
        entry = self._entry(descriptor)
        if entry is not None and self._cache is not None:
            held = entry.held()
            self.documents.append(held)

            def add() -> None:
                entry.add_document(data)
                held.hold()

            self._cache.later(add)
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
                self.documents.append(entry.held().hold())
            self._documents[digest] = data
        return self._documents[digest]

    def _is_cached(self, digest: Digest) -> bool:
        entry = self._entry(Descriptor("", 0, digest))
        if entry is None:
            return False
        with closing(entry):
            return entry.document() is not None

    def _entry(self, descriptor: Descriptor) -> BlobEntry | None:
        if self._cache is None:
            return None
        return BlobEntry(self._cache, descriptor, f"docker://{self._reference.name}")


def _parsed(digest: str) -> Digest:
    try:
        return Digest.parse(digest)
    except ValueError as error:
        raise Unavailable(printable(str(error))) from None
