"""A connection that is made, with TLS, while the client of HTTP is imported, which takes as long as two round trips."""

import contextlib
import importlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fusefs.errors import ImgfsError
from fusefs.sources.servers.hosts import is_loopback
from fusefs.sources.tls import Tls, ssl_context

if TYPE_CHECKING:
    import ssl

_Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""An address, as getaddrinfo gives it."""
CONNECT = 10.0
"""Seconds to connect to a host."""
_ADDRESS = 2.0
"""Seconds that each of many addresses of a host gets at least, as long as there are some: a request may get lost."""
PROTOCOLS = ["http/1.1"]
"""What a client speaks behind TLS (RFC 7301)."""
_UNHEARD = 5.0
"""Seconds after which a request of which the network confirms nothing (TCP_USER_TIMEOUT of tcp(7)) has failed: a kept
connection is dead without a sign after a suspend, say, or in a router that has forgotten it."""
_LEAST_UNHEARD = 2.0
"""The same for a host that has little time now: the connection may be kept for requests that have more."""
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_HTTPS = 443
_LABEL = 63
"""Bytes of a name between two dots (RFC 1035)."""
_HEAD_START = 0.001
"""Seconds in which nothing else runs, so that the request for a connection is sent at once: imports release the
interpreter too seldom."""


def connect(address: tuple[Any, int], seconds: float) -> socket.socket:
    """Return a connection to a name and a port: to the first address of that host that answers within its time.

    All of them and looking up the name have so many *seconds* together.  What is left of it is divided by the addresses
    that are left, and remains as the timeout of the connection.  Raises the OSError of the last one.
    """
    deadline = time.monotonic() + seconds
    found = _looked_up(address, seconds)
    failure: OSError | None = None
    for number, (family, kind, protocol, _, where) in enumerate(found):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            made = socket.socket(family, kind, protocol)
        except OSError as error:  # a protocol that this machine lacks
            failure = error
            continue
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.settimeout(max(left / (len(found) - number), min(_ADDRESS, left)))
            made.connect(where)
            unheard = max(_LEAST_UNHEARD, min(_UNHEARD, seconds / 2))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unheard * 1000))
            made.settimeout(max(_HEAD_START, deadline - time.monotonic()))
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    try:
        raise failure or TimeoutError("timed out")
    finally:
        failure = None  # else it would refer to this frame, and that to it


def _looked_up(address: tuple[Any, int], seconds: float) -> Sequence[_Found]:
    """Return what getaddrinfo finds; TimeoutError after *seconds*: how long it takes is up to resolv.conf(5)."""
    results: list[Sequence[_Found]] = []
    errors: list[Exception] = []

    def look_up() -> None:
        try:
            results.append(socket.getaddrinfo(*address, 0, socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=look_up, name="lookup", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # as many threads as this user may have
        look_up()
    else:
        thread.join(seconds)
    if errors:
        raise errors.pop()
    if not results:
        raise TimeoutError("timed out")
    return results.pop()


class HandshakeFailed(Exception):
    """There is a connection, but no TLS; *error* says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Early:
    """A connection to a host and a port that a thread makes, while another one loads the certificates for it."""

    def __init__(self, address: tuple[str, int], seconds: float, find_tls: Callable[[], Tls]) -> None:
        """*seconds*: for all addresses of the host.  Raises RuntimeError if this process may start no thread."""
        self.address = address
        self._seconds = seconds
        self._find_tls = find_tls
        self._trust: tuple[Tls, ssl.SSLContext] | None = None
        self._tls: Tls | None = None
        self._no_trust: OSError | None = None
        self._made: socket.socket | None = None
        self._error: OSError | HandshakeFailed | None = None
        self._ending = threading.Lock()
        self._is_unwanted = self._is_ended = False
        """Guarded by `_ending`: only the thread closes what it works with."""
        self._is_loaded = threading.Event()
        self._connecting = threading.Thread(target=self._work, name="connect", daemon=True)
        self._connecting.start()
        time.sleep(_HEAD_START)
        # Not in a thread, which would wait for ever for the lock of an import that Ctrl-C has interrupted.
        importlib.import_module("ssl")  # a round trip passes meanwhile

        try:
            threading.Thread(target=self._load, name="certificates", daemon=True).start()
        except RuntimeError:
            self._is_loaded.set()

    def _load(self) -> None:
        try:
            self._tls = self._find_tls()
            self._trust = self._tls, ssl_context(self._tls)
        except ImgfsError:  # who needs the certificates finds out
            pass
        except OSError as error:
            self._no_trust = error
        finally:
            self._is_loaded.set()

    def _work(self) -> None:
        self._connect()
        with self._ending:
            self._is_ended = True
            if self._is_unwanted and self._made is not None:
                self._made.close()

    def _connect(self) -> None:
        name, port = self.address
        try:
            # As text, the name would need modules of IDNA.
            address: Any = name.encode("ascii"), port
            self._made = connect(address, self._seconds)
        except OSError as error:
            self._error = error
            return
        self._is_loaded.wait()
        if self._trust is not None:
            self._made = self._encrypted(self._made, self._trust[1])

    def _encrypted(self, made: socket.socket, context: "ssl.SSLContext") -> socket.socket | None:
        """Return the connection *made* with TLS; None if that failed.

        Only silence and an answer count: a wrong certificate, an alert, bytes of another protocol.  A connection that
        ends tells nothing about whether the host speaks TLS: it may have been idle for too long.
        """
        name = self.address[0].rstrip(".").partition("%")[0]
        context.set_alpn_protocols(PROTOCOLS)
        encrypted = made
        try:
            self._made = encrypted = context.wrap_socket(made, server_hostname=name, do_handshake_on_connect=False)
            if not self._is_unwanted:
                encrypted.do_handshake()
        except (OSError, ValueError) as error:  # ValueError: no certificate has this name
            with self._ending:
                encrypted.close()
            ssl = importlib.import_module("ssl")
            # The other kinds of SSLError say that the connection has ended.
            if isinstance(error, OSError) and type(error) in (TimeoutError, ssl.SSLError, ssl.SSLCertVerificationError):
                self._error = HandshakeFailed(error)
            return None
        return encrypted

    def context(self, tls: Tls) -> "ssl.SSLContext | None":
        """Return the TLS context of the connection, None if it has none, or one of other settings than *tls*.

        Raises the OSError of `ssl_context`: nobody should be asked for the passphrase of a key twice.
        """
        self._is_loaded.wait()
        if self._no_trust is not None and self._tls == tls:
            raise self._no_trust
        return self._trust[1] if self._trust is not None and self._trust[0] == tls else None

    def get(self, context: "ssl.SSLContext | None") -> socket.socket | None:
        """Wait for the connection and return it: with TLS, if it was made with *context*, otherwise before it.

        None if it is of no use: the host has closed it, or it has TLS of another context.  Raises the error why there
        is none, or no TLS.
        """
        self._connecting.join()
        is_other = self._trust is not None and self._trust[1] is not context
        if self._error is not None and not (is_other and isinstance(self._error, HandshakeFailed)):
            raise self._error
        if self._made is None or is_other or _is_ended(self._made):
            self.close()
            return None
        return self._made

    def close(self) -> None:
        """Close the connection, now or when it is there."""
        with self._ending:
            self._is_unwanted = True
            made = self._made
            if made is None:
                return
            with contextlib.suppress(OSError):  # a handshake ends, too
                socket.socket.shutdown(made, socket.SHUT_RDWR)
            if self._is_ended:
                made.close()

    def leave(self) -> None:
        """Close the connection in a child process; the parent still has it."""
        if self._made is not None:
            self._made.close()


