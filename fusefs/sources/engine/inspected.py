"""The answer of an engine to *inspect*, before it saves an image."""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.platform import Platform
from fusefs.oci.transport import Source
from fusefs.oci.untrusted_json import field_of

_MAX_SIZE = (1 << 63) - 1


class Inspected(NamedTuple):
    """An engine's description of an image."""

    image_id: Digest
    """The digest of the image config; in a containerd store, of a manifest or an index."""
    tags: tuple[str, ...]
    size: int
    """Estimated bytes; can be far too small."""
    diff_ids: tuple[DiffID, ...]
    platform: Platform | None
    """The platform that the description is of."""
    repo_digests: tuple[str, ...]
    storage: str
    """The engine's storage driver, which decides on the format of a save; empty if it is not stated."""
    answer: Mapping[str, Any] = MappingProxyType({})
    """The whole answer."""


class Target(NamedTuple):
    """The image that the user asked for, and the engine's description of it."""

    source: Source
    platform: Platform | None
    inspected: Inspected

    @property
    def name(self) -> str:
        """The user's name for the image."""
        return self.source.name


def parse_inspected(answer: Any) -> Inspected:
    """Return the description in *answer*; one of `NONSENSE` for a malformed one."""
    image_id: Any = field_of(answer, "Id")
    size: Any = field_of(answer, "Size")
    root: Any = field_of(answer, "RootFS")
    tags: Any = field_of(answer, "RepoTags") or ()
    digests: Any = field_of(answer, "RepoDigests") or ()
    diff_ids: Any = field_of(root, "Layers") or ()
    return Inspected(
        image_id=Digest.parse(image_id if ":" in image_id else f"sha256:{image_id}"),
        tags=tuple(text for text in tags if isinstance(text, str)),
        size=_size(size),
        diff_ids=tuple(DiffID(Digest.parse(text)) for text in diff_ids),
        platform=_platform(answer),
        repo_digests=tuple(text for text in digests if isinstance(text, str)),
        storage=_storage(answer),
        answer=answer,
    )


def parse_list(answer: bytes) -> list[Any]:
    """Return the list in *answer*; one of `NONSENSE`, or RecursionError, for anything else."""
    document = json.loads(answer)
    if not isinstance(document, list):
        raise TypeError("a list is expected")
    return document


NONSENSE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""The exceptions that `parse_inspected` raises for a malformed answer."""


def engine_key(target: Target) -> str:
    """Return the key in the cache of the image for the platform that the user asks for."""
    inspected = target.inspected
    parts = [str(inspected.image_id), str(target.platform or ""), str(inspected.platform or ""), inspected.storage]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _size(stated: Any) -> int:
    """Return a size in bytes; a negative one counts as 0, and one that Go's int64 cannot hold is malformed."""
    size = int(stated)  # OverflowError for 1e999
    if size > _MAX_SIZE:
        raise ValueError(f"a size of more than {_MAX_SIZE} bytes")
    return max(0, size)


def _platform(answer: Mapping[str, Any]) -> Platform | None:
    os, architecture, variant, version = (
        str(field_of(answer, key) or "") for key in ("Os", "Architecture", "Variant", "OsVersion")
    )
    return Platform(os, architecture, variant, version) if os and architecture else None


def _storage(answer: Mapping[str, Any]) -> str:
    driver = field_of(answer, "GraphDriver")
    return str(field_of(driver, "Name") or "") if isinstance(driver, dict) else ""
