"""Images in registries while requests fail, while the registry is gone, and while tokens and signed URLs expire."""

import contextlib
import hashlib
import http.client
import http.server
import itertools
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import fusefs
from tests.support.builders import layer
from tests.support.chunked_layers import estargz, zstd_chunked
from tests.support.fake_engine import serving
from tests.support.fault_proxy import (
    Asked,
    Fault,
    Proxy,
    Reply,
    cut,
    delay,
    fault_proxy,
    flip,
    headers,
    slow_headers,
    status,
    whole,
)
from tests.support.layouts import Layout
from tests.support.lazy_images import of_layers
from tests.support.mounts import Bench
from tests.support.registries import Registry, push, registry, token_server

COMPRESSIONS = (None, "gzip", "zstd", "xz")
FILES = {f"file{number}": random.Random(number).randbytes(20_000) for number in range(3)}
_EXPIRED = "/expired-url"
"""A path of the proxy where signed URLs are no longer valid."""
_OTHER_RANGE = "wrong Content-Range"
"""A fault after which only one more attempt makes sense."""


class Faults:
    """Commits random faults in two of three requests for the same path, and counts them by kind.

    Never more than imgfs promises to overcome: of faults after which only one more attempt makes sense, one.
    """

    def __init__(self, proxy: Proxy, challenge: str, seed: int) -> None:
        """*challenge* is what a 401 asks for."""
        self._random = random.Random(seed)
        self._in_a_row: dict[str, list[str]] = {}
        """The faults since the last answer without one, by path."""
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self._often: dict[str, Callable[[int], Fault]] = {
            "cut": cut,
            "reset": lambda where: cut(where, reset=True),
            "500": lambda _: status(500),
            "503": lambda _: status(503, b"{}"),
            "408": lambda _: status(408),
            "429": lambda _: status(429, Retry_After="0"),
            "delay": lambda _: delay(0.2),
            "slow headers": lambda _: slow_headers(0.002),
        }
        self._once: dict[str, Callable[[int], Fault]] = {
            "flip": flip,
            "401": lambda _: status(401, WWW_Authenticate=challenge),
            "expired URL": lambda _: status(307, Location=f"http://{proxy.host}{_EXPIRED}"),
        }
        self._of_ranges: dict[str, Callable[[int], Fault]] = {
            _OTHER_RANGE: lambda _: headers(Content_Range="bytes 0-0/1"),
            "no Range": lambda _: whole(proxy),
        }
        proxy.always = {_EXPIRED: status(403), "/v2/": self.fault}

    def fault(self, asked: Asked, reply: Reply) -> Reply:
        """Return the reply with a fault."""
        with self._lock:
            before = self._in_a_row.setdefault(asked.path, [])
            if len(before) == 2 or not reply.body:
                before.clear()
                return reply
            kinds = {**self._often, **({} if before else self._once)}
            if "Range" in asked.headers and not any(name in self._once or name == _OTHER_RANGE for name in before):
                kinds |= self._of_ranges
            name = self._random.choice([*kinds])
            before.append(name)
            self.counts[name] += 1
            where = self._random.randrange(len(reply.body))
        return kinds[name](where)(asked, reply)


def _layouts() -> Iterator[tuple[str, Layout]]:
    """Yield an image of each kind of layers, and the name of the kind."""
    tars = [layer({name: data}) for name, data in FILES.items()]
    for compression in COMPRESSIONS:
        layout = Layout()
        yield compression or "plain", layout.list(layout.image(tars, compression), "1")
    yield "zstd-chunked", of_layers(*map(zstd_chunked, tars))
    yield "estargz", of_layers(*map(estargz, tars))


def push_images(to: Registry) -> list[str]:
    """Push an image of each kind of layers and return their names."""
    return [push(layout, to, f"faults/{kind}:1") and f"faults/{kind}:1" for kind, layout in _layouts()]


