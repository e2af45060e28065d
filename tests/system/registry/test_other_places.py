"""Layers that are read in pieces, and whose bytes are at another place than before."""

import hashlib
import random

import pytest

from tests.support.changesets import changeset, file
from tests.support.chunked_layers import estargz, zstd_chunked
from tests.support.fault_proxy import Asked, Reply, fault_proxy, headers, status
from tests.support.lazy_images import of_layers
from tests.support.mounts import Bench
from tests.support.registries import Registry, push

NEAR, FAR = random.Random(1).randbytes(300_000), random.Random(2).randbytes(300_000)
TAR = changeset(file("near", NEAR), file("far", FAR))


@pytest.fixture(name="blob", scope="module", params=[zstd_chunked, estargz])
def blob_fixture(request: pytest.FixtureRequest, server: Registry) -> str:
    """Push the image team/app:1 of one layer, and give the digest of that."""
    chunked = request.param(TAR)
    push(of_layers(chunked), server)
    return hashlib.sha256(chunked.blob).hexdigest()


def test_a_blob_that_has_moved_to_another_storage_is_read_there(imgfs: Bench, server: Registry, blob: str) -> None:
    with fault_proxy(server.host) as proxy, fault_proxy(server.host) as new:
        with fault_proxy(server.host) as old:
            place = [old.host]

            def moved(asked: Asked, reply: Reply) -> Reply:
                return status(307, Location=f"http://{place[0]}{asked.path}")(asked, reply)

            proxy.always[blob] = moved
            old.always[blob] = headers(Connection="close")
            mounted = imgfs.mount(proxy.image(), "--timeout", "5")
            assert (mounted / "rootfs" / "near").read_bytes() == NEAR
            assert old.requests()
        place[0] = new.host
        assert (mounted / "rootfs" / "far").read_bytes() == FAR
        assert new.requests()
