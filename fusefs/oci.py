"""The JSON documents of an image, as typed values, and the manifests that imgfs writes.

Formats: the OCI image specification 1.1; Docker's "Image Manifest Version 2, Schema 2"; and the
``manifest.json`` of `docker save` (moby image/spec v1.2).  A parser takes the raw bytes and the
words that name them in an error, and raises InvalidImage.
"""

import datetime as dt
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from fusefs.digest import DiffID, Digest
from fusefs.errors import InvalidImage, printable

MANIFEST_LIST_LIMIT = 1 << 20
"""Bytes that the manifest list of a Docker archive may have."""
DOCUMENT_LIMIT = 4 << 20
"""Bytes that an image config, a manifest or an index may have."""

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a document says of a blob that it refers to."""

    media_type: str
    size: int
    """Bytes, as stored."""
    digest: Digest


@dataclass(frozen=True, slots=True)
class ManifestItem:
    """One image in the manifest list of a Docker archive: names of its members, and its tags."""

    config: bytes
    repo_tags: tuple[str, ...]
    layers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The parts of an image config that imgfs needs."""

    diff_ids: tuple[DiffID, ...]
    created_ns: int
    """Nanoseconds since 1970, 0 when missing or senseless."""


def parse_manifest_list(data: bytes, where: str) -> tuple[ManifestItem, ...]:
    """Return the images that *data*, the ``manifest.json`` of a Docker archive, lists."""
    document = _parsed(data, where)
    if not isinstance(document, list):
        msg = f"{where} is {_kind(document)}, not a list of images"
        raise InvalidImage(msg)
    if not document:
        msg = f"{where} lists no image"
        raise InvalidImage(msg)
    return tuple(_manifest_item(item, f"{where}: image {n}") for n, item in enumerate(document))


def parse_image_config(data: bytes, where: str) -> ImageConfig:
    """Return what *data*, an image config, says of its layers and its age."""
    document = _parsed(data, where)
    if not isinstance(document, dict):
        msg = f"{where} is {_kind(document)}, not an image config"
        raise InvalidImage(msg)
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict):
        msg = f"{where} has no rootfs: it is {_kind(rootfs)}"
        raise InvalidImage(msg)
    diff_ids = _strings(rootfs.get("diff_ids"), f"{where}: rootfs.diff_ids")
    return ImageConfig(
        diff_ids=tuple(DiffID(parse_digest(text, f"{where}: rootfs.diff_ids[{n}]")) for n, text in enumerate(diff_ids)),
        created_ns=_nanoseconds(document.get("created")),
    )


def parse_digest(text: str, where: str) -> Digest:
    """Return the digest that *text* spells."""
    try:
        return Digest.parse(text)
    except ValueError as error:
        msg = f"{where}: {error}"
        raise InvalidImage(msg) from None


def schema2_manifest(config: Descriptor, layers: Iterable[Descriptor]) -> bytes:
    """Return a Docker schema 2 manifest, byte for byte as containers/image generates it."""
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": _descriptor_json(config),
        "layers": [_descriptor_json(layer) for layer in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor_json(descriptor: Descriptor) -> Json:
    return {"mediaType": descriptor.media_type, "size": descriptor.size, "digest": str(descriptor.digest)}


def _manifest_item(item: Json, where: str) -> ManifestItem:
    if not isinstance(item, dict):
        msg = f"{where} is {_kind(item)}, not an object"
        raise InvalidImage(msg)
    config = item.get("Config")
    if not isinstance(config, str) or not config:
        msg = f"{where} names no config: Config is {_kind(config)}"
        raise InvalidImage(msg)
    return ManifestItem(
        config=_member_name(config, f"{where}: Config"),
        repo_tags=_strings(item.get("RepoTags"), f"{where}: RepoTags"),
        layers=tuple(
            _member_name(name, f"{where}: Layers") for name in _strings(item.get("Layers"), f"{where}: Layers")
        ),
    )


def _member_name(text: str, where: str) -> bytes:
    try:
        name = text.encode()
    except UnicodeEncodeError:  # a lone surrogate, written as an escape
        name = b""
    if not name or ".." in text.split("/"):
        msg = f"{where}: refused: {printable(text)!r} names no member"
        raise InvalidImage(msg)
    return name


def _strings(value: Json, where: str) -> tuple[str, ...]:
    """Return a list of strings; null and a missing list are empty, as Go has it."""
    if value is None:
        return ()
    if not isinstance(value, list):
        msg = f"{where} is {_kind(value)}, not a list"
        raise InvalidImage(msg)
    strings = [item for item in value if isinstance(item, str)]
    if len(strings) < len(value):
        msg = f"{where} has an entry that is no string"
        raise InvalidImage(msg)
    return tuple(strings)


def _parsed(data: bytes, where: str) -> Json:
    try:
        document: Json = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error))
        msg = f"{where} is not JSON: {reason}"
        raise InvalidImage(msg) from None
    return document


def _kind(value: Json) -> str:
    match value:
        case None:
            return "null or missing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"


def _nanoseconds(created: Json) -> int:
    """Return an RFC 3339 time in nanoseconds since 1970, 0 for what is none or lies before."""
    match = _RFC3339.fullmatch(created) if isinstance(created, str) else None
    if match is None:
        return 0
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        moment = dt.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=dt.UTC)
    except ValueError:
        return 0
    fraction, sign, hours, minutes = match.groups()[6:]
    offset = 0 if sign is None else int(f"{sign}1") * (int(hours) * 3600 + int(minutes) * 60)
    seconds = (moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(seconds=1)
    return max(0, (seconds - offset) * 10**9 + int((fraction or "0").ljust(9, "0")))
