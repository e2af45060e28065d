"""Mounts that live at the same time share the pieces of a layer: what one has fetched, the other copies."""

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.changesets import changeset, file
from tests.support.chunked_layers import Chunked
from tests.support.fault_proxy import Proxy, status
from tests.support.lazy_images import of_layers
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.registries import Registry, push
from tests.system.registry.test_pieces import WRITERS

NAMES = tuple("abcdef")
FILES = {name: random.Random(ord(name)).randbytes(300_000) for name in NAMES}
BASE = changeset(*(file(name, data) for name, data in FILES.items()))


@pytest.fixture(name="base", params=WRITERS)
def base_fixture(request: pytest.FixtureRequest, server: Registry) -> Chunked:
    """Push two images, team/app:1 and team/app:2, with the same base."""
    write = WRITERS[request.param]
    made = write(BASE)
    for tag in ("1", "2"):
        push(of_layers(made, write(changeset(file(f"of-{tag}", b"")))), server, f"team/app:{tag}")
    return made


@pytest.fixture(name="asked")
def asked_fixture(proxy: Proxy, base: Chunked) -> "Asked":
    """Count the requests for the base."""
    return Asked(proxy, base)


class Asked:
    """The requests for a layer."""

    def __init__(self, proxy: Proxy, layer: Chunked) -> None:
        self._proxy = proxy
        self._start = f"GET blobs/{hashlib.sha256(layer.blob).hexdigest()[:8]}"

    def __call__(self) -> int:
        """Return how many there were since the last call."""
        return sum(line.startswith(self._start) for line in self._proxy.requests())


def _mounts(imgfs: Bench, proxy: Proxy, *tags: str) -> Iterator[Path]:
    for tag in tags:
        yield imgfs.mount(proxy.image(f"team/app:{tag}"), at=imgfs.mountpoint(f"of-{tag}"))


def _reads(mounted: Path, *names: str) -> bool:
    return all((mounted / "layers" / "0" / name).read_bytes() == FILES[name] for name in names)


def test_what_one_mount_has_fetched_another_one_does_not_ask_for(imgfs: Bench, proxy: Proxy, asked: Asked) -> None:
    first, second = _mounts(imgfs, proxy, "1", "2")
    assert _reads(first, "a", "b")
    assert asked()
    assert _reads(second, "a", "b")
    assert asked() == 0  # the table, too
    assert _reads(second, "e", "f")  # there is nothing behind them that might be read ahead
    assert asked()
    assert _reads(first, "f", "e")
    assert asked() == 0
    third = imgfs.mount(proxy.image("team/app:1"), at=imgfs.mountpoint("third"))
    assert _reads(third, "a", "f")
    assert asked() == 0


def test_what_both_have_fetched_is_there_after_them(imgfs: Bench, proxy: Proxy, asked: Asked) -> None:
    first, second = _mounts(imgfs, proxy, "1", "2")
    assert _reads(first, "a")
    assert _reads(second, "b")
    imgfs.end_mounts()
    assert asked()
    proxy.always[""] = status(500)
    offline = imgfs.mount(proxy.image("team/app:2"), "--offline", at=imgfs.mountpoint("offline"))
    assert _reads(offline, "a", "b")
    assert not imgfs.run("umount", offline).err
    again = imgfs.mount(proxy.image("team/app:2"), "--offline", at=imgfs.mountpoint("again"))
    assert _reads(again, "b", "a")


def test_the_images_of_one_mount_share_their_pieces(imgfs: Bench, proxy: Proxy, asked: Asked) -> None:
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--all", "--log-file", imgfs.log, f"docker://{proxy.host}", mountpoint)
    assert done.status == 0
    one, two = (mountpoint / "team" / f"app@{tag}" for tag in ("1", "2"))
    assert _reads(one, "a", "b")
    assert asked()
    assert _reads(two, "b", "a")
    assert asked() == 0
    assert _reads(two, "e", "f")  # there is nothing behind them that might be read ahead
    assert asked()
    assert _reads(one, "f", "e")
    assert asked() == 0


def test_when_one_has_the_whole_layer_others_ask_for_nothing_more(imgfs: Bench, proxy: Proxy, asked: Asked) -> None:
    first, second = _mounts(imgfs, proxy, "1", "2")
    assert _reads(second, "a")
    (blob,) = (path for path in (first / "blobs" / "sha256").iterdir() if path.stat().st_size > len(BASE) // 2)
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    entry = imgfs.cache / "blobs" / f"sha256-{blob.name}"
    until((entry / "blob.seal").exists, "the layer is cached")
    assert asked()
    assert _reads(second, *NAMES)
    assert hashlib.sha256((second / "blobs" / "sha256" / blob.name).read_bytes()).hexdigest() == blob.name
    assert asked() == 0
    assert [name for name in os.listdir(entry) if name.startswith("part")] == []


def test_wrong_bytes_of_another_mount_are_asked_for(imgfs: Bench, proxy: Proxy, asked: Asked) -> None:
    first, second = _mounts(imgfs, proxy, "1", "2")
    assert _reads(first, "a", "b")
    assert asked()
    for part in imgfs.cache.glob("blobs/*/part"):
        data = bytes(255 - byte for byte in part.read_bytes())
        with part.open("r+b") as file_of_first:
            file_of_first.write(data)
    assert _reads(second, "b", "a")
    assert asked()
