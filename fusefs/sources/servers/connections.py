"""HTTP connections to registries and to the hosts that they redirect to, pooled by host.

Nothing is retried and no redirect is followed here: a caller decides.
"""

import base64
import logging
import os
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple, cast
from urllib.parse import SplitResult, unquote_to_bytes, urljoin, urlsplit
from weakref import WeakSet, WeakValueDictionary

import urllib3
import urllib3.connection

from fusefs import __version__
from fusefs.errors import UsageError
from fusefs.image.model import Traffic
from fusefs.sources.handover import takes_over
from fusefs.sources.http import BoundedResponse
from fusefs.sources.reasons import cause_of, is_not_http, reason
from fusefs.sources.servers import early
from fusefs.sources.servers.hosts import is_loopback
from fusefs.sources.tls import Tls, ssl_context
from fusefs.text import printable

_SILENCE = 30.0
"""Seconds to the end of the headers, and between two pieces of a body."""
_POOL = 6
"""Connections to one host that are kept for the next request."""
_PARTIAL = 206
_CHUNK = 1 << 20
_SHORT = 1 << 16
"""Bytes of a body that are read only for the sake of the connection."""
_FAILURES = (urllib3.exceptions.HTTPError, OSError)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADERS = {"User-Agent": f"imgfs/{__version__}", "Accept-Encoding": "identity"}

# Its messages contain URLs, which may be signed.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


def without_control(url: str) -> str:
    """Return *url*; ValueError if it has control characters, some of which `urlsplit` drops and others keeps."""
    if _CONTROL.search(url):
        raise ValueError
    return url


class ConnectionFailed(Exception):
    """A host cannot be reached, or the connection broke or was silent."""

    def __init__(self, host: str, error: Exception, proxy: str = "") -> None:
        """*error* is the reason why there is no answer of *host*; *proxy* is on the way there."""
        self.host = host
        shown = printable(f"{host} through the proxy {proxy}" if proxy else host)
        of_proxy = isinstance(error, urllib3.exceptions.ProxyError)
        cause = cause_of(error)
        self.malformed = isinstance(error, urllib3.exceptions.LocationValueError)
        """Whether no host can have this name.  The text of the error is the URL, which may be signed."""
        super().__init__(f"{shown}: {'its URL is malformed' if self.malformed else reason(error)}")
        self.untrusted = isinstance(cause, ssl.SSLCertVerificationError)
        """Whether its certificate was refused."""
        self.no_handshake = isinstance(cause, ssl.SSLError) and not self.untrusted and not of_proxy
        """Whether the host answers, but not as TLS wants."""
        self.not_http = is_not_http(cause)
        """Whether the host answers, but not as HTTP wants."""
        self.no_tls = self.no_handshake or isinstance(cause, ConnectionError)
        """Whether the host may speak plain HTTP instead of TLS."""
        self.silent = isinstance(cause, TimeoutError)
        """Whether the host, or the way to it, was silent for too long."""
        self.refused = of_proxy or isinstance(error, urllib3.exceptions.NewConnectionError)
        """Whether no connection could be made at all, or none through a proxy."""


