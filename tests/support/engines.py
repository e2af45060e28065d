"""Real engines for the tests, each with its own storage, and nothing of them left at the end."""

import contextlib
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import tarfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.folders import new_folder
from tests.support.processes import marked, mounts_at, until
from tests.support.real_image import NGINX, OTHER, build, import_small
from tests.support.requirements import ROOT, need

_READY = 60.0


@dataclass(frozen=True)
class RealEngine:
    """A running engine with the images of `real_image`."""

    name: str
    host: str
    """Its unix socket, as in ``--host``."""
    folder: Path
    tls_host: str = ""
    """Where it speaks TLS, and wants a certificate."""
    authority: Authority | None = None

    @property
    def environment(self) -> dict[str, str]:
        """An environment in which ``docker`` talks to this engine."""
        home = str(self.folder / "home")
        return {"PATH": os.environ["PATH"], "HOME": home, "DOCKER_HOST": self.host}

    def docker(self, *arguments: str | Path) -> str:
        """Run ``docker`` and return what it prints."""
        command = ["docker", *map(str, arguments)]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def inspect(self, image: str) -> dict[str, Any]:
        """Return what the engine says of *image*."""
        (document,) = json.loads(self.docker("image", "inspect", image))
        assert isinstance(document, dict)
        return document

    def save(self, path: Path, *images: str) -> Path:
        """Save *images* into one archive."""
        self.docker("save", "-o", path, *images)
        return path


@contextlib.contextmanager
def _folder(name: str) -> Iterator[Path]:
    """Give a directory of our own; no mount in it, and no file of it, is left afterwards."""
    folder = new_folder(name)
    try:
        yield folder
    finally:
        for mount in mounts_at(folder):
            subprocess.run(["umount", "-l", mount.path], check=False)
        shutil.rmtree(folder)


