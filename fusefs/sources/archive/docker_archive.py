"""A Docker archive: the tar of `docker save`, as engines, podman, skopeo, kaniko, jib, bazel and nix write it.

Format: moby image/spec v1.2, "Combined Image JSON + Filesystem Changeset Format".  The rules for
links, repeated layers and the generated manifest are those of containers/image, docker/internal/tarfile.
Newer engines add an image layout; imgfs uses only the parts of it that agree with the manifest list.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fusefs.content.protocol import Content
from fusefs.errors import ImgfsError, InvalidImage, Unavailable, Unsupported
from fusefs.image.model import Document, Hash, Image, Layer
from fusefs.oci import documents
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import Descriptor, ImageConfig, Manifest
from fusefs.oci.platform import Platform, suitability
from fusefs.oci.reference import same_image, tag_of, tagged
from fusefs.oci.transport import DOCKER_ARCHIVE, Source
from fusefs.sources.archive.blobs import Blobs, MemberKey, blob, document, limited
from fusefs.sources.archive.candidates import Candidate, candidates, choose, entry_of, top_entries
from fusefs.sources.archive.image_layout import candidate_image, layer_compression, stored_indexes
from fusefs.sources.archive.layout import Layout
from fusefs.sources.archive.manifest_list import MANIFEST_LIST_LIMIT, ManifestItem, parse_manifest_list
from fusefs.tar.compression import Compression
from fusefs.text import listing, printable

MANIFEST_LIST = b"manifest.json"
_ROOT_NAMES = frozenset({b".dockerenv", b"bin", b"etc", b"lib", b"sbin", b"usr", b"Files"})
"""Names at the top of a root file system; ``Files`` is Windows'."""


def _is_same(asked: str, name: str) -> bool:
    return tagged(asked) == tagged(name)


class _StoredLayer(NamedTuple):
    """A layer as its member stores it, before the digest of those bytes is known."""

    diff_id: DiffID
    content: Content
    key: MemberKey
    compression: Compression | None
    where: str


