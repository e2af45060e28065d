"""The mountpoint is an OCI image layout: programs that read such read it, read-only and in place."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.builders import COMPRESSIONS, CREATED, image_config, sha256
from tests.support.changesets import About, changeset, file, folder, hard_link, symlink, whiteout
from tests.support.engines import RealEngine
from tests.support.folders import new_folder
from tests.support.layouts import Layout
from tests.support.mounts import Bench, bench
from tests.support.processes import mounts_at
from tests.support.requirements import ROOT, need

LAYERS = (
    changeset(
        folder("etc"), file("etc/motd", b"old\n"), file("etc/gone", b"x"), file("a", b"linked", About(mode=0o4755)),
        hard_link("b", "a"), symlink("link", "etc/motd"),
    ),
    changeset(folder("etc"), file("etc/motd", b"new\n"), whiteout("etc/gone")),
)  # fmt: skip
CONFIG = image_config(LAYERS, history=[{"created": CREATED, "created_by": "a test"}] * len(LAYERS))
IMAGE_ID = sha256(CONFIG)
WRITTEN_BY_ENGINES = ("docker plain", "plain", "gzip", "zstd")
READ_BY_ALL = ("docker plain", "plain", "gzip")
TAGS = (":1.27", "")
with_tag_and_without = pytest.mark.parametrize("tag", TAGS, ids=["with the tag", "without"])


@dataclass(frozen=True)
class Shown:
    """A mounted image."""

    path: Path
    compression: str | None

    def named(self, tag: str) -> str:
        """Return what containers/image calls it."""
        return f"oci:{self.path}{tag}"

    @property
    def manifest(self) -> bytes:
        """The OCI manifest that index.json lists."""
        (entry,) = json.loads((self.path / "index.json").read_bytes())["manifests"]
        return (self.path / "blobs" / str(entry["digest"]).replace(":", "/")).read_bytes()


def _mounted(kind: str) -> Iterator[Shown]:
    compression = kind if kind in COMPRESSIONS else None
    layout = Layout(kind="docker" if kind.startswith("docker") else "oci")
    config = layout.blob("config", CONFIG)
    layout.list(layout.image(LAYERS, compression, config=config), "1.27")
    with bench() as made:
        (made.folder / "image.tar").write_bytes(layout.tar())
        yield Shown(made.mount(made.folder / "image.tar"), compression)


@pytest.fixture(scope="module", name="any_image", params=WRITTEN_BY_ENGINES)
def image_of_any_compression(request: pytest.FixtureRequest) -> Iterator[Shown]:
    """An image with plain, gzip and zstd layers."""
    yield from _mounted(request.param)


@pytest.fixture(scope="module", name="image", params=READ_BY_ALL)
def image_that_all_can_read(request: pytest.FixtureRequest) -> Iterator[Shown]:
    """An image with plain and gzip layers."""
    yield from _mounted(request.param)


def _run(*command: str | Path, **environment: str) -> str:
    need(str(command[0]))
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@with_tag_and_without
def test_skopeo_inspects_it(any_image: Shown, tag: str) -> None:
    assert _run("skopeo", "inspect", "--raw", any_image.named(tag)).encode() == any_image.manifest
    assert _run("skopeo", "inspect", "--raw", "--config", any_image.named(tag)).encode() == CONFIG
    said = json.loads(_run("skopeo", "inspect", any_image.named(tag)))
    assert said["Digest"] == sha256(any_image.manifest)
    assert said["Layers"] == [layer["digest"] for layer in json.loads(any_image.manifest)["layers"]]


@with_tag_and_without
def test_skopeo_copies_it_into_a_directory(any_image: Shown, tag: str, tmp_path: Path) -> None:
    _run("skopeo", "copy", any_image.named(tag), f"dir:{tmp_path}/copy")
    copied = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert copied["manifest.json"] == any_image.manifest
    blobs = {path.name: path.read_bytes() for path in (any_image.path / "blobs" / "sha256").iterdir()}
    for descriptor in [(manifest := json.loads(any_image.manifest))["config"], *manifest["layers"]]:
        name = descriptor["digest"].removeprefix("sha256:")
        assert copied[name] == blobs[name]


@with_tag_and_without
def test_skopeo_copies_it_into_a_docker_archive_that_shows_the_same_files(image: Shown, tag: str, imgfs: Bench) -> None:
    archive = imgfs.folder / "copy.tar"
    _run("skopeo", "copy", image.named(tag), f"docker-archive:{archive}:x/y:2")
    again = imgfs.mount(archive)
    assert (again / "config").read_bytes() == CONFIG
    _run("diff", "-r", "--no-dereference", image.path / "rootfs", again / "rootfs")


@with_tag_and_without
def test_docker_gets_it_from_skopeo_with_the_same_id(image: Shown, tag: str, docker_engine: RealEngine) -> None:
    name = f"copied{hashlib.sha256(f'{image.path}{tag}'.encode()).hexdigest()[:12]}:1"
    target = f"docker-daemon:{name}"
    _run("skopeo", "copy", "--dest-daemon-host", docker_engine.host, image.named(tag), target)
    said = docker_engine.inspect(name)
    assert (said["Id"], said["RootFS"]["Layers"]) == (IMAGE_ID, [sha256(layer) for layer in LAYERS])


def test_umoci_says_what_it_is(image: Shown) -> None:
    said = json.loads(_run("umoci", "stat", "--json", "--image", f"{image.path}:1.27"))
    assert [entry["created_by"] for entry in said["history"]] == ["a test"] * 2
    layers = [layer["digest"] for layer in json.loads(image.manifest)["layers"]]
    assert [entry["layer"]["digest"] for entry in said["history"]] == layers
    assert _run("umoci", "list", "--layout", image.path).split() == ["1.27"]


def test_umoci_needs_no_tag_if_it_is_latest(imgfs: Bench) -> None:
    layout = Layout()
    layout.list(layout.image(LAYERS, config=layout.blob("config", CONFIG)), "latest")
    (imgfs.folder / "image.tar").write_bytes(layout.tar())
    mountpoint = imgfs.mount(imgfs.folder / "image.tar")
    said = json.loads(_run("umoci", "stat", "--json", "--image", mountpoint))
    assert [entry["created_by"] for entry in said["history"]] == ["a test"] * 2


def test_umoci_unpacks_it(image: Shown, tmp_path: Path) -> None:
    _run("umoci", "unpack", "--image", f"{image.path}:1.27", tmp_path / "bundle")
    _run("diff", "-r", "--no-dereference", image.path / "rootfs", tmp_path / "bundle" / "rootfs")
    assert sorted(os.listdir(tmp_path / "bundle" / "rootfs")) == ["a", "b", "etc", "link"]


@dataclass(frozen=True)
class Storage:
    """A store of podman's and buildah's own."""

    folder: Path

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run *program* on it."""
        options = [f"--root={self.folder}/root", f"--runroot={self.folder}/run", "--storage-driver=vfs"]
        environment = {"TMPDIR": str(self.folder), "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf")}
        return _run(program, *options, *arguments, **environment)


