"""Registries and storages that send blobs as a whole only, and refuse to send parts of them."""

import gzip
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from tests.support.builders import layer
from tests.support.chunked_layers import Chunked, estargz, zstd_chunked
from tests.support.fault_proxy import Asked, Fault, Proxy, Reply, cut, status
from tests.support.layouts import Layout
from tests.support.lazy_images import of_layers
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.registries import Registry, push

LAYER = layer({"data": random.Random(8).randbytes(300_000), "small": b"small"})
STORED = gzip.compress(LAYER, mtime=0)
BLOB = "application/vnd.oci.image.layer.v1.tar"
CODES = (400, 403, 416, 501)


def pushed(server: Registry, stored: bytes, kind: str) -> str:
    """Push the image team/app:1 of one layer, and return the key of its requests."""
    layout = Layout()
    blob = layout.blob(f"{BLOB}+{kind}", stored)
    push(layout.list(layout.image([LAYER], stored=[blob]), "1"), server)
    return f"blobs/{blob['digest']}"


def refusing(code: int, data: bytes | None = None) -> Fault:
    """Answer each request for a part with *code*, another one as the registry does, or with *data*."""

    def fault(asked: Asked, reply: Reply) -> Reply:
        if "Range" in asked.headers:
            return Reply(code, {"Content-Length": "0"}, b"")
        return reply if data is None else Reply(200, {"Content-Length": str(len(data))}, data)

    return fault


def ranges(proxy: Proxy, place: str) -> list[str]:
    """Return the ranges that were asked for there, empty for all."""
    return [asked.headers.get("Range", "") for asked in proxy.asked if place in asked.path]


@pytest.mark.parametrize("code", CODES)
def test_what_is_missing_of_a_blob_is_fetched_with_the_rest(
    imgfs: Bench, server: Registry, proxy: Proxy, code: int
) -> None:
    blob = pushed(server, STORED, "gzip")
    proxy.faults[blob], proxy.always[blob] = [cut(1000)], refusing(code)
    image = proxy.image()
    assert imgfs.run("cat", f"{image}:/small").out == "small"
    assert ranges(proxy, blob) == ["", f"bytes=1000-{len(STORED) - 1}", ""]


@pytest.mark.parametrize("code", CODES)
def test_a_storage_may_refuse_parts_too(imgfs: Bench, server: Registry, proxy: Proxy, code: int) -> None:
    blob = pushed(server, STORED, "gzip")
    whole = refusing(code, STORED)
    proxy.always = {blob: status(307, Location=f"http://{proxy.host}/storage/x"), "/storage/": whole}
    proxy.faults["/storage/"] = [lambda asked, reply: cut(1000)(asked, whole(asked, reply))]
    assert imgfs.run("cat", f"{proxy.image()}:/small").out == "small"
    part = f"bytes=1000-{len(STORED) - 1}"
    expired = code in (400, 403)  # as a signed URL that has: another one is asked for first
    assert ranges(proxy, "/storage/") == ["", *[part] * (1 + expired), ""]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(("make", "kind"), [(zstd_chunked, "zstd"), (estargz, "gzip")])
def test_a_layer_in_pieces_is_fetched_whole(
    imgfs: Bench, server: Registry, proxy: Proxy, make: Callable[[bytes], Chunked], *, kind: str, code: int
) -> None:
    made = make(LAYER)
    layout = Layout()
    stored = layout.blob(f"{BLOB}+{kind}", made.blob, annotations=made.annotations)
    push(layout.list(layout.image([made.tar], stored=[stored]), "1"), server)
    blob = f"blobs/{stored['digest']}"
    proxy.always[blob] = refusing(code)
    for _ in range(2):
        assert imgfs.run("cat", f"{proxy.image()}:/small").out == "small"
    asked = ranges(proxy, blob)
    assert (len(asked), asked.count("")) == (2, 1), asked


def test_a_blob_that_is_denied_stays_denied(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    blob = pushed(server, STORED, "gzip")
    proxy.faults[blob], proxy.always[blob] = [cut(1000)], status(403)
    done = imgfs.run("cat", f"{proxy.image()}:/small")
    assert done.status == 4
    assert done.err.endswith(": 403 Forbidden\n"), done.err
    assert len(ranges(proxy, blob)) == 3


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_blob_that_is_denied_as_a_whole_is_not_asked_for_so_again(
    imgfs: Bench, server: Registry, proxy: Proxy, *, is_stored: bool
) -> None:
    blob = pushed(server, STORED, "gzip")
    proxy.faults[blob] = [cut(1000)]
    proxy.always = {blob: status(403)}
    if is_stored:
        proxy.always = {blob: status(307, Location=f"http://{proxy.host}/storage/x"), "/storage/": status(403)}
    mounted = imgfs.mount(proxy.image())
    imgfs.log_is_quiet = False
    place = "/storage/" if is_stored else blob
    counts = []
    for _ in range(3):
        with pytest.raises(OSError, match=r"Input/output"):
            (mounted / "rootfs" / "small").read_bytes()
        counts.append((ranges(proxy, place).count(""), len(ranges(proxy, place))))
        time.sleep(2.2)  # in which a host that has failed is not asked
    first, *further = counts
    assert {whole for whole, _ in further} == {first[0]}, counts


def test_readers_whose_urls_have_expired_ask_for_parts_again(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    made, layout = zstd_chunked(LAYER), Layout()
    stored = layout.blob(f"{BLOB}+zstd", made.blob, annotations=made.annotations)
    push(layout.list(layout.image([made.tar], stored=[stored]), "1"), server)
    blob = f"blobs/{stored['digest']}"

    def storage(asked: Asked, _: Reply) -> Reply:
        first, last = asked.headers["Range"][6:].split("-")
        part = made.blob[int(first) : int(last) + 1]
        found = f"bytes {first}-{last}/{len(made.blob)}"
        return Reply(206, {"Content-Length": str(len(part)), "Content-Range": found}, part)

    proxy.always = {blob: status(307, Location=f"http://{proxy.host}/storage/x"), "/storage/": storage}
    mounted = imgfs.mount(proxy.image())
    os.listdir(mounted / "rootfs")
    proxy.faults["/storage/"] = [status(403), status(403)]
    with ThreadPoolExecutor(2) as pool:
        sizes = list(pool.map(lambda name: len((mounted / "rootfs" / name).read_bytes()), ("data", "small")))
    assert sizes == [300_000, 5]
    assert "" not in ranges(proxy, "/storage/")


@pytest.mark.parametrize("code", [code for code in CODES if code != 403])  # so is the whole, for longer
def test_a_blob_without_parts_is_read_soon_after_it_was_denied(
    imgfs: Bench, server: Registry, proxy: Proxy, code: int
) -> None:
    imgfs.log_is_quiet = False
    chunked = zstd_chunked(LAYER)
    push(of_layers(chunked), server)
    key = f"/blobs/sha256:{sha256(chunked.blob).hexdigest()}"
    proxy.always[key] = status(403)
    mounted = imgfs.mount(proxy.image(), "--timeout", "5")
    with pytest.raises(OSError, match="Input/output error"):
        (mounted / "rootfs" / "small").read_bytes()
    proxy.always[key] = refusing(code)

    def is_read() -> bool:
        try:
            return (mounted / "rootfs" / "small").read_bytes() == b"small"
        except OSError:
            return False

    until(is_read, "the blob is read again")
