"""An engine at any address, through the Docker SDK: TLS, proxies, SSH.  Only this module imports the SDK."""

import json
import math
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import docker
import docker.constants
import docker.tls
import docker.transport
import requests
import requests.adapters
import requests.utils
import urllib3.exceptions
from docker import errors as sdk
from docker.utils import version_gte
from urllib3.connection import HTTPConnection

from fusefs.errors import EngineError, Unavailable
from fusefs.oci.platform import Platform
from fusefs.sources.engine.advice import is_podman, when_missing, when_unreachable
from fusefs.sources.engine.endpoint import Endpoint
from fusefs.sources.engine.inspected import NONSENSE, Inspected, Target, parse_inspected
from fusefs.sources.engine.save import (
    MAX_ANSWER,
    PLATFORM_VERSION,
    cause_of,
    message_of,
    platform_hint,
    reason,
    refusal,
    requested_platform,
    timed_out,
    unanswered,
)
from fusefs.sources.engine.tls import ssl_context
from fusefs.text import printable

_CHUNK = 1 << 20
_NO_CONTENT = 204
_PROBES = 3
"""Unanswered probes after which a connection breaks."""
_MAX_INTERVAL = 32767
"""The longest interval between two probes that Linux allows, in seconds."""

_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""The exceptions of a failed connection that the SDK does not translate."""


@contextmanager
def sdk_engine(endpoint: Endpoint, timeout: float | None) -> Iterator["SdkEngine"]:
    """Connect to the engine at *endpoint* until the block ends; EngineError if it cannot be reached."""
    with closing(_connect(endpoint, timeout)) as client:
        yield SdkEngine(client, endpoint, timeout)


def _connect(endpoint: Endpoint, timeout: float | None) -> docker.APIClient:
    """Return a client for the engine's version of the API."""
    try:
        # Engines refuse API versions that are too old or too new, but answer a request for the version without one.
        with closing(_client(endpoint, docker.constants.MINIMUM_DOCKER_API_VERSION, timeout)) as client:
            version = client.version(api_version=False)
        if not isinstance(version, dict) or not isinstance(version.get("ApiVersion"), str):
            raise EngineError(f"no Docker API at {endpoint.shown}: it states no API version")
        return _client(endpoint, version["ApiVersion"], timeout)
    except (sdk.DockerException, RecursionError, *NONSENSE, *_FAILURES) as error:
        raise _unreachable(endpoint, error, timeout) from None


def _client(endpoint: Endpoint, version: str, timeout: float | None) -> docker.APIClient:
    """Return a client for this *version* of the API, not yet connected."""
    tls: bool | docker.tls.TLSConfig = False
    if endpoint.tls is not None:  # the SDK only needs to know that TLS is on; the adapter below loads the files
        tls = docker.tls.TLSConfig(verify=endpoint.tls.verify)
        if not endpoint.tls.verify:
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    if endpoint.host.startswith("ssh://") and not hasattr(docker.transport, "SSHHTTPAdapter"):
        raise EngineError(f"{endpoint.shown}: ssh needs an optional package; run pip install 'imgfs[ssh]'")
    client = docker.APIClient(base_url=endpoint.host, version=version, tls=tls, timeout=timeout)  # type: ignore[arg-type]  # None: no limit
    # With trust_env a REQUESTS_CA_BUNDLE in the environment overrides the endpoint's own CA.
    client.trust_env = False
    if client.base_url.startswith("http://"):
        client.mount("http://", _Adapter(timeout, None))
    if client.base_url.startswith("https://"):
        client.mount("https://", _Adapter(timeout, ssl_context(endpoint.tls)))
    if client.base_url.startswith(("http://", "https://")):
        client.proxies.update(requests.utils.get_environ_proxies(client.base_url))
    return client


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections that use *tls*, and break when the host answers no probe for *timeout* seconds.

    Without probes, a host that was switched off looks like an engine that prepares an image.
    """

    def __init__(self, timeout: float | None, tls: ssl.SSLContext | None) -> None:
        self._timeout = timeout
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: Any, **others: Any) -> None:
        """Make the pool of direct connections."""
        if self._timeout is not None:
            others["socket_options"] = [*HTTPConnection.default_socket_options, *_probing(self._timeout)]
        super().init_poolmanager(*args, ssl_context=self._tls, **others)

    def proxy_manager_for(self, proxy: str, **others: Any) -> Any:
        """Return the pool of connections through *proxy*."""
        return super().proxy_manager_for(proxy, ssl_context=self._tls, **others)

    def cert_verify(self, *_: Any) -> None:
        """Do nothing: the method of requests would also trust the authorities that requests brings along."""


def _probing(timeout: float) -> list[tuple[int, int, int]]:
    """Return the socket options that break a connection after *timeout* seconds without an answer to a probe."""
    interval = min(math.ceil(timeout / (_PROBES + 1)), _MAX_INTERVAL)
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES),
    ]


class _SdkStream:
    """The answer to a save."""

    def __init__(self, response: requests.Response, timeout: float | None) -> None:
        self._response = response
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in chunks."""
        chunk = _received(self._response, 1)  # engines may take minutes to prepare the first byte
        _wait(self._response, self._timeout)
        chunk += _received(self._response, _CHUNK - 1)
        while chunk:
            yield chunk
            chunk = _received(self._response, _CHUNK)