@pytest.fixture(name="storage")
def empty_storage() -> Iterator[Storage]:
    """Give an empty store; neither a mount in it nor a file of it is left."""
    need(ROOT)
    folder = new_folder("store")
    conf = f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
    (folder / "storage.conf").write_text(conf)
    try:
        yield Storage(folder)
    finally:
        for mount in mounts_at(folder):
            subprocess.run(["umount", "-l", mount.path], check=False)
        shutil.rmtree(folder)


@with_tag_and_without
def test_podman_pulls_it(any_image: Shown, tag: str, storage: Storage) -> None:
    pulled = storage.run("podman", "pull", "-q", any_image.named(tag)).strip()
    assert f"sha256:{pulled}" == IMAGE_ID
    files = Path(storage.run("podman", "image", "mount", pulled).strip())
    _run("diff", "-r", "--no-dereference", any_image.path / "rootfs", files)


@with_tag_and_without
def test_buildah_builds_from_it(any_image: Shown, tag: str, storage: Storage) -> None:
    container = storage.run("buildah", "from", any_image.named(tag)).strip()
    said = json.loads(storage.run("buildah", "inspect", container))
    assert f"sha256:{said['FromImageID']}" == IMAGE_ID
    files = Path(storage.run("buildah", "mount", container).strip())
    _run("diff", "-r", "--no-dereference", any_image.path / "rootfs", files)


@pytest.mark.parametrize("compression", ["xz", "bzip2"])
def test_skopeo_reads_what_oci_has_no_media_type_for(compression: str, tmp_path: Path) -> None:
    for image in _mounted(compression):
        _run("skopeo", "copy", image.named(":1.27"), f"dir:{tmp_path}/copy")
        assert {layer["mediaType"] for layer in json.loads(image.manifest)["layers"]} == {
            "application/vnd.oci.image.layer.v1.tar"
        }
        assert (tmp_path / "copy" / "manifest.json").read_bytes() == image.manifest