class Answer:
    """The answer to a request: its status, headers and body."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, url: str, host: str, silence: float | None, traffic: Traffic
    ) -> None:
        """*silence*: seconds that each piece of the body may take, or the whole document with its headers."""
        self._traffic = traffic
        self._response = response
        self.url = url
        self.host = host
        self._silence = silence
        self.status = response.status
        self.reason = printable(response.reason or "")

    def header(self, name: str) -> str:
        """Return the value of a header, empty without it."""
        return self._response.headers.get(name, "")

    def headers(self, name: str) -> list[str]:
        """Return all values of a header."""
        return list(self._response.headers.getlist(name))

    def document(self, limit: int) -> bytes | None:
        """Return the whole body, decompressed unless it is a range; None if it has more than *limit* bytes.

        Raises ConnectionFailed.
        """
        with closing(self):
            try:
                data = self._response.read(limit + 1, decode_content=self.status != _PARTIAL)
            except _FAILURES as error:
                raise ConnectionFailed(self.host, error) from None
            self._traffic.count(received=len(data))
            if len(data) > limit:
                return None
            self._response.drain_conn()  # only a read body leaves the connection to the next request
            return bytes(data)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives, as it is stored.  Raises ConnectionFailed; a short body just ends."""
        received: Any = self._response
        if isinstance(received._fp, BoundedResponse):  # noqa: SLF001 - nothing public leads there
            received._fp.wait(self._silence)  # noqa: SLF001
        try:
            while data := self._response.read1(_CHUNK, decode_content=False):
                self._traffic.count(received=len(data))
                yield data
        except urllib3.exceptions.IncompleteRead:
            return
        except _FAILURES as error:
            raise ConnectionFailed(self.host, error) from None

    def redirected(self, url: str) -> tuple[str, SplitResult]:
        """Return the URL to which this answer of *url* redirects, and its parts; ValueError if it is malformed."""
        location = without_control(self.header("Location"))
        if not location:  # it would be the same URL again
            raise ValueError
        target = urljoin(url, location)
        parts = urlsplit(target)
        if parts.port == 0:  # the property raises ValueError, too
            raise ValueError
        return target, parts

    def discard(self) -> None:
        """Read a short body, so that the connection serves the next request; end it otherwise."""
        length = self.header("Content-Length")
        if self.header("Transfer-Encoding"):  # it may have no end, whatever length is stated
            length = ""
        if length.isascii() and length.isdigit() and int(length[:9]) <= _SHORT:
            self._response.drain_conn()
        self.close()

    def close(self) -> None:
        """Give the connection back if the whole body was read, otherwise end it."""
        if not self._response.closed:
            self._response.close()
        self._response.release_conn()


class Limits(NamedTuple):
    """The time for one request."""

    left: float
    """Seconds until its caller gives up."""
    silence: bool = True
    """Whether a server that is silent for long counts as gone."""


