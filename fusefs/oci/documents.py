"""The JSON documents of an image as typed values, and the documents that imgfs writes.

Formats: the OCI image specification 1.1, and Docker's "Image Manifest Version 2, Schema 2".  A
parser takes the raw bytes and their name for messages, and raises InvalidImage.
"""

import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from fusefs.errors import ImgfsError, InvalidImage, Unsupported
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.platform import Platform
from fusefs.oci.times import nanoseconds
from fusefs.oci.untrusted_json import (
    Json,
    as_list,
    as_object,
    as_string,
    as_strings,
    field_of,
    has_field,
    kind,
    parse_object,
)
from fusefs.text import printable

DOCUMENT_LIMIT = 4 << 20
"""Maximum size of an image config, a manifest or an index, in bytes."""

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
"""That of ``{}``, where an artifact has no config or no layer."""
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

SCHEMA_1 = frozenset({DOCKER_SCHEMA_1, "application/vnd.docker.distribution.manifest.v1+prettyjws"})
"""The media types of manifests that imgfs does not read: `schema_1` is the error."""
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
IMAGE_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYERS = frozenset(
    {
        f"application/vnd.{kind}{ending}"
        for kind in ("oci.image.layer.v1.tar", "oci.image.layer.nondistributable.v1.tar")
        for ending in ("", "+gzip", "+zstd")
    }
    | {
        f"application/vnd.docker.image.rootfs.{kind}{ending}"
        for kind in ("diff.tar", "foreign.diff.tar")
        for ending in ("", ".gzip", ".zstd")
    }
)
"""The media types of a layer that is a tar."""

REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""The content of ``oci-layout``."""


class Descriptor(NamedTuple):
    """A reference from a document to a blob."""

    media_type: str
    size: int
    """Bytes as stored."""
    digest: Digest
    platform: Platform | None = None
    annotations: Mapping[str, str] = MappingProxyType({})
    urls: tuple[str, ...] = ()
    """Other places of the blob."""
    artifact_type: str = ""
    """The kind of artifact that the blob is a manifest of; empty for an image."""
    data: bytes | None = None
    """The blob itself, embedded in the descriptor; None if it is not."""

    @property
    def ref_name(self) -> str:
        """Its name in an image layout's index; may be empty."""
        return self.annotations.get(REF_NAME, "")


class ImageConfig(NamedTuple):
    """The parts of an image config that imgfs needs."""

    diff_ids: tuple[DiffID, ...] | None
    """None without a rootfs: it is the config of an artifact."""
    created_ns: int
    """Nanoseconds since 1970, 0 if missing or malformed."""
    platform: Platform


class Manifest(NamedTuple):
    """An image manifest: OCI's, or Docker's schema 2."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    """The kind of artifact; empty for an image."""


class Index(NamedTuple):
    """An image index, or Docker's manifest list."""

    manifests: tuple[Descriptor, ...]


def parse_image_config(data: bytes, where: str) -> ImageConfig:
    """Return the diffIDs, the time and the platform in *data*, an image config."""
    document = parse_object(data, where, "an image config")
    rootfs = field_of(document, "rootfs")
    return ImageConfig(
        diff_ids=None if rootfs is None else _diff_ids(as_object(rootfs, f"{where}: rootfs"), where),
        created_ns=nanoseconds(field_of(document, "created")),
        platform=_platform(document),
    )


def _diff_ids(rootfs: Mapping[str, Json], where: str) -> tuple[DiffID, ...]:
    texts = as_strings(field_of(rootfs, "diff_ids"), f"{where}: rootfs.diff_ids")
    return tuple(DiffID(parse_digest(text, f"{where}: rootfs.diff_ids[{n}]")) for n, text in enumerate(texts))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Return the manifest in *data*; Unsupported for Docker's schema 1."""
    document = parse_object(data, where, "an image manifest")
    if field_of(document, "schemaVersion") == 1:
        raise schema_1(where)
    layers = as_list(field_of(document, "layers"), f"{where}: layers")
    return Manifest(
        media_type=as_string(field_of(document, "mediaType")) or OCI_MANIFEST,
        config=_descriptor(field_of(document, "config"), f"{where}: config"),
        layers=tuple(_descriptor(layer, f"{where}: layers[{n}]") for n, layer in enumerate(layers)),
        artifact_type=as_string(field_of(document, "artifactType")),
    )


def schema_1(where: str) -> Unsupported:
    """Return the error for Docker's "Image Manifest Version 2, Schema 1"."""
    return Unsupported(
        f"{where}: a Docker schema 1 manifest is not supported; docker pull and docker save it with a newer engine"
    )


def parse_index(data: bytes, where: str) -> Index:
    """Return the index in *data*; engines write ``"manifests":null`` for an empty one."""
    document = parse_object(data, where, "an image index")
    manifests = as_list(field_of(document, "manifests"), f"{where}: manifests")
    return Index(tuple(_descriptor(item, f"{where}: manifests[{n}]") for n, item in enumerate(manifests)))


