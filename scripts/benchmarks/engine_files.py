"""The ways to read a file of an engine's image: mount it, save and unpack it, copy it, or create a container."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench, Contestant, Sample, case
from benchmarks.inputs import NAME
from benchmarks.reading import first_byte
from benchmarks.results import Curve, Row

PEERS = {
    "saved": "docker save | tar x, then its layers",
    "copied": "skopeo copy, umoci unpack",
    "exported": "docker create, docker export | tar x",
    "one file": "docker create, docker cp of one file",
}


@dataclass(frozen=True)
class _Peers:
    """Each way returns where the file *name* of the image is afterwards; what it writes is below the folder given."""

    bench: Bench
    name: str

    def contestant(self, way: Callable[[Path], Path]) -> Contestant:
        """Time *way* until the first byte of the file; removing it afterwards does not count."""

        def sample() -> Sample:
            folder = self.bench.work.new_folder("unpacked")
            started = time.monotonic()
            first_byte(way(folder))
            seconds = time.monotonic() - started
            shutil.rmtree(folder)
            return {"": seconds}

        return sample

    def saved(self, folder: Path) -> Path:
        self._unpack(f"save {NAME}", folder)
        rootfs = folder / "rootfs"
        rootfs.mkdir()
        for layer in json.loads((folder / "manifest.json").read_text())[0]["Layers"]:
            self.bench.work.run(["tar", "xf", folder / layer, "-C", rootfs])
        return rootfs / self.name

    def copied(self, folder: Path) -> Path:
        run, layout = self.bench.work.run, f"{folder}/layout:latest"
        source = ("--src-daemon-host", self.bench.engine.host, f"docker-daemon:{NAME}")
        run(["skopeo", "copy", "--insecure-policy", *source, f"oci:{layout}"])
        run(["umoci", "unpack", "--image", layout, folder / "bundle"])
        return folder / "bundle" / "rootfs" / self.name

    def exported(self, folder: Path) -> Path:
        self.bench.engine.docker("create", "--name", folder.name, NAME)
        self._unpack(f"export {folder.name}", folder)
        self.bench.engine.docker("rm", folder.name)
        return folder / self.name

    def one_file(self, folder: Path) -> Path:
        self.bench.engine.docker("create", "--name", folder.name, NAME)
        self.bench.engine.docker("cp", f"{folder.name}:/{self.name}", folder / "file")
        self.bench.engine.docker("rm", folder.name)
        return folder / "file"

    def _unpack(self, command: str, folder: Path) -> None:
        """Run a docker *command* that writes a tar, and unpack that into *folder*."""
        pipe = f"docker -H {self.bench.engine.host} {command} | tar x -C {folder}"
        self.bench.work.run(["bash", "-o", "pipefail", "-c", pipe])


@case(17, "first-file-engine", "root", "dockerd", "docker", "containerd")
def first_file_engine(bench: Bench) -> Iterator[Row | Curve]:
    """Go from an engine's image to the first byte of one file of the merged layers; not in the table of targets."""
    name = next(name for name, size in bench.inputs.base_files.items() if size)
    cache = bench.work.new_path("cache")

    def imgfs(cached: Path | None) -> Sample:
        with bench.tools.imgfs_mount(NAME, "--host", bench.engine.host, cache=cached) as mount:
            first_byte(mount.path / "rootfs" / name)
            return {"": mount.since_start()}

    peers = _Peers(bench, name)
    imgfs(cache)
    taken = bench.paired(
        {
            "first mount": lambda: imgfs(None),
            "mounted again": lambda: imgfs(cache),
            "saved": peers.contestant(peers.saved),
            "copied": peers.contestant(peers.copied) if shutil.which("skopeo") and shutil.which("umoci") else None,
            "exported": peers.contestant(peers.exported),
            "one file": peers.contestant(peers.one_file),
        },
        warm_up=False,
    )
    for which in ("first mount", "mounted again"):
        for way, peer in PEERS.items():
            yield Row(f"first file, {which}", "s", taken.of(which), peer, taken.of(way), cold="nothing")