class Connections:
    """All connections of this process.  Safe under concurrency.

    A process uses connections that it inherits only if it goes on in place of its parent: else two would talk on one.
    """

    def __init__(self, find_tls: Callable[[str], Tls], environment: Mapping[str, str], traffic: Traffic) -> None:
        """*find_tls* returns the TLS settings of a host; proxies are those of the *environment*.

        Requests, and bytes of their answers, are counted in *traffic*.
        """
        self.traffic = traffic
        self._find_tls = find_tls
        self._proxies = {name[:-6].lower(): url for name, url in environment.items() if name.lower().endswith("_proxy")}
        self._managers: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        _all.add(self)

    def request(
        self, method: str, url: str, headers: Mapping[str, str], limits: Limits, body: bytes | None = None
    ) -> Answer:
        """Send one request and return the answer to it, whatever its status is.  Raises ConnectionFailed."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        left, silence = (limits.left, min(_SILENCE, limits.left)) if limits.silence else (None, None)
        try:
            response = self._manager(parts.scheme, host).urlopen(
                method,
                url,
                redirect=False,
                body=body,
                headers={**_HEADERS, **headers},
                timeout=urllib3.Timeout(left, connect=min(early.CONNECT, limits.left), read=silence),
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        except _FAILURES as error:
            failure = ConnectionFailed(host, error, self._proxy_of(parts.scheme, host))
            if failure.silent:  # the others that are kept are silent for the same reason, perhaps
                self._manager(parts.scheme, host).clear()
            raise failure from None
        finally:
            early.drop()  # an old failure would be that of another request
        self.traffic.count(requests=1)
        return Answer(response, url, host, silence, self.traffic)

    def hang_up(self) -> None:
        """Close all connections; the other process still has them."""
        for manager in self._managers.values():
            manager.clear()
        self._managers = {}

    def _manager(self, scheme: str, host: str) -> urllib3.PoolManager:
        with self._lock:
            if (scheme, host) not in self._managers:
                self._managers[scheme, host] = self._shared_manager(scheme, host)
            return self._managers[scheme, host]

    def _proxy_of(self, scheme: str, host: str) -> str:
        """Return the proxy through which *host* is asked, as ``HOST:PORT``, empty without one."""
        manager = self._managers.get((scheme, host))
        return (manager and manager.proxy and manager.proxy.netloc) or ""

    def _bypasses(self, host: str) -> bool:
        from urllib.request import proxy_bypass  # noqa: PLC0415 - slow to import

        return is_loopback(host) or bool(proxy_bypass(host, self._proxies))

    def _shared_manager(self, scheme: str, host: str) -> urllib3.PoolManager:
        proxy = self._proxies.get(scheme) or self._proxies.get("all")
        tls, proxy = self._find_tls(host), proxy if proxy and not self._bypasses(host) else None
        key = scheme, host, tls, proxy, tls.versions()
        return _managers.get(key) or _managers.setdefault(key, _new_manager(scheme, host, tls, proxy))


def _new_manager(scheme: str, host: str, tls: Tls, proxy: str | None) -> urllib3.PoolManager:
    try:
        context = (early.context(host, tls) or ssl_context(tls)) if scheme == "https" else None
    except OSError as error:
        raise UsageError(f"cannot read the certificates of {printable(host)}: {error.strerror or error}") from None
    if not tls.verify:
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    how: dict[str, Any] = {"num_pools": 1, "maxsize": _POOL, "ssl_context": context}
    if proxy:
        url, headers = _proxy(proxy)
        manager: urllib3.PoolManager = urllib3.ProxyManager(url, proxy_headers=headers, **how)
    else:
        manager = urllib3.PoolManager(**how)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


def _proxy(text: str) -> tuple[str, Mapping[str, str]]:
    """Return the URL of a proxy without its user, and the headers for it; UsageError if it cannot be used."""
    scheme, separator, rest = text.partition("://")
    user, at, host = (rest if separator else text).rpartition("@")
    scheme = scheme.lower() if separator else "http"
    if scheme not in ("http", "https"):
        raise UsageError(f"the proxy {printable(f'{scheme}://{host}')} is neither http nor https")
    try:
        parts = urlsplit(f"{scheme}://{host}")
        if not parts.hostname or parts.port == 0:  # the property raises ValueError, too
            raise ValueError
        parts.hostname.encode("idna")  # raises UnicodeError, a ValueError, for a label that is empty or too long
    except ValueError:
        raise UsageError(f"the URL of the proxy {printable(f'{scheme}://{host}')} is malformed") from None
    secret = base64.b64encode(unquote_to_bytes(user)).decode()
    return f"{scheme}://{parts.netloc}", {"Proxy-Authorization": f"Basic {secret}"} if at else {}


_all: WeakSet[Connections] = WeakSet()
_managers: WeakValueDictionary[tuple[Any, ...], urllib3.PoolManager] = WeakValueDictionary()
"""The connections of all images that a process has open: one registry may serve hundreds of them."""


def _hang_up_all() -> None:
    if not takes_over():
        for connections in _all:
            connections.hang_up()
        _managers.clear()


os.register_at_fork(after_in_child=_hang_up_all)


class _Connection(urllib3.connection.HTTPConnection):
    response_class = BoundedResponse

    def _new_conn(self) -> socket.socket:
        """Return the connection that was begun early, if it is this one, or a new one; its errors are the same."""
        return self._connected(None)

    def _connected(self, context: ssl.SSLContext | None) -> socket.socket:
        """Return the connection that was begun early, with TLS if it was made with *context*, or a new one."""
        seconds = self.timeout or early.CONNECT
        try:
            made = early.connection(self.host.strip("[]"), self.port, context)
            if made is None:
                return early.connect((self._dns_host.strip("[]"), self.port), seconds)
        except early.HandshakeFailed as error:
            raise error.error from None
        except UnicodeError:
            raise urllib3.exceptions.LocationParseError(f"'{self.host}', label empty or too long") from None
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, str(error)) from error
        made.settimeout(seconds)
        return made


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    _own_context: ssl.SSLContext | None = None

    def _new_conn(self) -> socket.socket:
        """Return the connection, which may have TLS already."""
        self._own_context = self.ssl_context = self._own_context or self.ssl_context
        made = self._connected(self.ssl_context)
        if isinstance(made, ssl.SSLSocket):
            self.ssl_context = cast("ssl.SSLContext", _HandshakeMade(made.context))
        return made


class _HandshakeMade:
    """The TLS context of a connection whose handshake was made with it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def wrap_socket(self, sock: socket.socket, *_: Any, **__: Any) -> socket.socket:
        """Return the connection as it is."""
        return sock


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
