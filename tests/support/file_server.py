"""A web server for archives: ranges and ETags as RFC 9110 has them, counted."""

import contextlib
import http.server
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.builders import sha256
from tests.support.fake_engine import serving

_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


@dataclass
class FileServer:
    """The server: its files by their paths, and what it was asked for."""

    host: str = ""
    scheme: str = "http"
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    """Locations by paths."""
    ranges: bool = True
    """Whether it knows ranges."""
    sized: bool = True
    """Whether it states the size of a whole file."""
    dated: bool = False
    """Whether it states when files were modified, as stores do."""
    media_type: str = "application/octet-stream"
    requests: list[str] = field(default_factory=list)
    """Path and range of each request."""
    headers: list[dict[str, str]] = field(default_factory=list)
    client_certificates: int = 0
    """Requests that came with one: the server asks for it, if it speaks TLS."""
    sent: int = 0
    """Bytes of bodies."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str) -> str:
        """Return the URL of a file."""
        return f"{self.scheme}://{self.host}{path}"

    def put(self, path: str, data: bytes) -> str:
        """Serve *data*, and return its URL."""
        self.files[path] = data
        return self.url(path)

    def count(self) -> tuple[int, int]:
        """Return how many requests there were since the last call, and the bytes that were sent."""
        with self.lock:
            counted = len(self.requests), self.sent
            self.requests, self.sent = [], 0
        return counted


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: FileServer

    def do_GET(self) -> None:
        server, path = self.server_of, urlsplit(self.path).path
        path = path if path in server.files else unquote(path)
        wanted = self.headers.get("Range", "")
        with server.lock:
            server.requests.append(f"{path} {wanted}".strip())
            server.headers.append(dict(self.headers.items()))
            if isinstance(self.connection, ssl.SSLSocket):
                server.client_certificates += bool(self.connection.getpeercert())
        if path in server.redirects:
            self._send(302, b"", Location=server.redirects[path])
        elif path not in server.files:
            self._send(404, b"no such file")
        else:
            self._send_file(server.files[path], _RANGE.fullmatch(wanted) if server.ranges else None)

    def _send_file(self, data: bytes, match: re.Match[str] | None) -> None:
        tag = f'"{sha256(data)[7:20]}"'
        if self.headers.get("If-Match", tag) != tag:
            self._send(412, b"")
        elif match is None or self.headers.get("If-Range", tag) != tag:
            self._send(200, data, ETag=tag)
        elif int(match[1]) >= len(data):
            self._send(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
        else:
            start, end = int(match[1]), min(int(match[2] or len(data) - 1) + 1, len(data))
            self._send(206, data[start:end], **{"Content-Range": f"bytes {start}-{end - 1}/{len(data)}", "ETag": tag})

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", self.server_of.media_type)
        if self.server_of.dated:
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        if status != 200 or self.server_of.sized:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.end_headers()
        with self.server_of.lock:
            self.server_of.sent += len(body)
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def file_server(tls: tuple[Path, Path] | None = None, port: int = 0) -> Iterator[FileServer]:
    """Run a server on loopback; *tls*: the files of its certificate, beside its authority's, and key."""
    made = FileServer(scheme="https" if tls else "http")
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"server_of": made}))
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
        context.load_verify_locations(tls[0].with_name("ca.pem"))
        context.verify_mode = ssl.CERT_OPTIONAL
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    made.host = f"127.0.0.1:{server.server_address[1]}"
    with serving(server):
        yield made
