"""Where a server of a test listens."""

import socket


def host_of(server: socket.socket) -> str:
    """Return address and port of *server*."""
    return f"127.0.0.1:{server.getsockname()[1]}"
