"""The ``manifest.json`` of a Docker archive: its manifest items (moby image/spec v1.2)."""

from typing import NamedTuple

from fusefs.errors import InvalidImage
from fusefs.oci.untrusted_json import Json, as_object, as_strings, field_of, kind, parse_list
from fusefs.text import printable

MANIFEST_LIST_LIMIT = 1 << 20
"""Maximum size of a manifest list, in bytes."""


class ManifestItem(NamedTuple):
    """One image: the member names of its config and layers, and its tags."""

    config: bytes
    repo_tags: tuple[str, ...]
    layers: tuple[bytes, ...]


def parse_manifest_list(data: bytes, where: str) -> tuple[ManifestItem, ...]:
    """Return the images that *data* lists; InvalidImage, with *where*, if it is malformed."""
    document = parse_list(data, where, "a list of images")
    if not document:
        raise InvalidImage(f"{where} lists no image")
    return tuple(_item(item, f"{where}: image {n}") for n, item in enumerate(document))


def _item(value: Json, where: str) -> ManifestItem:
    item = as_object(value, where)
    config = field_of(item, "Config")
    if not isinstance(config, str) or not config:
        raise InvalidImage(f"{where} names no config: Config is {kind(config)}")
    return ManifestItem(
        config=_member_name(config, f"{where}: Config"),
        repo_tags=as_strings(field_of(item, "RepoTags"), f"{where}: RepoTags"),
        layers=tuple(
            _member_name(name, f"{where}: Layers") for name in as_strings(field_of(item, "Layers"), f"{where}: Layers")
        ),
    )


def _member_name(text: str, where: str) -> bytes:
    if not text or ".." in text.split("/"):
        raise InvalidImage(f"{where}: refused: '{printable(text)}' names no member")
    return text.encode()
