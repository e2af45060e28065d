"""HTTP over a unix socket."""

import http.client
import socket


class UnixConnection(http.client.HTTPConnection):
    """A connection to who listens on a unix socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        """Name the socket; nothing is connected yet."""
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._connected: socket.socket | None = None

    def connect(self) -> None:
        """Connect."""
        self._connected = self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def wait(self, seconds: float | None) -> None:
        """Wait so long for each piece of an answer: also of one that ends with the connection, which has no `sock`."""
        assert self._connected is not None
        self._connected.settimeout(seconds)
