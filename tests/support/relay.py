"""A relay between imgfs and a real engine: it holds the save of an image where a test says."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.fake_engine import serving
from tests.support.processes import until

ASKED = -1
"""Hold the request for a save: the engine has said what the image is, and does not know yet that it is wanted."""
ALL = 1 << 62
"""Hold the end alone: all bytes of the image have been passed on."""
_END = b"0\r\n\r\n"
"""Ends an answer in chunks."""


class Relay:
    """Passes on what is asked and answered, all of it but what it is told to hold."""

    def __init__(self, host: str, engine: str) -> None:
        self.host = host
        self.engine = engine
        """The path of the engine's socket."""
        self.asked: list[str] = []
        """The paths of all requests."""
        self.where: int | None = None
        """Where to hold the next save; None: nowhere."""
        self.losses = 0
        """How often all connections have been lost."""
        self._held = threading.Event()
        self._go = threading.Event()

    def hold(self, where: int) -> None:
        """Hold the next save there: ASKED, ALL, or once so many bytes of the answer have been passed on."""
        self._held.clear()
        self._go.clear()
        self.where = where

    def until_held(self) -> None:
        """Wait until that is where the save is."""
        until(self._held.is_set, "the save has come so far")

    def let_go(self) -> None:
        """Pass on what is held, and all that follows."""
        self.where = None
        self._go.set()

    def lose(self) -> None:
        """Hang up instead, on all who are connected: what is held was never sent."""
        self.losses += 1
        self.let_go()

    def reaches(self, where: int) -> None:
        """Wait if this is where to hold."""
        if self.where == where:
            self._held.set()
            self._go.wait()


class _Connection(socketserver.StreamRequestHandler):
    relay: Relay
    _saving = False

    def setup(self) -> None:
        super().setup()
        self._losses = self.relay.losses

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            try:
                engine.connect(self.relay.engine)
            except OSError:
                return
            answers = threading.Thread(target=self._answers, args=(engine,), daemon=True)
            answers.start()
            with contextlib.suppress(OSError):
                while request := self._request():
                    if self._losses == self.relay.losses:
                        engine.sendall(request)
            _hang_up(engine)
            answers.join()

    def _request(self) -> bytes:
        """Return the next request, empty at the end; none has a body."""
        lines = []
        while line := self.rfile.readline():
            lines.append(line)
            if line == b"\r\n":
                break
        if lines:
            path = lines[0].split()[1]
            self.relay.asked.append(path.decode("latin-1"))
            self._saving = path.endswith(b"/get")
            if self._saving:
                self.relay.reaches(ASKED)
        return b"".join(lines)

    def _answers(self, engine: socket.socket) -> None:
        with contextlib.suppress(OSError):
            passed, kept = 0, b""
            while data := engine.recv(1 << 16):
                data, kept = kept + data, b""
                stop = self.relay.where if self._saving else None
                if stop == ALL:  # what may be the end is passed on once it is known not to be
                    kept = data[-len(_END) :]
                    self._pass_on(data[: -len(_END)])
                    if kept == _END:
                        self.relay.reaches(ALL)
                        self._pass_on(kept)
                elif stop is not None and passed + len(data) > stop:
                    self._pass_on(data[: stop - passed])
                    self.relay.reaches(stop)
                    self._pass_on(data[stop - passed :])
                else:
                    self._pass_on(data)
                passed += len(data) if self._saving else 0
        _hang_up(self.connection)
        _hang_up(engine)

    def _pass_on(self, data: bytes) -> None:
        if self._losses != self.relay.losses:
            raise ConnectionError
        self.connection.sendall(data)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(path: Path, engine: str) -> Iterator[Relay]:
    """Give a relay that listens at *path*, to the *engine* of that host."""
    made = Relay(f"unix://{path}", engine.removeprefix("unix://"))
    handler = type("Handler", (_Connection,), {"relay": made})
    server = socketserver.ThreadingUnixStreamServer(str(path), handler)
    server.daemon_threads = True
    with serving(server):
        try:
            yield made
        finally:
            made.let_go()
