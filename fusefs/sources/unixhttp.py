"""HTTP over a unix socket."""

import http.client
import socket


class UnixConnection(http.client.HTTPConnection):
    """A connection to who listens on a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        """Name the socket; nothing is connected yet."""
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
