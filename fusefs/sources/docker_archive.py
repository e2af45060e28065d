"""A Docker archive: the tar of `docker save`, as engines, podman, skopeo, kaniko, jib, bazel and nix write it.

Format: moby image/spec v1.2, "Combined Image JSON + Filesystem Changeset Format".  The rules for
links, repeated layers and the generated manifest are those of containers/image, docker/internal/tarfile.
"""

from dataclasses import dataclass

from fusefs import oci
from fusefs.compression import FIRST_BYTES, compression_of
from fusefs.content import Content, Extent, OpenFile
from fusefs.digest import DiffID
from fusefs.errors import InvalidImage, Unavailable, Unsupported, printable
from fusefs.image import Document, Image, Layer
from fusefs.oci import Descriptor, ManifestItem
from fusefs.sources.reference import tagged
from fusefs.tarheader import Kind
from fusefs.tarindex import Member, TarIndex

_MANIFEST = b"manifest.json"


@dataclass(frozen=True, slots=True)
class DockerArchive:
    """An indexed Docker archive whose members can be read."""

    file: OpenFile
    index: TarIndex

    def image(self, choice: str | int | None, name: str) -> Image:
        """Return the image that *choice*, a tag or an index, picks; *name* is what it is called."""
        item = self._item(choice)
        where = f"{self._name}: {printable(item.config)}"
        config_data = self._document(item.config, oci.DOCUMENT_LIMIT)
        config = oci.parse_image_config(config_data, where)
        layers = self._layers(item, config.diff_ids)
        document = Document.of(oci.DOCKER_CONFIG, config_data)
        manifest = oci.schema2_manifest(document.descriptor, (layer.descriptor for layer in layers))
        return Image(
            name=name,
            config=document,
            manifest=Document.of(oci.DOCKER_MANIFEST, manifest),
            layers=layers,
            created_ns=config.created_ns,
        )

    @property
    def _name(self) -> str:
        return self.file.name

    def _item(self, choice: str | int | None) -> ManifestItem:
        if self.index.find(_MANIFEST) is None:
            raise self._no_manifest()
        data = self._document(_MANIFEST, oci.MANIFEST_LIST_LIMIT)
        items = oci.parse_manifest_list(data, f"{self._name}: manifest.json")
        match choice:
            case None if len(items) == 1:
                return items[0]
            case int() if choice < len(items):
                return items[choice]
            case str():
                for item in items:
                    if tagged(choice) in map(tagged, item.repo_tags):
                        return item
        raise Unavailable(self._choices(choice, items))

    def _choices(self, choice: str | int | None, items: tuple[ManifestItem, ...]) -> str:
        tags = (", ".join(map(printable, item.repo_tags)) or "no tag" for item in items)
        listed = "; ".join(f"@{n} ({names})" for n, names in enumerate(tags))
        match choice:
            case None:
                return (
                    f"{self._name} holds {len(items)} images; "
                    f"choose with docker-archive:{self._name}:REF or :@INDEX from {listed}"
                )
            case int():
                return f"{self._name} has no image @{choice}; there are {listed}"
            case str():
                return f"{self._name} has no image {printable(choice)}; there are {listed}"

    def _no_manifest(self) -> InvalidImage | Unsupported:
        members = self.index.members
        if not members:
            return InvalidImage(f"{self._name}: not an image archive: it has no members, only zero bytes")
        if b"index.json" in members or b"oci-layout" in members:
            return Unsupported(f"{self._name}: OCI image layouts are not supported yet")
        if b"repositories" in members or any(name.endswith(b"/layer.tar") for name in members):
            return Unsupported(
                f"{self._name}: saved by a Docker older than 1.10 (no manifest.json); "
                "docker load and docker save it with a newer one"
            )
        return InvalidImage(f"{self._name}: not an image archive: manifest.json is missing")

    def _layers(self, item: ManifestItem, diff_ids: tuple[DiffID, ...]) -> tuple[Layer, ...]:
        if len(item.layers) != len(diff_ids):
            msg = f"{self._name}: manifest.json lists {len(item.layers)} layers, the config {len(diff_ids)}"
            raise InvalidImage(msg)
        by_diff_id: dict[DiffID, Layer] = {}
        by_offset: dict[int, DiffID] = {}
        for name, diff_id in zip(item.layers, diff_ids, strict=True):
            member = self._regular(name)
            other = by_offset.setdefault(member.offset, diff_id)
            if other != diff_id:
                msg = f"{self._name}: {printable(name)} is listed for two diffIDs: {other} and {diff_id}"
                raise InvalidImage(msg)
            # A layer that comes again counts as its first one, under whatever name.
            if diff_id not in by_diff_id:
                by_diff_id[diff_id] = self._layer(name, member, diff_id)
        return tuple(by_diff_id[diff_id] for diff_id in diff_ids)

    def _layer(self, name: bytes, member: Member, diff_id: DiffID) -> Layer:
        content = self._content(member)
        compression = compression_of(content.read_at(0, FIRST_BYTES))
        if compression is not None:
            msg = f"{self._name}: {printable(name)} is {compression.value}: compressed layers are not supported yet"
            raise Unsupported(msg)
        descriptor = Descriptor(oci.DOCKER_LAYER, content.size, diff_id)
        return Layer(diff_id, descriptor, content, printable(name))

    def _document(self, name: bytes, limit: int) -> bytes:
        """Return the bytes of the JSON document that is called *name*."""
        member = self._regular(name)
        if member.size > limit:
            msg = f"{self._name}: {printable(name)} has {member.size} bytes, more than {limit}"
            raise InvalidImage(msg)
        return bytes(self._content(member).read_at(0, member.size))

    def _regular(self, name: bytes) -> Member:
        """Return the regular file that *name* is or links to."""
        member = self.index.follow(name)
        if member.kind is not Kind.REGULAR:
            msg = f"{self._name}: {printable(name)} is a {member.kind.value}, not a regular file"
            raise InvalidImage(msg)
        if member.sparse:
            msg = f"{self._name}: {printable(name)} is stored as a sparse file, which no engine reads"
            raise Unsupported(msg)
        return member

    def _content(self, member: Member) -> Content:
        return Extent(self.file, member.offset, member.size)