def readable_manifests(data: bytes, where: str) -> Iterator[Descriptor]:
    """Yield the manifests that the index in *data* lists, but for those with a fault; raise its first fault at the end.

    Others may add to such an index what they like: the referrers of an image, say.
    """
    fault: ImgfsError | None = None
    items = as_list(field_of(parse_object(data, where, "an image index"), "manifests"), f"{where}: manifests")
    for number, item in enumerate(items):
        try:
            yield _descriptor(item, f"{where}: manifests[{number}]")
        except ImgfsError as error:
            fault = fault or error
    if fault is not None:
        raise fault


def check_layout(data: bytes, where: str) -> None:
    """Check *data*, the file ``oci-layout``; Unsupported for another version than 1.0.0."""
    version = field_of(parse_object(data, where, "an image layout's version"), "imageLayoutVersion")
    if version != "1.0.0":
        raise Unsupported(
            f"{where}: unsupported image layout version {printable(json.dumps(version))[:80]}; 1.0.0 is supported"
        )


def media_type_of(data: bytes, where: str) -> str:
    """Return the media type of *data*, a manifest or an index without a descriptor; empty for another document."""
    document = parse_object(data, where, "a manifest or an index")
    stated = as_string(field_of(document, "mediaType"))
    if stated or has_field(document, "manifests"):
        return stated or OCI_INDEX
    if field_of(document, "schemaVersion") == 1:
        return DOCKER_SCHEMA_1
    return OCI_MANIFEST if has_field(document, "layers") else ""


def parse_digest(text: str, where: str) -> Digest:
    """Return the digest that *text* spells."""
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise InvalidImage(f"{where}: {error}") from None


def write_manifest(media_type: str, config: Descriptor, layers: Iterable[Descriptor]) -> bytes:
    """Return a manifest; a Docker one has the exact bytes that containers/image generates."""
    return _written(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": _descriptor_json(config),
            "layers": [_descriptor_json(layer) for layer in layers],
        }
    )


def write_index(manifest: Descriptor, platform: Platform | None, ref_name: str) -> bytes:
    """Return an image layout's ``index.json`` that lists *manifest* alone, under *ref_name*."""
    listed: dict[str, Json] = {**_descriptor_json(manifest)}
    if platform is not None and platform.os and platform.architecture:
        parts: dict[str, Json] = {
            "architecture": platform.architecture,
            "os": platform.os,
            "os.version": platform.os_version,
            "os.features": list(platform.os_features),
            "variant": platform.variant,
        }
        listed["platform"] = {key: value for key, value in parts.items() if value}
    listed["annotations"] = {REF_NAME: ref_name}
    return _written({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]})


def _written(document: Json) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor_json(descriptor: Descriptor) -> dict[str, Json]:
    document: dict[str, Json] = {
        "mediaType": descriptor.media_type,
        "size": descriptor.size,
        "digest": str(descriptor.digest),
    }
    if descriptor.urls:
        document["urls"] = list(descriptor.urls)
    return document


def _descriptor(value: Json, where: str) -> Descriptor:
    document = as_object(value, where, "a descriptor")
    size = field_of(document, "size")
    if not isinstance(size, int) or isinstance(size, bool):
        raise InvalidImage(f"{where}: size is {kind(size)}, not a number of bytes")
    if not 0 <= size < 1 << 63:
        raise InvalidImage(f"{where}: size is {size}, not a number of bytes")
    platform = field_of(document, "platform")
    annotations = field_of(document, "annotations")
    return Descriptor(
        media_type=as_string(field_of(document, "mediaType")),
        size=size,
        digest=parse_digest(as_string(field_of(document, "digest")), where),
        platform=_platform(platform) if isinstance(platform, dict) else None,
        annotations={key: as_string(text) for key, text in annotations.items()}
        if isinstance(annotations, dict)
        else {},
        urls=as_strings(field_of(document, "urls"), f"{where}: urls"),
        artifact_type=as_string(field_of(document, "artifactType")),
        data=_embedded(field_of(document, "data"), where),
    )


def _embedded(value: Json, where: str) -> bytes | None:
    if value is None:
        return None
    try:
        return binascii.a2b_base64(as_string(value).translate(_LINE_BREAKS), strict_mode=True)
    except ValueError:
        raise InvalidImage(f"{where}: data is not base64") from None


_LINE_BREAKS = str.maketrans("", "", "\r\n")
"""Go's decoder skips them."""


def _platform(document: Mapping[str, Json]) -> Platform:
    os, architecture, variant, version = (
        printable(as_string(field_of(document, key))) for key in ("os", "architecture", "variant", "os.version")
    )
    features = field_of(document, "os.features")
    stated = (feature for feature in features if isinstance(feature, str)) if isinstance(features, list) else ()
    return Platform(os, architecture, variant, version, tuple(map(printable, stated)))
