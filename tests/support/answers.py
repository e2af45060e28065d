"""A server on loopback whose answers a test writes as a function."""

import contextlib
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.support.fake_engine import serving


@dataclass
class Answer:
    """An answer; its Content-Length is right unless the test states one."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Got:
    """A request that arrived."""

    path: str
    headers: Mapping[str, str]
    client: object
    """The address at the other end of the connection."""
    when: float
    """By the monotonic clock."""


@dataclass
class Answers:
    """The server, and what it was asked for."""

    host: str
    got: list[Got] = field(default_factory=list)


@contextlib.contextmanager
def answers(answer: Callable[[Got], Answer], port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Answers]:
    """Run a server that answers as *answer* says."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            got = Got(self.path, dict(self.headers.items()), self.client_address, time.monotonic())
            made.got.append(got)
            found = answer(got)
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in found.headers:
                self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client gave up
                self.wfile.write(found.body)

        do_CONNECT = do_GET  # noqa: N815 - as the base class calls it

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    made = Answers(f"127.0.0.1:{server.server_address[1]}")
    with serving(server):
        yield made


@dataclass
class Silent:
    """A server that accepts connections and says nothing."""

    host: str
    connections: list[socket.socket] = field(default_factory=list)


@contextlib.contextmanager
def silent() -> Iterator[Silent]:
    """Run a server that says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        made = Silent(f"127.0.0.1:{server.getsockname()[1]}")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    made.connections.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in made.connections:
                connection.close()
