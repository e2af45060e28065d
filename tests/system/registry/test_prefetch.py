"""Layers that are fetched before anybody reads them, and the numbers that a mount tells about its requests."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import layer
from tests.support.chunked_layers import Chunked, estargz, zstd_chunked
from tests.support.fault_proxy import Proxy, status
from tests.support.layouts import Layout
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.registries import Registry, push, registry

TARS = [layer({name: random.Random(size).randbytes(size)}) for name, size in (("large", 9 << 20), ("small", 1000))]


def told(mounted: Path, name: str) -> int:
    """Return a number that a mount tells."""
    return int(os.getxattr(mounted, f"user.imgfs.{name}"))


@pytest.fixture(name="sizes")
def sizes_fixture(server: Registry) -> list[int]:
    """Push the image team/app:1 and return the sizes of its layers."""
    layout = Layout()
    push(layout.list(layout.image(TARS, "gzip"), "1"), server)
    return sorted(len(data) for path, data in layout.files.items() if path.startswith("blobs/"))[-2:]


def test_layers_are_fetched_in_the_background_and_verified(imgfs: Bench, proxy: Proxy, sizes: list[int]) -> None:
    mounted = imgfs.mount(proxy.image(), "--prefetch")
    until(lambda: len(list(imgfs.cache.glob("blobs/*/blob.seal"))) == 4, "all blobs are cached")
    assert sum(sizes) < told(mounted, "bytes_fetched") < sum(sizes) + 10_000
    asked = proxy.requests()
    assert told(mounted, "requests") == len(asked) == 2 + 1 + 3  # the small layer, and three steps of the large one
    assert told(mounted, "errors") == 0
    proxy.always["/v2/"] = status(503)
    assert sorted(os.listdir(mounted / "rootfs")) == ["large", "small"]
    assert proxy.requests() == []


def test_a_mount_that_has_prefetched_everything_needs_no_registry(imgfs: Bench, tmp_path: Path) -> None:
    layout = Layout()
    with registry(tmp_path) as made:
        push(layout.list(layout.image(TARS, "gzip"), "1"), made)
        mounted = imgfs.mount(made.image(), "-o", "prefetch=all")
    assert (mounted / "rootfs" / "large").stat().st_size == 9 << 20
    assert told(mounted, "errors") == 0


def test_a_mount_that_cannot_prefetch_everything_is_not_made(imgfs: Bench, proxy: Proxy, sizes: list[int]) -> None:
    assert sizes
    proxy.always["blobs/"] = status(404)
    assert imgfs.run("inspect", proxy.image()).status == 4
    proxy.always = {}
    assert imgfs.run("inspect", proxy.image()).status == 0
    proxy.always["blobs/"] = status(404)
    done = imgfs.run("mount", "--prefetch=all", proxy.image(), imgfs.mountpoint())
    assert (done.status, "has no blob sha256:" in done.err) == (4, True)


def test_an_outage_is_told_in_the_log_and_in_numbers(imgfs: Bench, proxy: Proxy, sizes: list[int]) -> None:
    assert sizes
    imgfs.log_is_quiet = False
    mounted = imgfs.mount(proxy.image(), "--timeout", "1")
    proxy.always["blobs/"] = status(503)
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(mounted / "rootfs")
    failed = told(mounted, "errors")
    assert failed > 0
    proxy.always = {}
    until(lambda: _lists(mounted / "rootfs"), "the registry is used again", 5)
    log = imgfs.log.read_text()
    assert log.count(f"the registry {proxy.host} fails: ") == 1
    assert log.count(f"the registry {proxy.host} answers again after ") == 1
    assert told(mounted, "errors") == failed


def test_an_image_that_is_here_tells_no_such_numbers(imgfs: Bench, tmp_path: Path) -> None:
    archive = Layout()
    archive.list(archive.image([TARS[1]]), "1")
    archive.write(str(tmp_path / "image"))
    mounted = imgfs.mount(f"oci:{tmp_path / 'image'}", "--prefetch")
    assert not [name for name in os.listxattr(mounted) if "fetched" in name]


def _lists(path: Path) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return False


@pytest.mark.parametrize(("make", "kind"), [(zstd_chunked, "zstd"), (estargz, "gzip")])
@pytest.mark.parametrize("is_honest", [True, False])
def test_what_was_read_piece_by_piece_is_compared_with_the_whole_layer(
    imgfs: Bench, server: Registry, proxy: Proxy, make: Callable[[bytes], Chunked], *, kind: str, is_honest: bool
) -> None:
    made, layout = make(layer({"data": random.Random(3).randbytes(9 << 20), "small": b"small"})), Layout()
    media_type = f"application/vnd.oci.image.layer.v1.tar+{kind}"
    stored = layout.blob(media_type, made.blob, annotations=made.annotations)
    push(layout.list(layout.image([made.tar if is_honest else b"another"], stored=[stored]), "1"), server)
    proxy.rate = 4e6  # bytes in a second: a look comes before the end
    mounted = imgfs.mount(proxy.image(), "--prefetch", "--driver", "fuse")
    assert os.stat(mounted / "rootfs" / "small").st_size == 5
    if is_honest:
        until(lambda: os.getxattr(mounted / "layers" / "0", "user.imgfs.verified") == b"tar", "it is compared")
        assert (mounted / "rootfs" / "small").read_bytes() == b"small"
    else:
        imgfs.log_is_quiet = False
        until(lambda: "not shown any more" in imgfs.log.read_text(), "it is compared")
        with pytest.raises(OSError, match="Input/output"):
            (mounted / "rootfs" / "small").read_bytes()
