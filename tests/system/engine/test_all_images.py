"""``imgfs mount --all`` with real engines: their images as directories, each as a mount of it alone."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builders import LAYERS, Archive, image_config
from tests.support.engines import RealEngine
from tests.support.mounts import Bench, tree
from tests.support.processes import until
from tests.support.real_image import NGINX


@contextmanager
def _all(imgfs: Bench, engine: RealEngine) -> Iterator[Path]:
    mountpoint = imgfs.mountpoint("all")
    done = imgfs.run("mount", "--all", "-H", engine.host, "--log-file", imgfs.log, mountpoint)
    assert done.status == 0, done.err
    try:
        yield mountpoint
    finally:
        imgfs.run("umount", mountpoint)


def _names(engine: RealEngine) -> list[str]:
    return [
        name for name in engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split() if "<" not in name
    ]


def test_all_images_of_an_engine_are_directories(imgfs: Bench, engine: RealEngine) -> None:
    with _all(imgfs, engine) as mountpoint:
        assert set(_image_directories(mountpoint)) == set(_names(engine))
        place = mountpoint / NGINX  # nginx:1, not listed
        alone = imgfs.mount(NGINX, "-H", engine.host, at=imgfs.mountpoint("alone"))
        for part in ("blobs", "layers", "rootfs"):
            assert sorted(path.name for path in (place / part).iterdir()) == sorted(
                path.name for path in (alone / part).iterdir()
            )
        assert (place / "config").read_bytes() == (alone / "config").read_bytes()
        assert (place / "manifest.json").read_bytes() == (alone / "manifest.json").read_bytes()
        assert (place / "rootfs" / "etc" / "passwd").read_bytes() == (alone / "rootfs" / "etc" / "passwd").read_bytes()


def _image_directories(mountpoint: Path) -> Iterator[str]:
    """Yield the names of images, as the engine spells them."""
    waiting = [mountpoint]
    while waiting:
        for path in waiting.pop().iterdir():
            if path.name == "by-id":
                continue
            if "manifest.json" in {entry.name for entry in path.iterdir()}:
                yield str(path.relative_to(mountpoint)).replace("@", ":").removeprefix("docker.io/library/")
            else:
                waiting.append(path)


@pytest.mark.parametrize("store", ["docker26_classic", "docker26_containerd"])
def test_images_of_docker_26_come_and_go(
    imgfs: Bench, request: pytest.FixtureRequest, tmp_path: Path, store: str
) -> None:
    engine: RealEngine = request.getfixturevalue(store)
    image = Archive(config=image_config(LAYERS, comment=store), tags=["coming/and:going"])
    archive = image.write(tmp_path / "image.tar")
    with _all(imgfs, engine) as mountpoint:
        assert not (mountpoint / "coming").exists()
        subprocess.run(["docker", "load", "-qi", archive], env=engine.environment, check=True, capture_output=True)
        place = mountpoint / "coming" / "and@going"
        try:
            until(place.is_dir, "the image is seen", 4)
            assert (place / "config").read_bytes() == image.config_data
            alone = imgfs.mount("coming/and:going", "-H", engine.host, at=imgfs.mountpoint("alone"))
            assert tree(place) == tree(alone)
        finally:
            engine.docker("image", "rm", "-f", "coming/and:going")
        until(lambda: not (mountpoint / "coming").exists(), "it is gone", 4)