def commit_faults(count: int, seed: int, at_once: int = 16) -> Counter[str]:
    """Read images until *count* faults were committed, *at_once* at the same time; each byte must be right."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        tokens = stack.enter_context(token_server(folder))
        server = stack.enter_context(registry(folder / "registry"))
        names = push_images(server)
        challenge = f'Bearer realm="{tokens.url}/token",service="the tests"'

        def read(number: int) -> Counter[str]:
            with fault_proxy(server.host) as proxy:
                faults = Faults(proxy, challenge, seed + number)
                while faults.counts.total() < count / at_once:
                    image = proxy.image(names[faults.counts.total() % len(names)])
                    _check(image, folder)
            return faults.counts

        with ThreadPoolExecutor(at_once) as pool:
            return sum(pool.map(read, range(at_once)), Counter[str]())


def _check(image: str, folder: Path) -> None:
    with fusefs.open_image(image, tmpdir=str(folder), cache=False, environment={"HOME": str(folder)}) as opened:
        found = {path.name: path for path in opened.rootfs.iterdir()}
        assert {name: found[name].read_bytes() for name in FILES} == FILES  # eStargz has files of its own besides


class Outage(NamedTuple):
    """How a mount behaves while its registry does not answer; times in seconds."""

    errors: tuple[float, float]
    """The first and the last time after which a read failed."""
    others: float
    """The time of a name, an attribute and a cached read meanwhile: nine of ten take less."""
    slowest: float
    back: float
    """After the registry is back, until a read succeeds."""
    unmounted: float
    """While reads wait; the process may live on until what it cached is on the disk."""


def outage(imgfs: Bench, timeout: int = 2, readers: int = 8) -> Outage:
    """Mount an image whose registry stops to answer in the middle of a layer, and is back later."""
    imgfs.log_is_quiet = False
    layout = Layout()
    tars = [layer({"large": random.Random(1).randbytes(4 << 20)}), layer({"small": b"small"})]
    layout.list(layout.image(tars, "gzip"), "1")
    largest = max(layout.files, key=lambda path: len(layout.files[path]))
    with registry(imgfs.folder / "registry") as server, fault_proxy(server.host) as proxy:
        push(layout, server)
        mounted = imgfs.mount(proxy.image(), "--timeout", str(timeout))
        cached = mounted / "layers" / "1" / "small"
        assert cached.read_bytes() == b"small"
        stalled = _stall(proxy, largest)
        began, failed = time.monotonic(), []

        def read() -> None:
            try:
                (mounted / "layers" / "0" / "large").read_bytes()
            except OSError:
                failed.append(time.monotonic() - began)

        threads = [threading.Thread(target=read) for _ in range(readers)]
        for thread in threads:
            thread.start()
        others = []
        while any(thread.is_alive() for thread in threads):
            at = time.monotonic()
            assert os.listdir(mounted / "layers") == ["0", "1"]
            assert cached.stat().st_size == 5
            assert cached.read_bytes() == b"small"
            others.append((time.monotonic() - at) / 3)
            time.sleep(0.01)
        assert len(failed) == readers
        stalled.set()
        proxy.always.clear()
        back = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                assert (mounted / "layers" / "0" / "large").stat().st_size == 4 << 20
                break
            time.sleep(0.05)
        returned = time.monotonic() - back
        imgfs.end_mounts()
        unmounted = _unmount_while_reads_wait(imgfs, proxy, largest)
    return Outage((min(failed), max(failed)), statistics.quantiles(others, n=10)[-1], max(others), returned, unmounted)


def _stall(proxy: Proxy, path: str) -> threading.Event:
    """Let requests for a blob stop in the middle, until the event that is returned."""
    go = threading.Event()

    def fault(_: Asked, reply: Reply) -> Reply:
        reply.cut, reply.stall = 100_000, go
        return reply

    proxy.always[path.rpartition("/")[2]] = fault
    return go


def _unmount_while_reads_wait(imgfs: Bench, proxy: Proxy, path: str) -> float:
    mounted = imgfs.mount(proxy.image(), "--no-cache", at=imgfs.mountpoint("waiting"))
    go = _stall(proxy, path)
    proxy.requests()

    def read() -> None:
        with contextlib.suppress(OSError):
            (mounted / "layers" / "0" / "large").read_bytes()

    reader = threading.Thread(target=read)
    reader.start()
    while not proxy.requests():
        time.sleep(0.01)
    pid = imgfs.serving(mounted)
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    reader.join(30)
    while os.path.ismount(mounted):
        time.sleep(0.01)
    took = time.monotonic() - began
    go.set()
    return took


@contextlib.contextmanager
def idle(imgfs: Bench) -> Iterator[Proxy]:
    """Mount an image, of which a file was read, and let nobody read meanwhile; give the proxy that it asks."""
    layout = of_layers(zstd_chunked(layer(FILES)))
    with registry(imgfs.folder / "registry") as server, fault_proxy(server.host) as proxy:
        push(layout, server)
        mounted = imgfs.mount(proxy.image(), "--no-cache")
        assert (mounted / "rootfs" / "file0").read_bytes() == FILES["file0"]
        assert sorted(os.listdir(mounted / "rootfs")) == sorted(FILES)
        proxy.requests()
        yield proxy


class Expiries(NamedTuple):
    """What the credentials drill came to."""

    reads: int
    tokens: int
    """Requests for a token."""
    redirects: int
    expired: int
    """Requests to the storage with a URL that was no longer valid."""


def expire(
    imgfs: Bench, *, seconds: float, token: float, url: float, blobs: int, readers: int = 64, stated: int | None = None
) -> Expiries:
    """Read *blobs* for *seconds*, by *readers*, while tokens die after *token* seconds and signed URLs after *url*."""
    layout = Layout()
    files = [random.Random(number).randbytes(5_000) for number in range(blobs)]
    stored = [layout.blob("application/octet-stream", data) for data in files]
    layout.list(layout.image([], config=layout.blob("application/x", b"{}"), stored=stored), "1")
    with contextlib.ExitStack() as stack:
        folder = imgfs.folder
        with registry(folder / "registry") as server:
            push(layout, server)
        tokens = stack.enter_context(token_server(folder))
        tokens.lifetime, tokens.stated = token - 60, stated  # the registry accepts a token for 60 s more
        guarded = stack.enter_context(registry(folder / "registry", **tokens.auth))
        storage = _Storage(layout, url)
        stack.enter_context(serving(storage.server))
        proxy = stack.enter_context(fault_proxy(guarded.host))
        proxy.always = {"/blobs/": storage.redirect}
        done = imgfs.run("mount", "-q", "--log-file", imgfs.log, "--no-cache", proxy.image(), imgfs.mountpoint())
        assert (done.status, done.err) == (0, "")
        shown = folder / "mnt" / "blobs" / "sha256"
        began = time.monotonic()

        def read(number: int) -> None:
            time.sleep(max(0.0, began + seconds * number / blobs - time.monotonic()))
            data = (shown / hashlib.sha256(files[number]).hexdigest()).read_bytes()
            assert data == files[number]

        with ThreadPoolExecutor(readers) as pool:
            list(pool.map(read, range(blobs)))
        assert "error" not in imgfs.log.read_text().lower()
        return Expiries(blobs, len(tokens.asked), storage.redirects, storage.expired)


class _Storage:
    """A storage for blobs: URLs with the time until which they are valid."""

    def __init__(self, layout: Layout, seconds: float) -> None:
        self.redirects = 0
        self.expired = 0
        self._seconds = seconds
        self._numbers = itertools.count()
        files = {path.rpartition("/")[2]: data for path, data in layout.files.items()}
        storage = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                valid = time.time() < float(parse_qs(parts.query)["until"][0])
                storage.expired += not valid
                data = files[parts.path[1:]] if valid else b""
                self.send_response(200 if valid else 403)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def redirect(self, asked: Asked, reply: Reply) -> Reply:
        """Redirect a request that the registry allows."""
        if reply.status != 200:
            return reply
        self.redirects += 1
        name = asked.path.rpartition(":")[2]
        where = f"http://127.0.0.1:{self.server.server_address[1]}/{name}?until={time.time() + self._seconds}"
        return status(307, Location=where)(asked, reply)
