"""An engine through the Docker SDK: wherever it is, with TLS, proxies and tunnels.  The only importer of the SDK."""

import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import docker
import docker.constants
import docker.tls
import docker.transport
import requests
import requests.utils
import urllib3.exceptions
from docker import errors as sdk
from docker.utils import version_gte

from fusefs.errors import EngineError, Unavailable, printable
from fusefs.platforms import Platform
from fusefs.sources.advice import when_missing, when_unreachable
from fusefs.sources.endpoint import Endpoint
from fusefs.sources.inspected import NONSENSE, Inspected, Target, parse_inspected
from fusefs.sources.saving import PLATFORM_VERSION, cause_of, reason, refusal, requested_platform

_ANSWER_TIMEOUT = 60
"""Seconds for a connection, and for the answer to everything but a save."""
_CHUNK = 1 << 20

_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What the SDK lets through when a connection fails."""


@contextmanager
def sdk_engine(endpoint: Endpoint) -> Iterator["SdkEngine"]:
    """Give the engine at *endpoint*, for as long as the block takes; EngineError if it cannot be reached."""
    with closing(_connect(endpoint)) as client:
        yield SdkEngine(client, endpoint)


def _connect(endpoint: Endpoint) -> docker.APIClient:
    """Return a client that speaks the engine's version of the API."""
    try:
        # The version is asked for without one: engines refuse both too old and too new a client.
        with closing(_client(endpoint, docker.constants.MINIMUM_DOCKER_API_VERSION)) as client:
            version = client.version(api_version=False)
        if not isinstance(version, dict) or not isinstance(version.get("ApiVersion"), str):
            msg = f"no Docker API at {endpoint.shown}: it states no API version"
            raise EngineError(msg)
        return _client(endpoint, version["ApiVersion"])
    except (sdk.DockerException, *_FAILURES) as error:
        raise _unreachable(endpoint, error) from None


def _client(endpoint: Endpoint, version: str) -> docker.APIClient:
    """Return a client for this *version* of the API; connects to nothing yet."""
    tls: bool | docker.tls.TLSConfig = False
    if endpoint.tls is not None:
        files = endpoint.tls
        pair = (str(files.client[0]), str(files.client[1])) if files.client else None
        ca = str(files.ca) if files.ca and files.verify else None
        tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=ca, verify=files.verify)
        if not files.verify:
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    if endpoint.host.startswith("ssh://") and not hasattr(docker.transport, "SSHHTTPAdapter"):
        msg = f"{endpoint.shown}: ssh needs an extra; pip install 'imgfs[ssh]'"
        raise EngineError(msg)
    client = docker.APIClient(base_url=endpoint.host, version=version, tls=tls, timeout=_ANSWER_TIMEOUT)
    # With trust_env a REQUESTS_CA_BUNDLE in the environment overrides the endpoint's own CA.
    client.trust_env = False
    if client.base_url.startswith(("http://", "https://")):
        client.proxies.update(requests.utils.get_environ_proxies(client.base_url))
    return client


class _Stream:
    """The answer to a save."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes."""
        while chunk := self._response.raw.read(_CHUNK, decode_content=False):
            yield chunk


@dataclass(frozen=True, slots=True)
class SdkEngine:
    """A connection to an engine."""

    client: docker.APIClient
    endpoint: Endpoint

    failures = _FAILURES

    @property
    def shown(self) -> str:
        """Where it is."""
        return self.endpoint.shown

    def picks(self, platform: Platform | None) -> bool:
        """Return whether a save is asked for the *platform*."""
        return platform is not None and version_gte(self.client.api_version, PLATFORM_VERSION)

    def inspect(self, name: str) -> Inspected:
        """Return what the engine says of the image *name*."""
        shown = self.endpoint.shown
        try:
            answer: Any = self.client.inspect_image(name)  # type: ignore[no-untyped-call]
        except sdk.ImageNotFound:
            msg = f"no image {printable(name)} in the engine at {shown}; {when_missing(shown, name)}"
            raise Unavailable(msg) from None
        except sdk.APIError as error:
            raise self._refused(name, error) from None
        except (ValueError, *_FAILURES) as error:
            raise _unreachable(self.endpoint, error) from None
        try:
            return parse_inspected(answer)
        except NONSENSE as error:
            msg = f"the engine at {shown} describes {printable(name)} in no way that makes sense: {error!r}"
            raise EngineError(msg) from None

    def begin(self, target: Target) -> _Stream:
        """Return the answer to a save once it has begun.

        The SDK's own `get_image` knows no platform, and hands on pieces of 32 KiB, which take twice
        as long to write.
        """
        client, platform = self.client, target.platform
        parameters = {}
        if platform is not None and self.picks(platform):
            parameters["platform"] = requested_platform(platform)
        url = f"{client.base_url}/v{client.api_version}/images/{target.inspected.image_id}/get"
        response = client.get(url, params=parameters, stream=True, timeout=(_ANSWER_TIMEOUT, None))
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            try:
                sdk.create_api_error_from_http_exception(error)
            except sdk.APIError as refused:
                raise self._refused(target.name, refused) from None
        return _Stream(response)

    def _refused(self, name: str, error: sdk.APIError) -> EngineError:
        why = error.explanation or (error.response.reason if error.response is not None else error)
        return refusal(self, name, str(why))


def _unreachable(endpoint: Endpoint, error: Exception) -> EngineError:
    hint = when_unreachable(endpoint, cause_of(error))
    return EngineError(f"cannot reach an engine at {endpoint.shown}: {reason(error)}; {hint}")
