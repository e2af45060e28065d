"""HTTP over a unix socket."""

import http.client
import socket


class UnixConnection(http.client.HTTPConnection):
    """A connection to the server on a unix socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        """Set the socket's path; `connect` connects."""
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._connected: socket.socket | None = None

    def connect(self) -> None:
        """Connect."""
        self._connected = self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def wait(self, seconds: float | None) -> None:
        """Set the timeout of each read.  An answer that ends with the connection takes `sock` over."""
        assert self._connected is not None
        self._connected.settimeout(seconds)
