"""What an engine says of an image before it is saved, the answer to *inspect*; and the saved image compared with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusefs.errors import DigestMismatch
from fusefs.image.model import Image
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.platform import Platform
from fusefs.oci.reference import tag_of, tagged
from fusefs.oci.transport import Source
from fusefs.sources.archive.docker_archive import DockerArchive
from fusefs.sources.archive.spooled import SavedTar
from fusefs.text import printable


@dataclass(frozen=True, slots=True)
class Inspected:
    """What an engine says of an image before it is saved."""

    image_id: Digest
    """Of the image config, or in a containerd store of a manifest or an index."""
    tags: tuple[str, ...]
    size: int
    """Bytes, an estimate: it can be far too small."""
    diff_ids: tuple[DiffID, ...]
    platform: Platform | None
    """The one that it describes."""
    storage: str
    """How the engine stores images, which decides what a save looks like; empty if it does not say."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the user asked an engine for, and what the engine says that is."""

    source: Source
    platform: Platform | None
    inspected: Inspected

    @property
    def name(self) -> str:
        """What the user calls the image."""
        return self.source.name


def parse_inspected(answer: Any) -> Inspected:
    """Return what the *answer* to inspect says; KeyError, TypeError, ValueError or AttributeError for nonsense."""
    return Inspected(
        image_id=Digest.parse(answer["Id"] if ":" in answer["Id"] else f"sha256:{answer['Id']}"),
        tags=tuple(text for text in answer.get("RepoTags") or () if isinstance(text, str)),
        size=int(answer["Size"]),
        diff_ids=tuple(DiffID(Digest.parse(text)) for text in answer["RootFS"].get("Layers") or ()),
        platform=_platform(answer),
        storage=_storage(answer),
    )


NONSENSE = (KeyError, TypeError, ValueError, AttributeError)
"""What `parse_inspected` raises."""


def saved_image(saved: SavedTar, target: Target, *, only: bool) -> Image:
    """Return the saved image, which must be the one that was inspected, every digest checked.

    *only*: the engine was asked for the platform alone.  Raises DigestMismatch, InvalidImage, Unavailable or
    Unsupported.
    """
    name, inspected = target.name, target.inspected
    asked = [name] if tagged(name) in map(tagged, inspected.tags) else []
    tag = tag_of(name) or next((tag_of(tagged(text)) for text in (*asked, *inspected.tags)), "") or "latest"
    archive = DockerArchive(saved.blobs, saved.digest_of)
    platform = target.platform or inspected.platform
    image = archive.image_with_id(inspected.image_id, platform, target.source, tag, only=only)
    diff_ids = tuple(layer.diff_id for layer in image.layers)
    # Inspect describes the platform that the engine prefers, not one that was asked for.
    if target.platform is None and diff_ids != inspected.diff_ids:
        raise DigestMismatch(
            f"{printable(name)}: the saved image has other layers ({len(diff_ids)}) "
            f"than the engine says ({len(inspected.diff_ids)})"
        )
    image.verify(saved.digest_of)
    return image


def _platform(answer: Mapping[str, Any]) -> Platform | None:
    parts = [answer.get(key) or "" for key in ("Os", "Architecture", "Variant")]
    return Platform(*map(str, parts)) if parts[0] and parts[1] else None


def _storage(answer: Mapping[str, Any]) -> str:
    driver = answer.get("GraphDriver")
    return str(driver.get("Name") or "") if isinstance(driver, dict) else ""
