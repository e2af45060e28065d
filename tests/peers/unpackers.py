"""Programs that unpack layers as imgfs shows them, all with one interface: Docker, Podman, umoci."""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tests.peers.whole_trees import Tree, tree_at
from tests.support.builders import Archive, image_config, sha256
from tests.support.engines import RealEngine, empty_docker, podman
from tests.support.folders import new_folder
from tests.support.modern_engines import debian_13, docker_26

Layers = Sequence[bytes]


class Refused(NamedTuple):
    """A peer's refusal to unpack an image."""

    message: str


class Unpacker(Protocol):
    """A program that unpacks images."""

    name: str

    def unpack(self, layers: Layers) -> Tree | Refused:
        """Return the root file system of an image of *layers*, the base first."""
        ...


class Umoci:
    """umoci, which unpacks all layers into one directory."""

    name = "umoci"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def unpack(self, layers: Layers) -> Tree | Refused:
        """Return what ``umoci raw unpack`` makes of *layers*."""
        layout, rootfs = self._folder / "layout", self._folder / "rootfs"
        try:
            write_layout(layout, layers)
            command = ["umoci", "raw", "unpack", "--image", f"{layout}:1", str(rootfs)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            return Refused(_last_line(done.stderr)) if done.returncode else tree_at(rootfs)
        finally:
            shutil.rmtree(layout, ignore_errors=True)
            shutil.rmtree(rootfs, ignore_errors=True)


@contextlib.contextmanager
def umoci_folder() -> Iterator[Path]:
    """Give a folder for `Umoci`, for as long as the block takes."""
    folder = new_folder("umoci")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def write_layout(path: Path, layers: Layers) -> None:
    """Write an OCI image layout with one image of *layers*, tagged 1."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(kind: str, data: bytes) -> dict[str, Any]:
        digest = sha256(data)
        (blobs / digest[7:]).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "config": put("config.v1+json", image_config(layers)),
        "layers": [put("layer.v1.tar", data) for data in layers],
    }
    entry = put("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("engine")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class Engine:
    """A Docker or Podman that stores each layer in a directory of its own, for overlayfs to merge."""

    def __init__(self, name: str, engine: RealEngine) -> None:
        self.name = name
        self._engine = engine
        self._empty = engine.folder / "empty"
        self._empty.mkdir(exist_ok=True)

    def unpack(self, layers: Layers) -> Tree | Refused:
        """Return what the engine's storage has of *layers*, merged by the kernel."""
        name = "imgfs-peers:1"
        refusal = self._load(Archive(layers=layers, tags=[name]).data())
        try:
            return Refused(refusal) if refusal else self._merged(name, layers)
        finally:
            self.request("DELETE", f"/images/{name}?force=1")

    def _load(self, archive: bytes) -> str:
        """Load an archive; return why that failed, empty if it did not."""
        status, answer = self.request("POST", "/images/load?quiet=1", archive)
        lines = [json.loads(line) for line in answer.splitlines() if line.startswith(b"{")]
        errors = [line.get("error") or line.get("message") for line in lines]
        refusal = next(
            (str(error) for error in errors if error), "" if status == http.client.OK else f"status {status}"
        )
        # Podman says what each of the formats that it knows makes of the archive.
        return refusal.partition("docker-archive: ")[2].partition("\n * dir: ")[0] or refusal

    def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return the status and the body of the engine's answer."""
        connection = _UnixConnection(self._engine.host.removeprefix("unix://"))
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/x-tar"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _merged(self, name: str, layers: Layers) -> Tree:
        mountpoint = self._engine.folder / "merged"
        mountpoint.mkdir(exist_ok=True)
        lower = ":".join([*self._directories(name, layers), str(self._empty)])
        command = ["mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay", str(mountpoint)]
        # An option of mount(2) may have 4,096 characters, one of fsconfig(2), which newer programs use, 256.
        subprocess.run(command, env=os.environ | {"LIBMOUNT_FORCE_MOUNT2": "always"}, check=True)
        try:
            return tree_at(mountpoint, overlay=True)
        finally:
            subprocess.run(["umount", "--lazy", mountpoint], check=True)

    def _directories(self, name: str, layers: Layers) -> list[str]:
        """Return the directories of the layers, the uppermost first."""
        del layers
        status, answer = self.request("GET", f"/images/{name}/json")
        assert status == http.client.OK, answer
        data = json.loads(answer)["GraphDriver"]["Data"]
        return [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]


class ContainerdStore(Engine):
    """A Docker with the containerd image store, which does not say where layers are."""

    def _directories(self, name: str, layers: Layers) -> list[str]:
        del name
        address = self._engine.folder / "exec" / "containerd" / "containerd.sock"
        ctr = ["ctr", "--address", str(address), "--namespace", "moby", "snapshots", "--snapshotter", "overlayfs"]
        words: list[str] = []
        while not words:  # nothing refers to the view: containerd may remove it before it is asked for
            view = f"imgfs-{uuid.uuid4().hex}"
            subprocess.run([*ctr, "view", view, _chain_id(layers)], check=True, capture_output=True)
            words = subprocess.run(
                [*ctr, "mounts", "/", view], check=False, capture_output=True, text=True
            ).stdout.split()
            subprocess.run([*ctr, "rm", view], check=False, capture_output=True)
        options = words[words.index("-o") + 1].split(",") if "-o" in words else []
        lower = [option.removeprefix("lowerdir=") for option in options if option.startswith("lowerdir=")]
        return lower[0].split(":") if lower else [words[words.index("bind") + 1]]


def _chain_id(layers: Layers) -> str:
    """Return the ChainID of *layers* (OCI image configuration, "Layer ChainID")."""
    chain, *rest = map(sha256, layers)
    for diff_id in rest:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
    return chain


@contextlib.contextmanager
def all_unpackers() -> Iterator[list[Unpacker]]:
    """Give each of them, for as long as the block takes."""
    with contextlib.ExitStack() as stack:
        give, root = stack.enter_context, debian_13()
        store = {"containerd-snapshotter": True}
        yield [
            Engine("docker 20.10", give(empty_docker())),
            Engine("docker 26", give(docker_26(root, "docker26"))),
            ContainerdStore("docker 26 (containerd)", give(docker_26(root, "docker26-containerd", features=store))),
            Engine("podman", give(podman())),
            Umoci(give(umoci_folder())),
        ]