class DockerArchive:
    """An indexed Docker archive whose members can be read."""

    def __init__(self, blobs: Blobs, digest_of: Hash) -> None:
        """Read members from *blobs*; *digest_of* hashes a content whose digest no document states."""
        self.blobs = blobs
        self.digest_of = digest_of
        self.layout = Layout(blobs)

    def image(self, choice: str | int | None, platform: Platform | None, source: Source) -> Image:
        """Return the image that *choice*, a name or an index, and *platform* pick."""
        path = source.name.removeprefix(DOCKER_ARCHIVE.prefix)
        item = self._item(choice, source.choosing or f"{DOCKER_ARCHIVE.prefix}{path}:REF")
        tags = [choice] if isinstance(choice, str) else list(item.repo_tags)
        tag = next((tag_of(tagged(text)) for text in tags), "") or "latest"
        config_data = self._config_data(item)
        config = self._config(item, config_data)
        other = None if platform is None else self._of_platform(item, config_data, config, platform)
        if other is not None:
            return self._candidate_image(other, source, tag)
        return self._item_image(item, config_data, config, source, tag)

    def image_with_id(
        self, image_id: Digest, platform: Platform | None, source: Source, tag: str, *, only: bool = False
    ) -> Image:
        """Return the image whose config, manifest or index has the digest *image_id*.

        *only*: the engine saved the *platform* alone, and may have left out the index that the ID is the digest of.
        """
        for item in self._items_by_config():
            data = self._config_data(item)
            if Digest.of([data], image_id.algorithm) == image_id:
                config = self._config(item, data)
                if platform is not None and suitability(config.platform, platform, exact=True) is None:
                    raise self._wrong_platform(config, platform)
                return self._item_image(item, data, config, source, tag)
        entry = entry_of(self.layout, image_id)
        found = candidates(self.layout, [entry], everything=True) if entry else iter(())
        if entry is None and only:
            # Newer engines leave out the index when they save one platform.
            found = iter(self._layout())
        elif entry is None:
            raise InvalidImage(
                f"{self._name}: no image config, manifest or index has the digest {image_id}, the image's ID"
            )
        return self._candidate_image(choose(self.layout, found, platform), source, tag)

    @property
    def _name(self) -> str:
        return self.blobs.name

    def _items(self) -> tuple[ManifestItem, ...]:
        if not self.blobs.has(MANIFEST_LIST.decode()):
            raise self._no_manifest()
        where = f"{self._name}: manifest.json"
        return parse_manifest_list(limited(self.blobs.content(MANIFEST_LIST), MANIFEST_LIST_LIMIT, where), where)

    def _items_by_config(self) -> Iterator[ManifestItem]:
        """Yield the first manifest item of each config."""
        seen: set[MemberKey] = set()
        for item in self._items() if self.blobs.has(MANIFEST_LIST.decode()) else ():
            key = self.blobs.member_key(item.config)
            if key not in seen:
                seen.add(key)
                yield item

    def _item(self, choice: str | int | None, choosing: str) -> ManifestItem:
        items = self._items()
        match choice:
            case None if len({(item.config, item.layers) for item in items}) == 1:  # maybe under several names
                return items[0]
            case int() if choice < len(items):
                return items[choice]
            case str():
                for is_meant in (_is_same, same_image):
                    for item in items:
                        if any(is_meant(choice, tag) for tag in item.repo_tags):
                            return item
        message = self._choices(choice, choosing, items)
        if choice is None:
            raise Unavailable(message).among(next(iter(item.repo_tags), number) for number, item in enumerate(items))
        raise Unavailable(message)

    def _choices(self, choice: str | int | None, choosing: str, items: Sequence[ManifestItem]) -> str:
        tags = (listing([*map(printable, item.repo_tags)], ", ") or "no tag" for item in items)
        listed = listing([f"@{n} ({names})" for n, names in enumerate(tags)])
        match choice:
            case None:
                return (
                    f"{self._name} holds {len(items)} images; "
                    f"choose with {printable(choosing)} or :@INDEX from {listed}"
                )
            case int():
                return f"{self._name} has no image @{choice}; there are {listed}"
            case str():
                return f"{self._name} has no image {printable(choice)}; there are {listed}"

    def _no_manifest(self) -> InvalidImage | Unsupported:
        members = self.blobs.names()
        if not members:
            return InvalidImage(f"{self._name}: not an image archive: it has no members, only zero bytes")
        if b"repositories" in members or any(name.endswith(b"/layer.tar") for name in members):
            return Unsupported(
                f"{self._name}: saved by a Docker older than 1.10 (no manifest.json); "
                "docker load and docker save it with a newer one"
            )
        why = f"{self._name}: not an image archive: manifest.json is missing"
        if any(name.partition(b"/")[0] in _ROOT_NAMES for name in members):
            why += "; it looks like a root file system, as docker export writes it: docker import makes an image of it"
        return InvalidImage(why)

    def _config_data(self, item: ManifestItem) -> bytes:
        where = f"{self._name}: {printable(item.config)}"
        return limited(self.blobs.content(item.config), documents.DOCUMENT_LIMIT, where)

    def _config(self, item: ManifestItem, data: bytes) -> ImageConfig:
        return documents.parse_image_config(data, f"{self._name}: {printable(item.config)}")

    def _item_image(
        self, item: ManifestItem, config_data: bytes, config: ImageConfig, source: Source, tag: str
    ) -> Image:
        """Return the image of a manifest item."""
        document = Document.of(documents.DOCKER_CONFIG, config_data)
        found = self._stored_manifest(document.descriptor.digest, item)
        if config.diff_ids is None:  # an artifact, as engines with a containerd store save it
            if found is None:
                raise InvalidImage(f"{self._name}: {printable(item.config)} has no rootfs: it is null or missing")
            return candidate_image(self.blobs, found, source, tag)
        if found is not None and not self._is_of_tars(found):
            return candidate_image(self.blobs, found, source, tag)
        stored = self._stored_layers(item, config.diff_ids)
        if found is not None and any(layer.compression for layer in stored):
            return candidate_image(self.blobs, found, source, tag)
        digests: dict[MemberKey, Digest] = {}
        for layer in stored:
            if layer.key not in digests:  # a repeated layer is hashed once
                plain = layer.compression is None
                digests[layer.key] = layer.diff_id if plain else self.digest_of(layer.content, "sha256")
        layers = tuple(
            Layer(
                layer.diff_id,
                Descriptor(documents.DOCKER_LAYER, layer.content.size, digests[layer.key]),
                layer.content,
                layer.compression,
                layer.where,
            )
            for layer in stored
        )
        manifest = documents.write_manifest(
            documents.DOCKER_MANIFEST, document.descriptor, (layer.descriptor for layer in layers)
        )
        return Image(
            source=source,
            tag=tag,
            platform=config.platform,
            created_ns=config.created_ns,
            config=document,
            manifest=Document.of(documents.DOCKER_MANIFEST, manifest),
            layers=layers,
            documents=() if found is None else self._documents(found),
            generated=True,
        )

    def _candidate_image(self, candidate: Candidate, source: Source, tag: str) -> Image:
        """Return the image of a manifest in the archive's image layout, with the manifest of a Docker archive."""
        image = candidate_image(self.blobs, candidate, source, tag)
        if image.artifact or any(layer.compression or not layer.readable for layer in image.layers):
            return image
        layers = tuple(
            layer._replace(descriptor=layer.descriptor._replace(media_type=documents.DOCKER_LAYER))
            for layer in image.layers
        )
        config = image.config._replace(descriptor=image.config.descriptor._replace(media_type=documents.DOCKER_CONFIG))
        manifest = documents.write_manifest(
            documents.DOCKER_MANIFEST, config.descriptor, (layer.descriptor for layer in layers)
        )
        return image._replace(
            config=config,
            layers=layers,
            manifest=Document.of(documents.DOCKER_MANIFEST, manifest),
            documents=(*image.documents, image.manifest),
            generated=True,
        )

    def _documents(self, found: Candidate) -> tuple[Document, ...]:
        return (*stored_indexes(self.blobs, found), document(self.blobs, found.manifest, "the manifest"))

    def _of_platform(self, item: ManifestItem, data: bytes, config: ImageConfig, wanted: Platform) -> Candidate | None:
        """Return a manifest that suits better than the item, None if the item suits best.

        Newer engines save several platforms and list one.
        """
        rank = suitability(config.platform, wanted, exact=True)
        if rank == 0:
            return None
        own = self._stored_manifest(Digest.of([data]), item)
        siblings = [] if own is None else [other for other in self._layout() if other.entry == own.entry]
        if len(siblings) > 1:
            best = choose(self.layout, siblings, wanted)
            return None if best == own else best
        if rank is None:
            raise self._wrong_platform(config, wanted)
        return None

    def _wrong_platform(self, config: ImageConfig, wanted: Platform) -> Unavailable:
        return Unavailable(f"{self._name} has no image for {wanted}; it is for {config.platform}")

    def _layout(self) -> list[Candidate]:
        """Return the manifests in the archive's image layout; an empty list if that is missing or damaged."""
        try:
            return list(candidates(self.layout, top_entries(self.layout)))
        except ImgfsError:  # the manifest list decides: some engines wrote wrong indexes
            return []

    def _is_of_tars(self, candidate: Candidate) -> bool:
        return all(layer.media_type in documents.LAYERS for layer in self._manifest(candidate).layers)

    def _stored_manifest(self, config: Digest, item: ManifestItem) -> Candidate | None:
        """Return the stored manifest of the image with this *config* and the layers of *item*, None without one."""
        keys = [self.blobs.member_key(name) for name in item.layers]
        seen: set[tuple[Digest, int]] = set()
        for candidate in self._layout():
            stated = self.layout.manifest(candidate.manifest)
            key = (candidate.manifest.digest, candidate.manifest.size)
            if stated is None or stated.config.digest != config or key in seen:
                continue
            seen.add(key)
            try:
                manifest = self._manifest(candidate)
                if (
                    manifest.config.digest == config
                    and [self._blob_key(layer.digest) for layer in manifest.layers] == keys
                    and all(blob(self.blobs, part, "") for part in (manifest.config, *manifest.layers))
                ):
                    return candidate
            except ImgfsError:  # damaged, or of another kind: not the manifest of this image
                continue
        return None

    def _manifest(self, candidate: Candidate) -> Manifest:
        return documents.parse_manifest(
            document(self.blobs, candidate.manifest, "the manifest").content.data, self._name
        )

    def _blob_key(self, digest: Digest) -> MemberKey:
        return self.blobs.member_key(f"blobs/{digest.algorithm}/{digest.encoded}".encode())

    def _stored_layers(self, item: ManifestItem, diff_ids: Sequence[DiffID]) -> list[_StoredLayer]:
        if len(item.layers) != len(diff_ids):
            raise InvalidImage(
                f"{self._name}: manifest.json lists {len(item.layers)} layers, the config {len(diff_ids)}"
            )
        by_diff_id: dict[DiffID, _StoredLayer] = {}
        by_key: dict[MemberKey, DiffID] = {}
        for number, (name, diff_id) in enumerate(zip(item.layers, diff_ids, strict=True)):
            content, key = self.blobs.content(name), self.blobs.member_key(name)
            other = by_key.setdefault(key, diff_id)
            if other != diff_id:
                raise InvalidImage(f"{self._name}: {printable(name)} is listed for two diffIDs: {other} and {diff_id}")
            # A repeated layer counts as its first member, whatever its name.
            if diff_id not in by_diff_id:
                compression = layer_compression(content, f"{self._name}: {printable(name)}")
                where = f"{self._name}: layer {number} ({printable(name)})"
                by_diff_id[diff_id] = _StoredLayer(diff_id, content, key, compression, where)
        return [by_diff_id[diff_id] for diff_id in diff_ids]
