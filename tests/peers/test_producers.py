"""What real programs write: imgfs reads all of it as skopeo does."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.builders import LAYERS, Archive, image_config, sha256
from tests.support.conformance import check_image, opened
from tests.support.engines import RealEngine, _folder
from tests.support.modern_engines import Skopeo
from tests.support.mounts import Bench
from tests.support.requirements import ROOT, need

CONFIG = image_config(LAYERS)
DIFF_IDS = [sha256(data) for data in LAYERS]


@dataclass(frozen=True)
class Programs:
    """The programs, and where they may write."""

    folder: Path
    storage: Path
    """Podman's and buildah's, with the image in it."""
    skopeo118: Skopeo

    @property
    def source(self) -> Path:
        """The image, as no program wrote it."""
        return self.folder / "source.tar"

    def run(self, *command: str | Path) -> None:
        """Run a program."""
        environment = os.environ | {"CONTAINERS_STORAGE_CONF": str(self.storage / "storage.conf")}
        environment |= {"TMPDIR": str(self.storage)}
        done = subprocess.run([*map(str, command)], env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="module", name="programs")
def programs_fixture(skopeo118: Skopeo) -> Iterator[Programs]:
    """Give the programs, podman and buildah with the image."""
    need(ROOT, "podman", "buildah", "skopeo", "umoci")
    with _folder("producers") as folder:
        storage = folder / "storage"
        storage.mkdir()
        (storage / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{storage}/root"\nrunroot = "{storage}/run"\n'
        )
        programs = Programs(folder, storage, skopeo118)
        Archive().write(programs.source)
        programs.run("podman", "load", "-q", "-i", programs.source)
        yield programs


Produce = Callable[[Programs, Path], str]
"""Writes the image below a folder and returns what names it for skopeo and imgfs."""


def _podman(transport: str) -> Produce:
    def produce(programs: Programs, folder: Path) -> str:
        path = folder / "saved.tar"
        programs.run("podman", "save", "-q", "--format", transport, "-o", path, "localhost/test/image:1")
        return f"{transport}:{path}"

    return produce


def _buildah(transport: str) -> Produce:
    def produce(programs: Programs, folder: Path) -> str:
        target = _target(transport, folder)
        programs.run("buildah", "push", "-q", "localhost/test/image:1", target)
        return target

    return produce


def _skopeo(transport: str, *options: str) -> Produce:
    def produce(programs: Programs, folder: Path) -> str:
        target = _target(transport, folder)
        programs.run("skopeo", "copy", "-q", *options, f"docker-archive:{programs.source}", target)
        return target

    return produce


def _skopeo118(transport: str, *options: str) -> Produce:
    def produce(programs: Programs, folder: Path) -> str:
        target = _target(transport, folder)
        source = f"docker-archive:{programs.source}"
        programs.skopeo118("copy", "-q", *options, source, target, folders=[programs.folder, folder])
        return target

    return produce


def _umoci(programs: Programs, folder: Path) -> str:
    """Unpack the image's files and put them in a new one: a layout whose every document is umoci's."""
    source = _skopeo("oci")(programs, folder).removeprefix("oci:")
    programs.run("umoci", "new", "--image", source.replace(":1", ":2"))
    for number, data in enumerate(LAYERS):
        (folder / f"{number}.tar").write_bytes(data)
        programs.run("umoci", "raw", "add-layer", "--image", source.replace(":1", ":2"), folder / f"{number}.tar")
    return f"oci:{source.replace(':1', ':2')}"


def _target(transport: str, folder: Path) -> str:
    return f"{transport}:{folder}/{transport}" + (":test/image:1" if transport == "docker-archive" else ":1")


PRODUCERS: dict[str, Produce] = {
    "podman save docker-archive": _podman("docker-archive"),
    "podman save oci-archive": _podman("oci-archive"),
    **{f"buildah push {name}:": _buildah(name) for name in ("docker-archive", "oci-archive", "oci")},
    **{f"skopeo 1.9 copy {name}:": _skopeo(name) for name in ("docker-archive", "oci-archive", "oci")},
    **{f"skopeo 1.18 copy {name}:": _skopeo118(name) for name in ("docker-archive", "oci-archive", "oci")},
    "skopeo 1.9, zstd": _skopeo("oci-archive", "--dest-compress-format", "zstd"),
    "skopeo 1.18, zstd": _skopeo118("oci-archive", "--dest-compress-format", "zstd"),
    "umoci": _umoci,
}


@pytest.mark.parametrize("produce", PRODUCERS.values(), ids=PRODUCERS.keys())
def test_what_a_program_writes_is_mounted_as_skopeo_reads_it(
    imgfs: Bench, programs: Programs, produce: Produce
) -> None:
    name = produce(programs, imgfs.folder)
    mountpoint = imgfs.mount(name, "--verify")
    manifest, config = (mountpoint / "manifest.json").read_bytes(), (mountpoint / "config").read_bytes()
    assert manifest == _inspected(name)
    assert f"sha256:{hashlib.sha256(config).hexdigest()}" == json.loads(manifest)["config"]["digest"]
    assert config == _inspected(name, "--config")
    assert json.loads(config)["rootfs"]["diff_ids"] == DIFF_IDS
    assert {path.name: path.read_bytes() for path in (mountpoint / "rootfs" / "etc").iterdir()} == {
        "motd": b"hello\n",
        "os-release": b"ID=test\n",
    }
    with opened(name) as image:
        check_image(image)


def _inspected(name: str, *options: str) -> bytes:
    return subprocess.run(["skopeo", "inspect", "--raw", *options, name], check=True, capture_output=True).stdout


@pytest.mark.parametrize("fixture", ["docker_engine", "docker26_classic", "docker26_containerd"])
def test_what_docker_saves_is_mounted_as_skopeo_reads_it(
    imgfs: Bench, request: pytest.FixtureRequest, fixture: str
) -> None:
    engine = request.getfixturevalue(fixture)
    assert isinstance(engine, RealEngine)
    # No layer twice: Docker 20.10 saves that as a link, whose size skopeo takes for 0.
    archive = Archive(layers=LAYERS[:3], tags=["produced:1"])
    engine.docker("load", "-i", archive.write(imgfs.folder / "source.tar"))
    path = engine.save(imgfs.folder / "saved.tar", "produced:1")
    mountpoint = imgfs.mount(path, "--verify")
    assert (mountpoint / "manifest.json").read_bytes() == _inspected(f"docker-archive:{path}")
    assert (mountpoint / "config").read_bytes() == archive.config_data
    with opened(str(path)) as image:
        check_image(image)
