"""A Docker Engine API that lies: a real HTTP server whose answers a test writes down."""

import contextlib
import json
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.support.builders import Archive, sha256
from tests.support.mounts import Bench

_VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}


@dataclass
class Answer:
    """What the engine says to one request."""

    status: int = 200
    parts: Iterable[bytes | threading.Event] = ()
    """Sent one by one, each as a chunk of its own; an event is waited for."""
    cut: bool = False
    """The connection ends in the middle of a chunk."""
    framing: bytes = b""
    """Sent where the next chunk's size should be, before the connection ends."""
    reset: bool = False
    """The connection is reset, as by an engine that was killed."""
    unframed: bool = False
    """The end of the connection is the end of the body, as in HTTP/1.0."""
    gate: threading.Event | None = None
    """Waited for before the first byte of the body is sent."""
    raw: Iterable[bytes] | None = None
    """Sent instead of all others, status line and headers included, before the connection ends."""


def json_answer(document: object, status: int = 200) -> Answer:
    """Return *document* as an answer."""
    return Answer(status, [json.dumps(document).encode()])


@dataclass
class Script:
    """All answers of an engine: those of an honest one, until a test changes them."""

    archive: Archive = field(default_factory=Archive)
    version: Answer = field(default_factory=lambda: json_answer(_VERSION))
    inspect: Answer | None = None
    save: Answer | None = None
    history: Answer | None = None
    images: Answer | None = None
    """What is there: nothing that this engine would say by itself."""

    def inspected(self, **changes: Any) -> dict[str, Any]:
        """Return what an honest engine says of the archive's image, with *changes*."""
        config = self.archive.config_data
        layers = json.loads(config)["rootfs"]["diff_ids"]
        document = {"Id": sha256(config), "Size": 10_000, "RootFS": {"Type": "layers", "Layers": layers}}
        return document | changes


class Engine:
    """The server: its host as in ``--host``, and what it was asked for."""

    def __init__(self, host: str, script: Script) -> None:
        self.host = host
        self.script = script
        self.asked: list[str] = []
        self.connections = 0
        """How many connections are open."""
        self.lock = threading.Lock()

    def api_version(self) -> str:
        """Return what engines say in each of their answers, empty if this one says nothing that makes sense."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            parts = [part for part in self.script.version.parts if isinstance(part, bytes)]
            version = json.loads(b"".join(parts))["ApiVersion"]
            return version if isinstance(version, str) else ""
        return ""

    def answer(self, path: str) -> Answer:
        """Return the answer to a request for *path*."""
        self.asked.append(path)
        image = path.partition("/images/")[2]
        if path.endswith("/version"):
            return self.script.version
        if image == "json" and self.script.images:
            return self.script.images
        if image.endswith("/history") and self.script.history:
            return self.script.history
        if image.endswith("/json"):
            return self.script.inspect or json_answer(self.script.inspected())
        if image.endswith("/get"):
            return self.script.save or Answer(parts=[self.script.archive.data()])
        return json_answer({"message": "page not found"}, 404)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def setup(self) -> None:
        with self.engine.lock:
            self.engine.connections += 1
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        with self.engine.lock:
            self.engine.connections -= 1

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        # A client that has seen enough hangs up.
        with contextlib.suppress(ConnectionError):
            self._send(self.engine.answer(unquote(self.path)))

    def _send(self, answer: Answer) -> None:
        if answer.gate is not None:
            answer.gate.wait()
        if answer.raw is not None:
            self.close_connection = True
            for data in answer.raw:
                self.wfile.write(data)
            return
        unframed = answer.unframed or self.request_version == "HTTP/1.0"
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Api-Version", self.engine.api_version())
        self.send_header(*(("Connection", "close") if unframed else ("Transfer-Encoding", "chunked")))
        self.end_headers()
        for part in answer.parts:
            if isinstance(part, threading.Event):
                part.wait()
            elif part:
                self.wfile.write(part if unframed else b"%x\r\n%b\r\n" % (len(part), part))
        self.close_connection = answer.cut or unframed or answer.reset or answer.framing != b""
        if answer.reset:
            self._reset()
        elif not self.close_connection:
            self.wfile.write(b"0\r\n\r\n")
        elif not unframed:
            self.wfile.write(answer.framing or b"10000\r\nhalf a chunk")

    def _reset(self) -> None:
        """Let the system say that nobody is there any more; over a unix socket that is an end like any other."""
        with socket.socket(fileno=self.connection.detach()) as connection:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128  # real engines have at least as many


class _TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


class _TlsServer(_TcpServer):
    context: ssl.SSLContext

    def get_request(self) -> tuple[ssl.SSLSocket, Any]:
        client, address = super().get_request()
        # Shaken hands in the connection's own thread, at its first read.
        return self.context.wrap_socket(client, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that trusts nobody hangs up."""


@contextlib.contextmanager
def fake_engine(
    script: Script | None = None, *, socket: Path | None = None, tls: tuple[Path, Path] | None = None
) -> Iterator[Engine]:
    """Serve *script* for as long as the block takes: on *socket*, or on tcp, with *tls*: certificate and key."""
    handler: type[_Handler] = type("Handler", (_Handler,), {})
    server: socketserver.BaseServer
    if socket is not None:
        server, host = _UnixServer(str(socket), handler), f"unix://{socket}"
    else:
        server = (_TlsServer if tls else _TcpServer)(("127.0.0.1", 0), handler)
        if tls:
            assert isinstance(server, _TlsServer)
            server.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            server.context.load_cert_chain(*tls)
        host = f"tcp://127.0.0.1:{server.server_address[1]}"
    engine = handler.engine = Engine(host, script or Script())
    with serving(server):
        yield engine


@contextlib.contextmanager
def default_engine(imgfs: Bench, archive: Archive | None = None) -> Iterator[Engine]:
    """Serve *archive* on a socket, as the engine that *imgfs* asks by default."""
    with fake_engine(socket=imgfs.folder / "engine.sock") as engine:
        imgfs.environment["DOCKER_HOST"] = engine.host
        if archive is not None:
            engine.script.archive = archive
        yield engine


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Let *server* answer in a thread for as long as the block takes, and close it."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
