"""An engine at any address, through the Docker SDK: TLS, proxies, SSH.  Only this module imports the SDK."""

import http.client
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
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from fusefs.errors import EngineError, InvalidImage, Unavailable
from fusefs.log import begin_to_log
from fusefs.oci.platform import Platform
from fusefs.oci.untrusted_json import parse_object
from fusefs.sources.engine.advice import Unreachable, is_podman, when_missing, when_unreachable
from fusefs.sources.engine.answers import (
    PLATFORM_VERSION,
    is_version,
    message_of,
    platform_hint,
    refusal,
    requested_platform,
    unanswered,
    version_numbers,
)
from fusefs.sources.engine.endpoint import Endpoint
from fusefs.sources.engine.inspected import NONSENSE, Inspected, Target, parse_inspected, parse_list
from fusefs.sources.engine.names import image_names
from fusefs.sources.http import (
    MAX_ANSWER,
    MAX_REFUSAL,
    BoundedResponse,
    RefusedAnswer,
    bounded_response,
    check_encoding,
    check_size,
    redirect,
)
from fusefs.sources.reasons import cause_of, reason, timed_out
from fusefs.sources.tls import ssl_context
from fusefs.text import printable, quoted

_CHUNK = 1 << 20
_OK = 200
_NO_CONTENT = 204
_PATIENCE = 2.0
"""Seconds to wait for the names of an engine's images, for a hint."""
_NOT_FOUND = 404
_PROBES = 3
"""Unanswered probes after which a connection breaks."""
_MAX_INTERVAL = 32767
"""The longest interval between two probes that Linux allows, in seconds."""

_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
"""The exceptions of a failed connection that the SDK does not translate."""


@contextmanager
def sdk_engine(endpoint: Endpoint, timeout: float | None) -> Iterator["SdkEngine"]:
    """Connect to the engine at *endpoint* until the block ends; EngineError if it cannot be reached."""
    begin_to_log()  # the SDK and what it stands on may log
    with closing(_connect(endpoint, timeout)) as client:
        yield SdkEngine(client, endpoint, timeout)


def _connect(endpoint: Endpoint, timeout: float | None) -> docker.APIClient:
    """Return a client for the engine's version of the API."""
    try:
        # Engines refuse API versions that are too old or too new, but answer a request for the version without one.
        with closing(_client(endpoint, docker.constants.MINIMUM_DOCKER_API_VERSION, timeout)) as client:
            version = _api_version(client, endpoint)
        return _client(endpoint, version, timeout)
    except (sdk.DockerException, *NONSENSE, *_FAILURES) as error:
        raise _unreachable(endpoint, error, timeout) from None


def _api_version(client: docker.APIClient, endpoint: Endpoint) -> str:
    """Return the version of the API that the engine states; EngineError if it is none."""
    with _get(client, "/version") as response:
        if response.status_code != _OK:
            why = redirect(response.status_code, response.headers)
            raise EngineError(
                f"no Docker API at {endpoint.shown}: {why or f'it answers with the status {response.status_code}'}"
            )
        try:
            document = json.loads(_whole(response))
        except (ValueError, RecursionError):
            raise EngineError(f"no Docker API at {endpoint.shown}: its answer is not JSON") from None
    match document:
        case {"ApiVersion": str(version)} if is_version(version):
            return version
    raise EngineError(f"no Docker API at {endpoint.shown}: it states no API version")


def _get(client: docker.APIClient, path: str, **how: Any) -> requests.Response:
    """Return the engine's answer, its body not yet read.  Redirects are not followed."""
    how = {"timeout": client.timeout} | how
    url, headers = f"{client.base_url}{path}", {"Accept-Encoding": "identity"}
    return client.get(url, headers=headers, stream=True, allow_redirects=False, **how)