@contextlib.contextmanager
def _running(
    command: list[str], log: Path, ready: Path, environment: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run an engine for as long as the block takes; it is *ready* once it listens there."""
    environment = {"TMPDIR": str(log.parent)} | environment  # a containerd that is slow to end writes its stacks there
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | environment
        )
    try:
        until(lambda: process.poll() is not None or _listens(ready), f"{command[0]} listens", _READY)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)  # a test may have stopped it
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
            client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return client.recv(12).endswith(b" 200")
        except OSError:
            return False


def free_port() -> int:
    """Return a port of 127.0.0.1 where nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _dockerd(folder: Path) -> list[str]:
    """Return the command of a dockerd that has all it writes in *folder*, and listens on ``docker.sock`` there."""
    (folder / "none.json").write_text("{}")
    command = ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", f"--data-root={folder}/data"]
    command += [f"--exec-root={folder}/exec", f"--pidfile={folder}/pid", f"--config-file={folder}/none.json"]
    return [*command, "-H", f"unix://{folder}/docker.sock"]


class OwnDocker:
    """A dockerd that a test may stop, kill and start again on the images that it had."""

    def __init__(self, folder: Path) -> None:
        self.engine = RealEngine("docker", f"unix://{folder}/docker.sock", folder)
        self._mark = "IMGFS_TESTS_ENGINE", uuid.uuid4().hex
        self._running = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process; it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, or let it go on, if it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            return
        folder = self.engine.folder
        # As on a machine that has booted: else a containerd that nobody has waited for counts as running.
        shutil.rmtree(folder / "exec", ignore_errors=True)
        (folder / "pid").unlink(missing_ok=True)
        running = _running(_dockerd(folder), folder / "log", folder / "docker.sock", dict([self._mark]))
        self._process = self._running.enter_context(running)

    def stop(self) -> None:
        """Stop it until `start`: its connections are open, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0] == "T", "dockerd is stopped")

    def kill(self) -> None:
        """Kill it; its containerd ends with it."""
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """Let it end, and all that it has started."""
        self._process = None
        try:
            self._running.close()
            until(lambda: not marked("=".join(self._mark)), "all that dockerd has started ends")
        finally:
            for pid in marked("=".join(self._mark)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module", name="own_docker")
def own_docker_fixture() -> Iterator[OwnDocker]:
    """Give a module a dockerd of its own, with nothing in it."""
    need(ROOT, "dockerd", "docker", "containerd")
    with _folder("own-docker") as folder:
        docker = OwnDocker(folder)
        try:
            docker.start()
            yield docker
        finally:
            docker.end()


@pytest.fixture(scope="session", name="docker_engine")
def docker_engine_fixture() -> Iterator[RealEngine]:
    """Give a dockerd that listens on a socket and, with TLS, on tcp."""
    need(ROOT, "dockerd", "docker", "containerd")
    with _folder("docker") as folder:
        authority = Authority(folder / "tls")
        certificate, key = authority.issue("server", server=True)
        authority.issue("client", server=False)
        tls_host = f"tcp://127.0.0.1:{free_port()}"
        socket_path = folder / "docker.sock"
        command = [*_dockerd(folder), "-H", tls_host, "--tlsverify", f"--tlscacert={authority.ca}"]
        command += [f"--tlscert={certificate}", f"--tlskey={key}"]
        with _running(command, folder / "log", socket_path, {}):
            engine = RealEngine("docker", f"unix://{socket_path}", folder, tls_host, authority)
            context = folder / "context"
            context.mkdir()
            build(context, engine.environment)
            import_small(folder, engine.environment)
            yield engine


@pytest.fixture(scope="session", name="both_images")
def both_images_fixture(docker_engine: RealEngine) -> Path:
    """Give the archive that ``docker save`` writes of two images; which one it lists first is chance."""
    return docker_engine.save(docker_engine.folder / "both.tar", NGINX, OTHER)


def listed_images(archive: Path) -> list[str]:
    """Return the names of the images in an *archive*, in its order."""
    with tarfile.open(archive) as tar:
        document = tar.extractfile("manifest.json")
        assert document is not None
        return [name for item in json.load(document) for name in item["RepoTags"]]


@contextlib.contextmanager
def empty_docker() -> Iterator[RealEngine]:
    """Give a dockerd with no image, for as long as the block takes."""
    with _folder("docker") as folder, _running(_dockerd(folder), folder / "log", folder / "docker.sock", {}):
        yield RealEngine("docker", f"unix://{folder}/docker.sock", folder)


@contextlib.contextmanager
def podman(*archives: Path) -> Iterator[RealEngine]:
    """Give Podman's service with the images of *archives*, for as long as the block takes."""
    with _folder("podman") as folder:
        storage = [f"--root={folder}/root", f"--runroot={folder}/run", f"--tmpdir={folder}/tmp"]
        storage += ["--storage-driver=overlay", "--events-backend=none"]
        environment = {"TMPDIR": str(folder), "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf")}
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
        )
        for archive in archives:
            command = ["podman", *storage, "load", "-q", "-i", str(archive)]
            subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
        socket_path = folder / "podman.sock"
        command = ["podman", *storage, "system", "service", "--time", "0", f"unix://{socket_path}"]
        with _running(command, folder / "log", socket_path, environment):
            yield RealEngine("podman", f"unix://{socket_path}", folder)


@pytest.fixture(scope="session", name="podman_engine")
def podman_engine_fixture(both_images: Path) -> Iterator[RealEngine]:
    """Give Podman's service with the same images."""
    need(ROOT, "podman")
    with podman(both_images) as engine:
        import_small(engine.folder, engine.environment)
        yield engine


@pytest.fixture(params=["docker_engine", "podman_engine"], ids=["docker", "podman"], name="engine")
def engine_fixture(request: pytest.FixtureRequest) -> RealEngine:
    """Give each engine in turn."""
    engine = request.getfixturevalue(request.param)
    assert isinstance(engine, RealEngine)
    return engine


class _Forward(socketserver.BaseRequestHandler):
    path = ""

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.path)
            back = threading.Thread(target=_copy, args=(engine, self.request))
            back.start()
            _copy(self.request, engine)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def over_tcp(engine: RealEngine) -> Iterator[str]:
    """Give a tcp host where *engine* answers: one engine speaks either plain tcp or TLS, so this is forwarded."""
    handler = type("Handler", (_Forward,), {"path": engine.host.removeprefix("unix://")})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
