"""A proxy in front of a registry: it passes everything on, and commits the faults that a test writes down."""

import contextlib
import http.client
import http.server
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.fake_engine import serving

_PASSED_ON = ("Authorization", "Accept", "Range", "If-Range", "Accept-Encoding", "Host")


@dataclass(frozen=True)
class Asked:
    """A request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]

    def __str__(self) -> str:
        """Return the method, the last parts of the path, and the range, if there is one."""
        kind, _, what = self.path.rpartition("/")[0].rpartition("/")[2], "", self.path.rpartition("/")[2]
        shown = f"{self.method} {kind}/{what.removeprefix('sha256:')[:8]}"
        return f"{shown} {self.headers['Range']}" if "Range" in self.headers else shown


@dataclass
class Reply:
    """An answer: what the registry sends, changed by faults."""

    status: int
    headers: dict[str, str]
    body: bytes
    delay: float = 0.0
    """Seconds before the first byte."""
    slow_headers: float = 0.0
    """Seconds between two bytes of the headers."""
    cut: int | None = None
    """The connection ends after so many bytes of the body."""
    reset: bool = False
    """The connection is reset instead of ended."""
    stall: threading.Event | None = None
    """Waited for at the cut, which then is none."""


Fault = Callable[[Asked, Reply], Reply]


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer *code*; an underscore in the name of a header is a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, __: Reply(code, named | {"Content-Length": str(len(body))}, body)


def cut(after: int, *, reset: bool = False) -> Fault:
    """End the connection after so many bytes of the body."""

    def fault(_: Asked, reply: Reply) -> Reply:
        reply.cut, reply.reset = after, reset
        return reply

    return fault


def stall(after: int, until: threading.Event) -> Fault:
    """Send no more after so many bytes of the body, *until* an event."""

    def fault(_: Asked, reply: Reply) -> Reply:
        reply.cut, reply.stall = after, until
        return reply

    return fault


def flip(offset: int) -> Fault:
    """Change one bit of the byte at *offset* of the body."""

    def fault(_: Asked, reply: Reply) -> Reply:
        body = bytearray(reply.body)
        body[offset] ^= 1
        reply.body = bytes(body)
        return reply

    return fault


def slow_headers(seconds: float) -> Fault:
    """Send the headers byte by byte, with *seconds* in between."""

    def fault(_: Asked, reply: Reply) -> Reply:
        reply.slow_headers = seconds
        return reply

    return fault


def delay(seconds: float) -> Fault:
    """Answer later."""

    def fault(_: Asked, reply: Reply) -> Reply:
        reply.delay = seconds
        return reply

    return fault


def whole(proxy: "Proxy") -> Fault:
    """Answer 200 and everything, as if no range were asked for."""

    def fault(asked: Asked, _: Reply) -> Reply:
        kept = {name: value for name, value in asked.headers.items() if name != "Range"}
        return proxy.passed_on(Asked(asked.method, asked.path, kept))

    return fault


def headers(**changes: str) -> Fault:
    """Change headers; an underscore is a dash, and an empty value leaves a header out."""

    def fault(_: Asked, reply: Reply) -> Reply:
        changed = {**reply.headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
        reply.headers = {name: value for name, value in changed.items() if value}
        return reply

    return fault


def body(data: bytes) -> Fault:
    """Send another body."""

    def fault(_: Asked, reply: Reply) -> Reply:
        reply.body = data
        reply.headers["Content-Length"] = str(len(data))
        return reply

    return fault


def of_head(fault: Fault) -> Fault:
    """Commit *fault* for HEAD alone."""
    return lambda asked, reply: fault(asked, reply) if asked.method == "HEAD" else reply


PASS: Fault = lambda _, reply: reply  # noqa: E731
"""No fault."""


@dataclass
class Proxy:
    """The proxy: its faults, and what it was asked for."""

    host: str
    upstream: str
    """The registry's host."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """For each request whose path contains the key, the next fault of the list; the last one of ALWAYS stays."""
    always: dict[str, Fault] = field(default_factory=dict)
    """For each request whose path contains the key."""
    round_trip: float = 0.0
    """Seconds that a connection and each answer take at least."""
    rate: float = 0.0
    """Bytes a second of each connection; 0: no limit."""
    ignores_range: bool = False
    """The registry is asked for the whole blob whatever range was."""
    sent: int = 0
    """Bytes of all answers."""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    """How many were made."""
    open_connections: int = 0
    most_connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def image(self, name: str = "team/app:1") -> str:
        """Return an image in the registry as an IMAGE argument."""
        return f"docker://{self.host}/{name}"

    def requests(self) -> list[str]:
        """Return the requests since the last call."""
        with self.lock:
            shown, self.asked = list(map(str, self.asked)), []
        return shown

    def passed_on(self, asked: Asked) -> Reply:
        """Return the answer of the registry."""
        wanted = {name: asked.headers[name] for name in _PASSED_ON if name in asked.headers}
        if self.ignores_range:
            wanted.pop("Range", None)
        connection = http.client.HTTPConnection(self.upstream.replace("localhost", "127.0.0.1"), timeout=10)
        try:
            connection.request(asked.method, asked.path, headers=wanted)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.headers.items()), answer.read())
        except (OSError, http.client.HTTPException):
            return Reply(502, {"Content-Length": "0"}, b"")
        finally:
            connection.close()

    def fault(self, path: str) -> Fault:
        """Return the fault for the next request for *path*."""
        with self.lock:
            for key, faults in self.faults.items():
                if key in path and faults:
                    return faults.pop(0)
        return next((fault for key, fault in self.always.items() if key in path), PASS)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise the body waits 40 ms until the client acknowledges the headers
    proxy: Proxy

    def handle(self) -> None:
        proxy = self.proxy
        with proxy.lock:
            proxy.connections += 1
            proxy.open_connections += 1
            proxy.most_connections = max(proxy.most_connections, proxy.open_connections)
        time.sleep(proxy.round_trip)
        with contextlib.suppress(OSError):
            super().handle()
        with proxy.lock:
            proxy.open_connections -= 1

    def do_GET(self) -> None:
        proxy = self.proxy
        asked = Asked(self.command, self.path, dict(self.headers.items()))
        with proxy.lock:
            proxy.asked.append(asked)
        self._send(proxy.fault(self.path)(asked, proxy.passed_on(asked)))

    do_HEAD = do_GET  # noqa: N815 - as the base class calls it

    def _send(self, reply: Reply) -> None:
        proxy = self.proxy
        with proxy.lock:
            proxy.sent += len(reply.body)
        time.sleep(reply.delay + proxy.round_trip + (len(reply.body) / proxy.rate if proxy.rate else 0))
        lines = [f"HTTP/1.1 {reply.status} {http.client.responses.get(reply.status, '')}"]
        lines += (f"{name}: {value}" for name, value in reply.headers.items())
        head = "\r\n".join([*lines, "", ""]).encode()
        if reply.slow_headers:
            for number in range(len(head)):
                self.wfile.write(head[number : number + 1])
                time.sleep(reply.slow_headers)
        else:
            self.wfile.write(head)
        if self.command == "HEAD":
            return
        self.wfile.write(reply.body[: reply.cut])
        if reply.stall is not None:
            reply.stall.wait()
            self.wfile.write(reply.body[reply.cut :])
        elif reply.cut is not None:
            self.close_connection = True
            if reply.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def fault_proxy(upstream: str, *, tls: tuple[Path, Path] | None = None) -> Iterator[Proxy]:
    """Run a proxy on loopback, in front of the registry at the host *upstream*; with the certificate and key *tls*."""
    made = Proxy("", upstream)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": made}))
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made.host = f"localhost:{server.server_address[1]}"
    with serving(server):
        yield made
