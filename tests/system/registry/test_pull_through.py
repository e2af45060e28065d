"""A docker-registry that fetches from another one what it does not have, and ignores ranges until it does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import sha256
from tests.support.chunked_layers import estargz
from tests.support.mounts import Bench, tree
from tests.support.processes import until
from tests.support.registries import Registry, push, registry
from tests.system.registry.test_images import everything
from tests.system.registry.test_pieces import BASE
from tests.system.registry.test_redirects import LAYERS, image

IGNORED = "is fetched whole: the server ignores ranges"


@pytest.fixture(name="near")
def near_fixture(server: Registry, tmp_path: Path) -> Iterator[Registry]:
    """Give a registry that fetches from `server`, and has nothing yet."""
    for name in LAYERS:
        push(image(name), server, f"{name}:1")
    with registry(tmp_path / "near", of=server) as made:
        yield made


def blobs(near: Registry, least: int) -> list[str]:
    """Return the requests for blobs since the last call, once there are *least*: an answer is logged later."""
    found: list[str] = []

    def are_there() -> bool:
        found.extend(line for line in near.requests() if "blobs/" in line)
        return len(found) >= least

    until(are_there, f"{least} requests for blobs are logged")
    return sorted(found)


@pytest.mark.parametrize("name", LAYERS)
def test_a_mount_through_it_equals_the_mount_of_the_layout(imgfs: Bench, near: Registry, name: str) -> None:
    layout = image(name)
    layout.write(str(imgfs.folder / "layout"))
    here = imgfs.mount(f"oci:{imgfs.folder}/layout:1", at=imgfs.mountpoint("here"))
    there = imgfs.mount(near.image(f"{name}:1"), "-v", at=imgfs.mountpoint("there"))
    for part in ("rootfs", "layers", "."):
        assert tree(there / part) == tree(here / part)
        assert everything(there / part) == everything(here / part)
    digests = {path.rpartition("/")[2][:8] for path in layout.files if path.startswith("blobs/")}
    manifest = layout.entries[0]["digest"][7:15]
    once = sorted(f"GET blobs/{digest} 200" for digest in digests - {manifest})
    assert blobs(near, len(once)) == once
    # The upper layer in eStargz is so small that it is asked for as a whole.
    assert imgfs.log.read_text().count(IGNORED) == {"gzip": 0, "zstd-chunked": 2, "estargz": 1}[name]


def test_ranges_are_asked_for_and_told_if_they_are_ignored(imgfs: Bench, near: Registry) -> None:
    base = sha256(estargz(BASE).blob)
    file = f"{near.image('estargz:1')}:/etc/motd"
    done = imgfs.run("cat", "-v", "--no-cache", file)
    assert (done.status, done.out) == (0, "hello\n")
    (line,) = (line for line in done.err.splitlines() if "fetched whole" in line)
    assert line.endswith(f"{base} {IGNORED}")
    stored = near.folder / "storage" / "docker" / "registry" / "v2" / "blobs" / "sha256"
    until((stored / base[7:9] / base[7:] / "data").exists, "the blob is stored")
    blobs(near, 3)  # of the configuration and both layers
    done = imgfs.run("cat", "-v", "--no-cache", file)
    assert (done.status, done.out, "fetched whole" in done.err) == (0, "hello\n", False)
    asked = [line for line in blobs(near, 4) if base[7:15] in line]
    assert asked == [f"GET blobs/{base[7:15]} 206"] * 2  # the table of contents, and the file
