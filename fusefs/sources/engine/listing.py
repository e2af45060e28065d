"""The images that an engine has, with one request."""

import http.client
from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple

from fusefs.errors import EngineError, InvalidImage
from fusefs.oci.digest import Digest
from fusefs.oci.untrusted_json import field_of, parse_list
from fusefs.sources.engine.advice import when_unreachable
from fusefs.sources.engine.answers import unanswered
from fusefs.sources.engine.endpoint import Endpoint
from fusefs.sources.engine.inspected import NONSENSE
from fusefs.sources.engine.names import connection, is_reference
from fusefs.sources.http import BoundedResponse, bounded_response
from fusefs.sources.reasons import cause_of, reason

_OK = 200
_PATH = "/images/json"
_MAX_SECONDS = 1 << 33


class ListedImage(NamedTuple):
    """An image as an engine lists it."""

    image_id: Digest
    tags: tuple[str, ...]
    """Valid references, each with a tag."""
    repo_digests: tuple[str, ...]
    created_ns: int
    """Nanoseconds since 1970, 0 if unknown."""


def list_images(endpoint: Endpoint, timeout: float | None) -> list[ListedImage]:
    """Return the images of an engine; EngineError if it does not list them within *timeout* seconds.

    What the engine lists is untrusted: entries that are no image, and names that are no reference, are left out.
    """
    try:
        entries = parse_list(_answer(endpoint, timeout), endpoint.shown, "images")
    except InvalidImage as error:
        raise EngineError(f"the engine lists its images in a way that imgfs does not understand: {error}") from None
    return [image for entry in entries for image in _image(entry)]


def _answer(endpoint: Endpoint, timeout: float | None) -> bytes:
    if endpoint.host.startswith("ssh://"):
        from fusefs.sources.engine.sdk import sdk_engine  # noqa: PLC0415 - slow to import

        with sdk_engine(endpoint, timeout) as engine:
            return engine.images()
    try:
        with closing(connection(endpoint, timeout)) as engine_connection:
            engine_connection.response_class = bounded_response(timeout)
            engine_connection.request("GET", _PATH)
            answer = engine_connection.getresponse()
            assert isinstance(answer, BoundedResponse)
            if answer.status != _OK:
                raise EngineError(f"the engine at {endpoint.shown} lists no images: status {answer.status}")
            return answer.whole()
    except TimeoutError:
        raise unanswered(endpoint.shown, timeout) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        hint = when_unreachable(endpoint, cause_of(error))
        raise EngineError(f"cannot reach an engine at {endpoint.shown}: {reason(error)}; {hint}") from None


def _image(entry: Any) -> list[ListedImage]:
    """Return the image that *entry* describes, nothing if it describes none."""
    if not isinstance(entry, Mapping):
        return []
    try:
        image_id: Any = field_of(entry, "Id")
        created: Any = field_of(entry, "Created")
        seconds = int(created) if isinstance(created, int) and 0 <= created < _MAX_SECONDS else 0
        return [
            ListedImage(
                Digest.parse(image_id if ":" in image_id else f"sha256:{image_id}"),
                tuple(_references(entry, "RepoTags")),
                tuple(_references(entry, "RepoDigests")),
                seconds * 10**9,
            )
        ]
    except (InvalidImage, *NONSENSE):
        return []


def _references(entry: Mapping[str, Any], key: str) -> list[str]:
    names: Any = field_of(entry, key)
    if not isinstance(names, list):
        return []
    return [name for name in names if isinstance(name, str) and is_reference(name)]
