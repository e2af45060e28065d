"""A mirror that damages layers, in front of a registry that has them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.changesets import changeset, file
from tests.support.fault_proxy import Asked, Fault, Proxy, Reply, cut, fault_proxy
from tests.support.lazy_images import FORMATS
from tests.support.mounts import Bench
from tests.support.registries import Registry, push_layer

FILES = {str(number): os.urandom(100_000) for number in range(4)}
TAR = changeset(*(file(name, data) for name, data in FILES.items()))


IN_PIECES = ["zstd-chunked", "estargz"]


def _flipped(_: Asked, reply: Reply) -> Reply:
    """Change a bit in each 64 KiB of the body."""
    body = bytearray(reply.body)
    for at in range(len(body) // 2 % (1 << 16), len(body), 1 << 16):
        body[at] ^= 1
    reply.body = bytes(body)
    return reply


def _once(fault: Fault) -> Fault:
    faults = [fault]
    return lambda asked, reply: faults.pop()(asked, reply) if faults and asked.method == "GET" else reply


@pytest.fixture(name="mirror")
def mirror_fixture(imgfs: Bench, server: Registry, proxy: Proxy) -> Iterator[Proxy]:
    """Give a mirror of the registry behind *proxy*, which *imgfs* is told of."""
    with fault_proxy(server.host) as made:
        conf = imgfs.folder / "registries.conf"
        conf.write_text(
            f'[[registry]]\nlocation = "{proxy.host}"\n[[registry.mirror]]\nlocation = "{made.host}"\ninsecure = true\n'
        )
        imgfs.environment["CONTAINERS_REGISTRIES_CONF"] = str(conf)
        yield made


def _read(mountpoint: Path) -> dict[str, bytes]:
    return {name: (mountpoint / "rootfs" / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_mirror_always_damages_is_given_by_the_registry(
    imgfs: Bench, server: Registry, proxy: Proxy, mirror: Proxy, name: str
) -> None:
    digest = push_layer(FORMATS[name](TAR), server)
    mounted = imgfs.mount(proxy.image())
    (mounted / "rootfs" / "0").stat()
    mirror.always[digest] = _flipped
    proxy.requests()
    assert _read(mounted) == FILES


@pytest.mark.parametrize("name", IN_PIECES)
def test_what_a_mirror_did_not_damage_is_given_by_the_mirror(
    imgfs: Bench, server: Registry, proxy: Proxy, mirror: Proxy, name: str
) -> None:
    digest = push_layer(FORMATS[name](TAR), server)
    mounted = imgfs.mount(proxy.image())
    (mounted / "rootfs" / "0").stat()
    mirror.always[digest] = _once(_flipped)
    for file_name, data in FILES.items():
        assert (mounted / "rootfs" / file_name).read_bytes() == data
    assert proxy.requests()
    assert mirror.requests()
    proxy.always[digest] = cut(0, reset=True)
    assert _read(mounted) == FILES


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_mirror_damages_once_is_asked_of_it_again_if_the_registry_fails(
    imgfs: Bench, server: Registry, proxy: Proxy, mirror: Proxy, name: str
) -> None:
    digest = push_layer(FORMATS[name](TAR), server)
    mounted = imgfs.mount(proxy.image(), "--timeout", "4")
    if name in IN_PIECES:
        (mounted / "rootfs" / "0").stat()
    mirror.always[digest], proxy.always[digest] = _once(_flipped), cut(0, reset=True)
    assert _read(mounted) == FILES


@pytest.mark.parametrize("name", FORMATS)
def test_what_all_places_damage_is_an_error(
    imgfs: Bench, server: Registry, proxy: Proxy, mirror: Proxy, name: str
) -> None:
    digest = push_layer(FORMATS[name](TAR), server)
    mounted = imgfs.mount(proxy.image())
    imgfs.log_is_quiet = False
    if name in IN_PIECES:
        (mounted / "rootfs" / "0").stat()
    mirror.always[digest] = proxy.always[digest] = _flipped
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        _read(mounted)
