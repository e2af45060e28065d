"""The limit of the cache, while the layers of images in registries grow in it."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import layer
from tests.support.changesets import changeset, file
from tests.support.chunked_layers import zstd_chunked
from tests.support.layouts import Layout
from tests.support.lazy_images import of_layers
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.registries import Registry, push

SIZE = 3_000_000
LAYERS = 10
LIMIT = 4_000_000
FIRST = 1 << 17
"""Bytes that a layer may have without asking again."""
DOCUMENTS = 200_000
"""More than what the documents beside the layers occupy."""


def _data(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


def _occupied(imgfs: Bench) -> int:
    paths = [path for path in imgfs.cache.rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in paths)


@pytest.fixture(name="at_once", params=[1, 4])
def at_once_fixture(request: pytest.FixtureRequest) -> int:
    """How many files are read at the same time."""
    return int(request.param)


def _keeps_the_limit(imgfs: Bench, mounted: Path, at_once: int) -> None:
    """Assert that all files are right, and that the cache holds layers, but not more than it may."""

    def read(number: int) -> bool:
        return (mounted / "rootfs" / str(number)).read_bytes() == _data(number)

    with ThreadPoolExecutor(at_once) as threads:
        assert all(threads.map(read, range(LAYERS)))
    may = LIMIT + DOCUMENTS + LAYERS * FIRST if at_once == 1 else 1.5 * LIMIT  # nobody waits for others to grow
    until(lambda: SIZE < _occupied(imgfs) < may, "the cache keeps its limit")


def test_layers_in_pieces(imgfs: Bench, server: Registry, at_once: int) -> None:
    layers = [zstd_chunked(changeset(file(str(number), _data(number)))) for number in range(LAYERS)]
    push(of_layers(*layers), server, "team/app:1")
    mounted = imgfs.mount(server.image("team/app:1"), "--cache-size", str(LIMIT))
    _keeps_the_limit(imgfs, mounted, at_once)


@pytest.mark.parametrize("compression", [{"compression": "gzip"}, {}], ids=["gzip", "plain"])
def test_whole_layers(imgfs: Bench, server: Registry, at_once: int, compression: dict[str, Any]) -> None:
    layers = [layer({str(number): _data(number)}) for number in range(LAYERS)]
    layout = Layout()
    push(layout.list(layout.image(layers, **compression), "1"), server, "team/app:1")
    mounted = imgfs.mount(server.image("team/app:1"), "--cache-size", str(LIMIT))
    _keeps_the_limit(imgfs, mounted, at_once)