def _client(endpoint: Endpoint, version: str, timeout: float | None) -> docker.APIClient:
    """Return a client for this *version* of the API, not yet connected."""
    tls: bool | docker.tls.TLSConfig = False
    if endpoint.tls is not None:  # the SDK only needs to know that TLS is on; the adapter below loads the files
        tls = docker.tls.TLSConfig(verify=endpoint.tls.verify)
        if not endpoint.tls.verify:
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    if endpoint.host.startswith("ssh://") and not hasattr(docker.transport, "SSHHTTPAdapter"):
        raise EngineError(
            f"{endpoint.shown}: ssh needs the Python package paramiko;"
            " pipx install '.[ssh]' in a checkout of imgfs installs an imgfs with it"
        )
    client = docker.APIClient(base_url=endpoint.host, version=version, tls=tls, timeout=timeout)  # type: ignore[arg-type]  # None: no limit
    # With trust_env a REQUESTS_CA_BUNDLE in the environment overrides the endpoint's own CA.
    client.trust_env = False
    # Without this, requests resolves the target of a redirect that it does not follow, which a bad one makes fail.
    client.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # noqa: ARG005 - as it is called
    if endpoint.host.startswith("unix://"):
        path = endpoint.host.removeprefix("unix://")
        client.mount("http+docker://", _UnixAdapter(path, timeout))  # type: ignore[arg-type]  # None: no limit
    if client.base_url.startswith("http://"):
        client.mount("http://", _Adapter(timeout, None))
    if client.base_url.startswith("https://"):
        client.mount("https://", _Adapter(timeout, ssl_context(endpoint.tls)))
    if client.base_url.startswith(("http://", "https://")):
        client.proxies.update(requests.utils.get_environ_proxies(client.base_url))
    return client


class _UnixPool(docker.transport.unixconn.UnixHTTPConnectionPool):
    """Connections to a unix socket, with bounded answers."""

    response_class: type[BoundedResponse]

    def _new_conn(self) -> Any:
        connection: Any = super()._new_conn()
        connection.response_class = self.response_class
        return connection


class _UnixAdapter(docker.transport.UnixHTTPAdapter):
    """Connections to a unix socket; a pool for each URL."""

    def get_connection(self, url: Any, proxies: object = None) -> _UnixPool:  # noqa: ARG002 - as in the base class
        """Return the pool for *url*."""
        with self.pools.lock:
            pool = self.pools.get(url)
            if pool is None:
                pool = self.pools[url] = _UnixPool(url, self.socket_path, self.timeout)
                pool.response_class = bounded_response(self.timeout)
        return pool


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections that use *tls*, and break when the host answers no probe for *timeout* seconds.

    Without probes, a host that was switched off looks like an engine that prepares an image.
    """

    def __init__(self, timeout: float | None, tls: ssl.SSLContext | None) -> None:
        self._timeout = timeout
        self._tls = tls
        self._pools = {
            "http": _bounded(HTTPConnectionPool, HTTPConnection, timeout),
            "https": _bounded(HTTPSConnectionPool, HTTPSConnection, timeout),
        }
        super().__init__()

    def init_poolmanager(self, *args: Any, **others: Any) -> None:
        """Make the pool of direct connections."""
        if self._timeout is not None:
            others["socket_options"] = [*HTTPConnection.default_socket_options, *_probing(self._timeout)]
        super().init_poolmanager(*args, ssl_context=self._tls, **others)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **others: Any) -> Any:
        """Return the pool of connections through *proxy*."""
        manager = super().proxy_manager_for(proxy, ssl_context=self._tls, **others)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def cert_verify(self, *_: Any) -> None:
        """Do nothing: the method of requests would also trust the authorities that requests brings along."""


def _bounded(pool: type, connection: type, timeout: float | None) -> type:
    """Return a class of *pool* whose connections, of a class of *connection*, give bounded answers."""
    bounded = type("Connection", (connection,), {"response_class": bounded_response(timeout)})
    return type("Pool", (pool,), {"ConnectionCls": bounded})


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
        _wait(response, None)  # engines may take minutes to prepare the first byte

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in chunks."""
        chunk = _received(self._response, 1)
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


def _whole(response: requests.Response) -> bytes:
    """Return the body of an answer other than an image; RefusedAnswer if it is too large or compressed."""
    check_encoding(response.headers)
    data = _received(response, MAX_ANSWER + 1)
    check_size(data)
    return data + _received(response, 1)  # nothing more, or the error that the answer is cut short