def _received(response: requests.Response, size: int) -> bytes:
    """Return the next *size* bytes, fewer only at the end."""
    try:
        data: bytes = response.raw.read(size, decode_content=False)
    except ValueError as error:  # a chunk of negative size
        raise urllib3.exceptions.ProtocolError(str(error)) from None
    return data


def _wait(response: requests.Response, seconds: float | None) -> None:
    """Set the timeout of each further read of an answer."""
    raw: Any = response.raw
    if raw.connection is not None:  # None after the end of the answer
        # If the end of the connection marks the end of the answer, the answer owns the socket.
        sock = raw.connection.sock or raw._fp.fp.raw._sock  # noqa: SLF001 - nothing public leads there
        sock.settimeout(seconds)


@dataclass(frozen=True, slots=True)
class SdkEngine:
    """A connection to an engine through the SDK."""

    client: docker.APIClient
    endpoint: Endpoint
    timeout: float | None

    failures = _FAILURES

    @property
    def shown(self) -> str:
        """The address in messages."""
        return self.endpoint.shown

    def picks(self, platform: Platform | None) -> bool:
        """Return whether the engine can send only the *platform* of an image."""
        return platform is not None and version_gte(self.client.api_version, PLATFORM_VERSION)

    def inspect(self, name: str) -> Inspected:
        """Return the engine's description of the image *name*."""
        shown = self.endpoint.shown
        try:
            return parse_inspected(self.client.inspect_image(name))  # type: ignore[no-untyped-call]
        except sdk.ImageNotFound:
            if self._is_list(name):
                raise Unavailable(
                    f"{printable(name)} is a manifest list of podman and not an image; "
                    f"podman manifest inspect {printable(name)} lists its images"
                ) from None
            raise Unavailable(
                f"no image {printable(name)} in the engine at {shown}; {when_missing(shown, name)}"
            ) from None
        except sdk.APIError as error:
            raise self._refused(name, error) from None
        except _FAILURES as error:
            raise _unreachable(self.endpoint, error, self.timeout) from None
        except (RecursionError, *NONSENSE) as error:
            raise EngineError(
                f"the engine at {shown} describes {printable(name)} in a way that imgfs does not understand: {error!r}"
            ) from None

    def begin(self, target: Target) -> _SdkStream:
        """Return the answer to a save once it begins.

        The SDK's own `get_image` takes no platform, and yields pieces of 32 KiB, which take twice as long to write.
        """
        client, platform = self.client, target.platform
        parameters = {}
        if platform is not None and self.picks(platform):
            parameters["platform"] = requested_platform(platform)
        url = f"{client.base_url}/v{client.api_version}/images/{target.inspected.image_id}/get"
        response = client.get(url, params=parameters, stream=True, timeout=(self.timeout, None))
        if not response.ok:
            _wait(response, self.timeout)
            raise refusal(
                self, target.name, message_of(_received(response, MAX_ANSWER), response.reason), platform_hint(target)
            )
        return _SdkStream(response, self.timeout)

    def _is_list(self, name: str) -> bool:
        """Return whether *name* is a manifest list of podman, which the API of Docker does not show."""
        if not is_podman(self.shown):
            return False
        with suppress(*_FAILURES):
            path = f"/v4.0.0/libpod/manifests/{quote(name, safe='')}/exists"
            return self.client.get(f"{self.client.base_url}{path}", timeout=self.timeout).status_code == _NO_CONTENT
        return False

    def _refused(self, name: str, error: sdk.APIError) -> EngineError:
        why = error.explanation or (error.response.reason if error.response is not None else error)
        return refusal(self, name, str(why))


def _unreachable(endpoint: Endpoint, error: Exception, timeout: float | None) -> EngineError:
    if timed_out(error):
        return unanswered(endpoint.shown, timeout)
    if isinstance(error, sdk.APIError) and error.response is not None:
        return EngineError(
            f"no Docker API at {endpoint.shown}: it answers with the status {error.response.status_code}"
        )
    if isinstance(cause_of(error), json.JSONDecodeError):
        return EngineError(f"no Docker API at {endpoint.shown}: {reason(error)}")
    hint = when_unreachable(endpoint, cause_of(error))
    return EngineError(f"cannot reach an engine at {endpoint.shown}: {reason(error)}; {hint}")
