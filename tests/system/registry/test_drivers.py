"""``--driver`` with images in registries: the kernel serves them once all of their layers are on this machine."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import layer
from tests.support.chunked_layers import Chunked, estargz, zstd_chunked
from tests.support.erofs_mounts import need_kernel_mounts, until_kernel
from tests.support.layouts import Layout
from tests.support.lazy_images import of_layers
from tests.support.mounts import Bench, mounted_below, the_mount, tree
from tests.support.processes import until
from tests.support.registries import Registry, push

LAYERS = (layer({"base": random.Random(1).randbytes(100_000)}), layer({"app": b"app"}))
TOP = "HEAD manifests/1 200"


@pytest.fixture(name="imgfs")
def kernel_bench(imgfs: Bench) -> Bench:
    """A bench that mounts by the default driver, on a machine that mounts EROFS."""
    need_kernel_mounts()
    imgfs.driver = ""
    return imgfs


@pytest.fixture(name="image", params=[None, "gzip"])
def pushed_image(request: pytest.FixtureRequest, server: Registry) -> str:
    """An image of two layers, plain or compressed."""
    layout, name = Layout(), f"kernel/{request.param}:1".lower()
    push(layout.list(layout.image(LAYERS, request.param), "1"), server, name)
    server.requests()
    return server.image(name)


def _kind(mountpoint: Path) -> str:
    return the_mount(mountpoint).file_system


def _until_cached(imgfs: Bench) -> None:
    until(lambda: list(imgfs.cache.glob("blobs/*/*.erofs.seal")), "the metadata are cached")
    until(lambda: not imgfs.processes(), "all is written")


def _by_kernel(imgfs: Bench, image: str, *options: str, name: str = "kernel") -> Path:
    mountpoint = imgfs.mountpoint(name)
    done = imgfs.run("mount", "--driver", "erofs", "--log-file", imgfs.log, *options, image, mountpoint)
    assert (done.status, done.out) == (0, ""), done.err
    assert _kind(mountpoint) == "erofs"
    return mountpoint


def test_the_driver_erofs_fetches_all_layers_and_shows_what_fuse_shows(imgfs: Bench, image: str) -> None:
    kernel = _by_kernel(imgfs, image)
    fuse = imgfs.mount(image, "--driver", "fuse")
    shown = {path: data for path, data in tree(kernel).items() if not (kernel / path).is_symlink()}
    assert shown == tree(fuse)


@pytest.mark.parametrize("options", [[], ["--no-cache"]])
def test_the_kernel_takes_over_when_all_layers_are_here(imgfs: Bench, image: str, options: list[str]) -> None:
    mountpoint = imgfs.mount(image, *options)
    (mountpoint / "layers" / "1" / "app").read_bytes()
    assert _kind(mountpoint) == "fuse.imgfs"
    assert sorted(os.listdir(mountpoint / "rootfs")) == ["app", "base"]
    until_kernel(mountpoint)
    assert (mountpoint / "rootfs" / "base").read_bytes() == (mountpoint / "layers" / "0" / "base").read_bytes()


def test_cached_metadata_are_mounted_at_once_without_a_blob(imgfs: Bench, server: Registry, image: str) -> None:
    shown = tree(_by_kernel(imgfs, image, name="first"))
    _until_cached(imgfs)
    server.requests()
    mountpoint = imgfs.mountpoint("second")
    assert imgfs.run("mount", "--log-file", imgfs.log, image, mountpoint).status == 0
    assert (_kind(mountpoint), imgfs.processes(), server.requests()) == ("erofs", {}, [TOP])
    assert tree(mountpoint) == shown
    assert tree(_by_kernel(imgfs, image, "--offline", name="third")) == shown
    assert server.requests() == []


def test_a_kernel_mount_does_not_need_its_entries(imgfs: Bench, image: str) -> None:
    shown = tree(_by_kernel(imgfs, image, name="first"))
    _until_cached(imgfs)
    mountpoint = _by_kernel(imgfs, image, name="second")
    until(lambda: not imgfs.processes(), "no process is left")
    assert {one["inUse"] for one in json.loads(imgfs.run("cache", "list", "--json").out)} == {False}
    assert imgfs.run("cache", "prune", "--all").status == 0
    assert os.listdir(imgfs.cache / "blobs") == []
    assert tree(mountpoint) == shown


@pytest.mark.parametrize("write", [estargz, zstd_chunked])
def test_metadata_of_layers_that_were_read_piece_by_piece_are_found_again(
    imgfs: Bench, server: Registry, write: Callable[[bytes], Chunked]
) -> None:
    push(of_layers(*map(write, LAYERS)), server, "kernel/pieces:1")
    image = server.image("kernel/pieces:1")
    lazy = imgfs.mount(image, "--index", "--prefetch", at=imgfs.mountpoint("lazy"))
    until_kernel(lazy)
    _until_cached(imgfs)
    again = imgfs.mount(image, at=imgfs.mountpoint("again"))
    assert (_kind(again), imgfs.processes()) == ("erofs", {})
    for mountpoint in (lazy, again):
        for folder in (mountpoint, mountpoint / "layers" / "0", mountpoint / "layers" / "1"):
            assert os.getxattr(folder, "user.imgfs.verified") == b"tar"
    assert len(list(imgfs.cache.glob("blobs/*/*.erofs.seal"))) == 1


def test_nothing_is_fetched_for_metadata_whose_layers_are_not_here(imgfs: Bench, server: Registry, image: str) -> None:
    shown = tree(_by_kernel(imgfs, image, name="first"))
    _until_cached(imgfs)
    (blob,) = (path for path in imgfs.cache.glob("blobs/*/blob") if path.stat().st_size > 50_000)
    blob.unlink()
    blob.with_name("blob.seal").unlink()
    server.requests()
    mountpoint = imgfs.mount(image)
    assert (_kind(mountpoint), server.requests()) == ("fuse.imgfs", [TOP])
    assert tree(_by_kernel(imgfs, image, name="second")) == shown
    fetched = [request for request in server.requests() if request.startswith("GET ")]
    assert len(fetched) == 1


def test_a_layer_that_cannot_be_fetched_is_an_error_of_the_driver_erofs(imgfs: Bench, image: str) -> None:
    assert imgfs.run("inspect", image).status == 0
    done = imgfs.run("mount", "--offline", "--driver", "erofs", "--log-file", imgfs.log, image, imgfs.mountpoint())
    *progress, said = done.err.splitlines()
    assert (done.status, said.endswith(" is not in the cache, and --offline asks no registry")) == (4, True)
    assert [line for line in progress if " indexing " not in line] == []
    assert mounted_below(imgfs.folder) == []


def test_an_artifact_is_fetched_for_the_driver_erofs_alone_and_taken_over_once_it_is_read(
    imgfs: Bench, server: Registry
) -> None:
    layout = Layout()
    config = layout.blob("application/vnd.example", b"{}")
    title = {"org.opencontainers.image.title": "model.bin"}
    stored = [layout.blob("application/octet-stream", b"weights" * 1000, annotations=title)]
    push(layout.list(layout.image([], config=config, stored=stored), "1"), server, "team/model:1")
    image = server.image("team/model:1")
    imgfs.log_is_quiet = False
    mountpoint = imgfs.mountpoint("lazy")
    server.requests()
    assert imgfs.run("mount", "--log-file", imgfs.log, "--index", image, mountpoint).status == 0
    said = f"{mountpoint} is a FUSE mount for now: layers are not fetched yet"
    until(lambda: said in imgfs.log.read_text(), "it says so")
    assert _kind(mountpoint) == "fuse.imgfs"
    assert [request for request in server.requests() if config["digest"][7:15] not in request] == [
        "GET manifests/1 200"
    ]
    model = mountpoint / "files" / "model.bin"
    assert model.read_bytes() == b"weights" * 1000
    until_kernel(mountpoint)
    assert model.read_bytes() == b"weights" * 1000
    imgfs.run("cache", "prune", "--all")
    assert (_by_kernel(imgfs, image) / "files" / "model.bin").read_bytes() == b"weights" * 1000
