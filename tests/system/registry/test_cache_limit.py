"""``--cache-size`` holds for images in registries, while they are mounted and afterwards."""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builders import layer
from tests.support.chunked_layers import estargz, zstd_chunked
from tests.support.erofs_mounts import need_kernel_mounts
from tests.support.layouts import Layout
from tests.support.lazy_images import of_layers
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.registries import Registry, push

LIMIT = 4_000_000
SIZE = 1_500_000
FILES: Mapping[str, bytes] = {f"file{number}": random.Random(number).randbytes(SIZE) for number in range(8)}
LAYERS = [layer({name: data}) for name, data in FILES.items()]
KINDS = ["plain", "gzip", "zstd-chunked", "estargz"]


@pytest.fixture(name="image", params=KINDS, scope="module")
def image_fixture(request: pytest.FixtureRequest, server: Registry) -> str:
    """Push an image of eight layers, each of which fits into the cache, and return its name."""
    kind = request.param
    if kind in ("plain", "gzip"):
        layout = Layout()
        layout.list(layout.image(LAYERS, None if kind == "plain" else kind), "1")
    else:
        layout = of_layers(*map(zstd_chunked if kind == "zstd-chunked" else estargz, LAYERS))
    push(layout, server, f"limit/{kind}:1")
    return server.image(f"limit/{kind}:1")


@contextmanager
def limited(imgfs: Bench, mounts: int = 1) -> Iterator[list[str]]:
    """Give options of *mounts* that share a cache, which is neither too large nor empty after the unmount.

    One alone keeps the limit before, too.
    """

    def sizes() -> list[int]:
        return [entry["size"] for entry in json.loads(imgfs.run("cache", "list", "--json").out)]

    yield ["--cache-size", str(LIMIT)]
    if mounts == 1:
        assert sum(sizes()) <= LIMIT
    imgfs.end_mounts()
    until(lambda: not imgfs.processes(), "all is written")
    assert SIZE < sum(sizes()) <= LIMIT


def read(mounted: Path) -> bool:
    """Return whether all files are right."""
    return {name: (mounted / "rootfs" / name).read_bytes() for name in FILES} == FILES


def test_all_layers_together_keep_the_limit(imgfs: Bench, image: str) -> None:
    with limited(imgfs) as options:
        mounted = imgfs.mount(image, *options)
        assert read(mounted)
        for path in (mounted / "blobs" / "sha256").iterdir():
            path.read_bytes()


def test_prefetched_layers_keep_the_limit(imgfs: Bench, image: str) -> None:
    with limited(imgfs) as options:
        assert read(imgfs.mount(image, *options, "--prefetch=all"))


def test_kernel_mounts_keep_the_limit(imgfs: Bench, image: str) -> None:
    need_kernel_mounts()
    with limited(imgfs) as options:
        assert read(imgfs.mount(image, *options, "--driver", "erofs"))


def test_mounts_that_share_a_cache_keep_the_limit(imgfs: Bench, image: str) -> None:
    with limited(imgfs, mounts=3) as options:
        mounts = [imgfs.mount(image, *options, at=imgfs.mountpoint(f"mnt{number}")) for number in range(3)]
        for name, data in FILES.items():
            assert all((mounted / "rootfs" / name).read_bytes() == data for mounted in mounts)
