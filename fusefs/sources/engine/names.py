"""The names of an engine's images for shell completion: quickly, without the SDK, or not at all."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

from fusefs.errors import UsageError
from fusefs.oci.reference import check_reference
from fusefs.oci.untrusted_json import field_of
from fusefs.sources.engine.endpoint import Endpoint
from fusefs.sources.http import BoundedResponse, UnixConnection, bounded_response
from fusefs.sources.tls import ssl_context

_DEFAULT_PORTS = {"tcp": 2375, "http": 80, "https": 443}
_TLS_PORT = 2376
_LONGEST = 400
"""Maximum length of a name with its tag, in characters."""


def image_names(endpoint: Endpoint, timeout: float) -> list[str]:
    """Return the names of the images of an engine, with their tags; an empty list if the engine does not answer.

    *timeout* is in seconds, for the connection and for the answer.  An engine's answer is untrusted and goes to a
    shell: only a valid reference, which has no blank, quote or dollar sign, is returned.
    """
    try:
        with closing(connection(endpoint, timeout)) as made:
            made.response_class = bounded_response(timeout)
            made.request("GET", "/images/json")
            answer = made.getresponse()
            assert isinstance(answer, BoundedResponse)
            document = json.loads(answer.whole())
        return sorted(set(_names(document)))
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return []


def connection(endpoint: Endpoint, timeout: float | None) -> http.client.HTTPConnection:
    """Return a connection to the engine; ValueError for one that needs more than a socket."""
    scheme, _, rest = endpoint.host.partition("://")
    if scheme == "unix":
        return UnixConnection(rest, timeout)
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(scheme)
    address = urlsplit(f"//{rest}")
    host = address.hostname or ""
    if endpoint.tls is not None or scheme == "https":
        context = ssl_context(endpoint.tls)
        return http.client.HTTPSConnection(host, address.port or _TLS_PORT, timeout=timeout, context=context)
    return http.client.HTTPConnection(host, address.port or _DEFAULT_PORTS[scheme], timeout=timeout)


def _names(document: object) -> Iterator[str]:
    for image in document if isinstance(document, list) else ():
        tags = field_of(image, "RepoTags") if isinstance(image, dict) else None
        for name in tags if isinstance(tags, list) else ():
            if isinstance(name, str) and len(name) <= _LONGEST and is_reference(name):
                yield name


def is_reference(name: str) -> bool:
    """Return whether *name* is a valid reference."""
    try:
        check_reference(name)
    except UsageError:
        return False
    return True
