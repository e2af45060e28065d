"""A registry whose blobs are in an object store: docker-registry, which redirects to signed URLs of S3."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.chunked_layers import estargz, zstd_chunked
from tests.support.fault_proxy import Asked, Proxy, fault_proxy, status
from tests.support.layouts import Layout
from tests.support.lazy_images import of_layers
from tests.support.mounts import Bench, tree
from tests.support.object_store import object_store, s3_storage
from tests.support.registries import AUTH, HTPASSWD, Registry, push, registry
from tests.system.registry.test_images import everything
from tests.system.registry.test_pieces import BASE, TOP

SIGNED = "X-Amz-Signature="
LAYERS = {"gzip": None, "zstd-chunked": zstd_chunked, "estargz": estargz}


class Redirecting(NamedTuple):
    """A registry that asks for a password, and the proxy in front of its store."""

    registry: Registry
    store: Proxy

    def signed(self) -> list[Asked]:
        """Return the requests for signed URLs since the last call: those of imgfs."""
        with self.store.lock:
            asked, self.store.asked = self.store.asked, []
        return [each for each in asked if SIGNED in each.path]

    def blobs(self) -> list[str]:
        """Return what imgfs asked the registry for since the last call, except manifests and what needed a password."""
        return [line for line in self.registry.requests() if "blobs/" in line and not line.endswith("401")]


@pytest.fixture(name="writable", scope="module")
def writable_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, str]]:
    """Give a registry with the images NAME:1 of `LAYERS`, and the host of its store."""
    folder = tmp_path_factory.mktemp("store")
    with object_store(folder) as store, registry(folder, storage=s3_storage(store)) as made:
        for name in LAYERS:
            push(image(name), made, f"{name}:1")
        yield made, store


@pytest.fixture(name="made")
def made_fixture(writable: tuple[Registry, str], tmp_path: Path) -> Iterator[Redirecting]:
    """Give a registry with the same images, for a user with a password."""
    passwords = tmp_path / "htpasswd"
    passwords.write_text(f"{HTPASSWD}\n")
    with fault_proxy(writable[1]) as store:
        auth = {"realm": "the tests", "path": str(passwords)}
        with registry(tmp_path / "registry", storage=s3_storage(store.host), htpasswd=auth) as made:
            yield Redirecting(made, store)


def image(name: str) -> Layout:
    """Return a layout whose only image is called 1, with layers in the format *name*."""
    write = LAYERS[name]
    if write is not None:
        return of_layers(write(BASE), write(TOP))
    layout = Layout()
    return layout.list(layout.image([BASE, TOP], compression="gzip"), "1")


def authfile(imgfs: Bench, made: Redirecting) -> str:
    """Write a file with the password for the registry and return its path."""
    path = imgfs.folder / "auth.json"
    path.write_text(f'{{"auths": {{"{made.registry.host}": {{"auth": "{AUTH}"}}}}}}')
    return str(path)


@pytest.mark.parametrize("name", LAYERS)
def test_an_image_in_an_object_store_is_mounted_as_its_layout_is(imgfs: Bench, made: Redirecting, name: str) -> None:
    image(name).write(str(imgfs.folder / "layout"))
    here = imgfs.mount(f"oci:{imgfs.folder}/layout:1", at=imgfs.mountpoint("here"))
    source, options = made.registry.image(f"{name}:1"), ("--authfile", authfile(imgfs, made))
    there = imgfs.mount(source, *options, at=imgfs.mountpoint("there"))
    for part in ("rootfs", "layers"):
        assert tree(there / part) == tree(here / part)
        assert everything(there / part) == everything(here / part)
    asked, signed = made.blobs(), made.signed()
    assert asked == [line for line in asked if line.endswith("307")]
    assert len(signed) >= len(asked) == len(set(asked))  # each blob's URL is asked for once
    assert any("Range" in each.headers for each in signed) is (name != "gzip")
    assert tree(there) == tree(here)
    assert everything(there) == everything(here)
    for each in (*signed, *made.signed()):
        assert each.headers["User-Agent"].startswith("imgfs/")
        assert "Authorization" not in each.headers
    assert "Signature" not in imgfs.log.read_text()


def test_a_signed_url_that_is_refused_is_asked_for_anew(imgfs: Bench, made: Redirecting) -> None:
    mounted = imgfs.mount(made.registry.image("estargz:1"), "--authfile", authfile(imgfs, made))
    assert (mounted / "rootfs" / "app" / "config").read_bytes() == b"config"
    made.blobs(), made.signed()
    base = hashlib.sha256(estargz(BASE).blob).hexdigest()[:8]
    made.store.faults[SIGNED] = [status(403)]
    assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    signed = made.signed()
    assert signed[1].headers["Range"] == signed[0].headers["Range"]
    assert made.blobs() == [f"GET blobs/{base} 307"] * 2
    made.store.always[SIGNED] = status(403)
    with pytest.raises(OSError, match="Input/output error"):
        (mounted / "rootfs" / "data").read_bytes()
    imgfs.log_is_quiet = False
    log = imgfs.log.read_text()
    assert f"the storage {made.store.host} answers 403 Forbidden" in log
    assert "Signature" not in log
