"""A connection that is made while the client of HTTP is imported, which takes as long as a round trip."""

import contextlib
import select
import socket
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from fusefs.sources.servers.hosts import is_loopback

CONNECT = 10.0
"""Seconds to connect to one address of a host."""
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_HTTPS = 443


class _Early:
    """A connection to a host and a port that a thread makes, with *seconds* for each address of the host."""

    def __init__(self, address: tuple[str, int], seconds: float) -> None:
        self.address = address
        self._seconds = seconds
        self._made: socket.socket | None = None
        self._error: OSError | None = None
        self._is_unwanted = False
        self._thread = threading.Thread(target=self._connect, name="connect", daemon=True)
        self._thread.start()

    def _connect(self) -> None:
        try:
            made = socket.create_connection(self.address, self._seconds)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._made = made
        except OSError as error:
            self._error = error
        except UnicodeError:  # a name that none can have: who needs the connection finds out
            pass
        if self._is_unwanted:
            self.close()

    def get(self) -> socket.socket | None:
        """Wait for the connection and return it, None if the host has closed it; OSError if it could not be made."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._made is None or _is_ended(self._made):
            self.close()
            return None
        return self._made

    def close(self) -> None:
        """Close the connection, now or when it is there."""
        self._is_unwanted = True
        if self._made is not None:
            self._made.close()


def _is_ended(connection: socket.socket) -> bool:
    """Return whether the other end, which has been asked nothing, has closed *connection*, or says something."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


_begun: list[_Early] = []
"""At most one connection, until any is needed."""


def connect_early(host: str, timeout: float | None, environment: Mapping[str, str]) -> None:
    """Begin to connect to *host*, which may state a port (default: 443), unless a proxy does that.

    *timeout*: seconds for each address, at most 10.
    """
    drop_early()
    if not is_loopback(host) and any(name.lower() in _PROXIES and url for name, url in environment.items()):
        return
    with contextlib.suppress(ValueError, RuntimeError):  # a port above 65535; as many threads as this user may have
        parts = urlsplit(f"//{host}")
        port = _HTTPS if parts.port is None else parts.port
        _begun.append(_Early((parts.hostname or "", port), min(CONNECT, timeout or CONNECT)))


def early_connection(host: str, port: int) -> socket.socket | None:
    """Return the connection that was begun, if it is to *host*, without brackets, and *port*; else None, and close it.

    Raises the OSError of `socket.create_connection`.
    """
    early = _begun.pop() if _begun else None
    if early is None:
        return None
    if early.address == (host.lower(), port):
        return early.get()
    early.close()
    return None


def drop_early() -> None:
    """Close the connection that was begun and that nobody needed."""
    while _begun:
        _begun.pop().close()
