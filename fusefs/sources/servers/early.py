"""A connection that is made while the client of HTTP is imported, which takes as long as a round trip."""

import contextlib
import socket
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from fusefs.sources.servers.hosts import is_loopback

CONNECT = 10.0
"""Seconds to connect."""
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_HTTPS = 443


class _Early:
    """A connection to *address*, a host and a port, that a thread makes."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self._made: socket.socket | None = None
        self._unwanted = False
        self._thread = threading.Thread(target=self._connect, name="connect", daemon=True)
        self._thread.start()

    def _connect(self) -> None:
        with contextlib.suppress(OSError, UnicodeError):  # who needs the connection makes it again, for the reason
            made = socket.create_connection(self.address, CONNECT)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._made = made
        if self._unwanted:
            self.close()

    def get(self, seconds: float) -> socket.socket | None:
        """Return the connection, None if it failed; TimeoutError if it is not there within *seconds*."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError("timed out")
        made, self._made = self._made, None
        return made

    def close(self) -> None:
        """Close the connection, now or when it is there."""
        self._unwanted = True
        if self._made is not None:
            self._made.close()


_begun: list[_Early] = []
"""At most one connection, until any is needed."""


def connect_early(host: str, environment: Mapping[str, str]) -> None:
    """Begin to connect to *host*, which may state a port (default: 443), unless a proxy does that."""
    if not is_loopback(host) and any(name.lower() in _PROXIES and url for name, url in environment.items()):
        return
    drop_early()
    with contextlib.suppress(ValueError, RuntimeError):  # a port above 65535; as many threads as this user may have
        parts = urlsplit(f"//{host}")
        _begun.append(_Early((parts.hostname or "", parts.port or _HTTPS)))


def early_connection(host: str, port: int, seconds: float) -> socket.socket | None:
    """Return the connection that was begun, if it is to *host*, without brackets, and *port*; else None, and close it.

    Raises TimeoutError if it is not there within *seconds*.
    """
    early = _begun.pop() if _begun else None
    if early is None:
        return None
    try:
        if early.address == (host.lower(), port) and (made := early.get(seconds)):
            made.settimeout(seconds)
            return made
    except TimeoutError:
        early.close()
        raise
    early.close()
    return None


def drop_early() -> None:
    """Close the connection that was begun and that nobody needed."""
    while _begun:
        _begun.pop().close()