def _is_ended(connection: socket.socket) -> bool:
    """Return whether the other end, which has been asked nothing, has closed *connection*."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)  # TLS may have sent tickets
    return bool(poll.poll(0))


_begun: list[_Early] = []
"""At most one connection, until any is needed."""


def _taken() -> _Early | None:
    with contextlib.suppress(IndexError):  # another thread was faster, perhaps
        return _begun.pop()
    return None


def connect_early(
    host: str, timeout: float | None, environment: Mapping[str, str], find_tls: Callable[[], Tls]
) -> None:
    """Begin to connect to *host*, which may state a port (default: 443), unless a proxy does that, or it has begun.

    *timeout*: seconds for all addresses, at most 10.  *find_tls* returns the settings, which are loaded meanwhile.
    """
    if not is_loopback(host) and any(name.lower() in _PROXIES and url for name, url in environment.items()):
        return
    with contextlib.suppress(ValueError, RuntimeError):  # a port above 65535; as many threads as this user may have
        address = name, _ = _address(host)
        if not name.isascii() or not all(0 < len(label) <= _LABEL for label in name.removesuffix(".").split(".")):
            return  # no host can have this name: who needs the connection finds out
        if not any(early.address == address for early in _begun):
            drop()
            _begun.append(_Early(address, min(CONNECT, timeout or CONNECT), find_tls))


def _address(host: str) -> tuple[str, int]:
    """Return name and port of *host*; ValueError if it is malformed."""
    parts = urlsplit(f"//{host}")
    return parts.hostname or "", _HTTPS if parts.port is None else parts.port


def context(host: str, tls: Tls) -> "ssl.SSLContext | None":
    """Return the TLS context of the connection that was begun, if it is to *host* and with *tls*."""
    for early in [*_begun]:
        with contextlib.suppress(ValueError):
            if early.address == _address(host):
                return early.context(tls)
    return None


def connection(host: str, port: int, context: "ssl.SSLContext | None") -> socket.socket | None:
    """Return the connection that was begun, if it is to *host*, without brackets, and *port*; else None, and close it.

    It has TLS if it was made with *context*, None for plain HTTP.  Raises the OSError of `connect`, or HandshakeFailed.
    """
    early = _taken()
    if early is None:
        return None
    if early.address == (host.lower(), port):
        return early.get(context)
    early.close()
    return None


def leave() -> None:
    """Leave the connection that was begun to the parent of this process."""
    while (early := _taken()) is not None:
        early.leave()


os.register_at_fork(after_in_child=leave)


def drop() -> None:
    """Close the connection that was begun and that nobody needed."""
    while (early := _taken()) is not None:
        early.close()