def _wait(response: requests.Response, seconds: float | None) -> None:
    """Set the timeout of each further read of an answer."""
    raw: Any = response.raw
    answer = raw._fp  # noqa: SLF001 - nothing public leads there
    if isinstance(answer, BoundedResponse):
        answer.wait(seconds)
    elif raw.connection is not None:  # ssh, before the end of the answer
        raw.connection.sock.settimeout(seconds)


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
        return platform is not None and version_numbers(self.client.api_version) >= PLATFORM_VERSION

    def inspect(self, name: str) -> Inspected:
        """Return the engine's description of the image *name*."""
        try:
            with _get(self.client, f"/v{self.client.api_version}/images/{quote(name, safe='/:@')}/json") as response:
                if response.status_code != _OK:
                    raise self._missing(name) if response.status_code == _NOT_FOUND else _refused(self, name, response)
                return parse_inspected(parse_object(_whole(response), self.shown, "an image"))
        except _FAILURES as error:
            raise _unreachable(self.endpoint, error, self.timeout) from None
        except (InvalidImage, *NONSENSE) as error:
            raise EngineError(
                f"the engine at {self.shown} describes {printable(name)} in a way that imgfs does not understand: "
                f"{printable(str(error))}"
            ) from None

    def images(self) -> bytes:
        """Return the engine's list of images, as JSON."""
        try:
            with _get(self.client, f"/v{self.client.api_version}/images/json") as response:
                if response.status_code != _OK:
                    raise _refused(self, "a list of images", response)
                return _whole(response)
        except _FAILURES as error:
            raise _unreachable(self.endpoint, error, self.timeout) from None

    def history(self, target: Target) -> list[Any] | None:
        """Return the history of the image, the newest step first; None if the engine states none."""
        try:
            path = f"/v{self.client.api_version}/images/{target.inspected.image_id}/history"
            with _get(self.client, path) as response:
                return parse_list(_whole(response)) if response.status_code == _OK else None
        except _FAILURES as error:
            raise _unreachable(self.endpoint, error, self.timeout) from None
        except (RecursionError, *NONSENSE):
            return None

    def begin(self, target: Target) -> _SdkStream:
        """Return the answer to a save once it begins.

        The SDK's own `get_image` takes no platform, and yields pieces of 32 KiB, which take twice as long to write.
        """
        client, platform = self.client, target.platform
        parameters = {}
        if platform is not None and self.picks(platform):
            parameters["platform"] = requested_platform(platform)
        path = f"/v{client.api_version}/images/{target.inspected.image_id}/get"
        response = _get(client, path, params=parameters, timeout=(self.timeout, None))
        if response.status_code != _OK:
            with response:
                raise _refused(self, target.name, response, platform_hint(target))
        check_encoding(response.headers)
        return _SdkStream(response, self.timeout)

    def _missing(self, name: str) -> Unavailable:
        """Return the error for an image that the engine does not have."""
        shown = self.shown
        if self._is_list(name):
            return Unavailable(
                f"{printable(name)} is a manifest list of podman and not an image; "
                f"podman manifest inspect {quoted(name)} lists its images"
            )
        why = f"no image {printable(name)} in the engine at {shown}"
        return when_missing(why, shown, name, image_names(self.endpoint, _PATIENCE))

    def _is_list(self, name: str) -> bool:
        """Return whether *name* is a manifest list of podman, which the API of Docker does not show."""
        if not is_podman(self.shown):
            return False
        with (
            suppress(*_FAILURES),
            _get(self.client, f"/v4.0.0/libpod/manifests/{quote(name, safe='')}/exists") as response,
        ):
            return response.status_code == _NO_CONTENT
        return False


def _refused(engine: SdkEngine, name: str, response: requests.Response, hint: str = "") -> EngineError:
    """Return the error for an answer that is a refusal or a redirect."""
    why = redirect(response.status_code, response.headers)
    why = why or message_of(_received(response, MAX_REFUSAL), response.reason)
    return refusal(engine.shown, name, why, hint)


def _unreachable(endpoint: Endpoint, error: Exception, timeout: float | None) -> EngineError:
    if timed_out(error):
        return unanswered(endpoint.shown, timeout)
    if isinstance(cause_of(error), RefusedAnswer):
        return EngineError(f"no Docker API at {endpoint.shown}: {reason(error)}")
    hint = when_unreachable(endpoint, cause_of(error))
    return Unreachable(f"cannot reach an engine at {endpoint.shown}: {reason(error)}; {hint}")
