"""Which requests an image in a registry costs, and when: counted, by the registry or by a proxy in front of it."""

import random
import subprocess
import threading
import time
from pathlib import Path

import pytest

from fusefs.image.model import Traffic
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.sources.registry.client import transfers_of
from fusefs.sources.registry.places import Place
from tests.support.builders import layer
from tests.support.changesets import changeset, file, folder, whiteout
from tests.support.conformance import SETTINGS
from tests.support.fault_proxy import Asked, Proxy, Reply, stall, status
from tests.support.layouts import Layout
from tests.support.mounts import COMMAND, Bench
from tests.support.processes import until
from tests.support.registries import Registry, push

BASE = layer({"base": random.Random(1).randbytes(100_000)})
APP, OTHER = layer({"app": b"app"}), layer({"other": b"other"})


def pushed(server: Registry, name: str, *layers: bytes) -> tuple[Layout, str]:
    """Push an image with gzip *layers*; return its layout and digest."""
    layout = Layout()
    return layout, push(layout.list(layout.image(layers, "gzip"), "1"), server, name)


def short(layout: Layout, number: int) -> str:
    """Return the beginning of the digest of the blob *number*, in the order in which the layout got them."""
    return [path for path in layout.files if path.startswith("blobs/")][number].rpartition("/")[2][:8]


def test_mounting_takes_two_requests_and_the_next_time_one_or_none(imgfs: Bench, server: Registry) -> None:
    layout, digest = pushed(server, "team/app:1", BASE, APP)
    imgfs.mount(server.image(), at=imgfs.mountpoint("first"))
    assert server.requests() == ["GET manifests/1 200", f"GET blobs/{short(layout, 0)} 200"]
    imgfs.end_mounts()
    imgfs.mount(server.image(), at=imgfs.mountpoint("second"))
    assert server.requests() == ["HEAD manifests/1 200"]
    imgfs.mount(server.image(f"team/app@{digest}"), at=imgfs.mountpoint("third"))
    assert server.requests() == []


@pytest.mark.parametrize("code", [403, 404])
def test_a_config_that_is_not_there_is_asked_for_once(imgfs: Bench, server: Registry, proxy: Proxy, code: int) -> None:
    layout, _ = pushed(server, "team/app:1", BASE)
    proxy.always["/blobs/"] = status(code)
    assert imgfs.run("inspect", proxy.image()).status == 4
    assert proxy.requests() == ["GET manifests/1", f"GET blobs/{short(layout, 0)}"]


def test_the_process_that_serves_goes_on_with_the_connection_of_the_command(
    imgfs: Bench, server: Registry, proxy: Proxy
) -> None:
    pushed(server, "team/app:1", BASE, APP)
    mounted = imgfs.mount(proxy.image())
    made = proxy.connections
    assert (mounted / "layers" / "1" / "app").read_bytes() == b"app"
    assert (mounted / "layers" / "0" / "base").stat().st_size == 100_000
    assert proxy.connections == made


def test_a_layer_is_fetched_at_its_first_access_and_once(imgfs: Bench, server: Registry) -> None:
    layout, _ = pushed(server, "team/app:2", BASE, APP)
    mounted = imgfs.mount(server.image("team/app:2"))
    server.requests()
    assert sorted(path.name for path in (mounted / "layers").iterdir()) == ["0", "1"]
    blobs = list((mounted / "blobs" / "sha256").iterdir())
    assert [path.stat().st_size > 0 for path in blobs] == [True] * 4
    assert server.requests() == []
    assert (mounted / "layers" / "1" / "app").read_bytes() == b"app"
    assert server.requests() == [f"GET blobs/{short(layout, 2)} 200"]
    assert (mounted / "rootfs" / "app").read_bytes() == b"app"
    assert server.requests() == []
    assert sorted(path.name for path in (mounted / "rootfs").iterdir()) == ["app", "base"]
    assert server.requests() == [f"GET blobs/{short(layout, 1)} 200"]
    assert all(path.read_bytes() for path in blobs)
    assert server.requests() == []


def test_a_lookup_asks_for_a_lower_layer_only_if_that_may_decide(imgfs: Bench, server: Registry) -> None:
    top = changeset(folder("etc"), file("etc/own", b"top"), whiteout("etc/gone"), file("implicit/x"))
    base = changeset(
        folder("etc"), file("etc/own", b"base"), file("etc/gone"), folder("implicit"), file("etc/low", b"low")
    )
    layout, _ = pushed(server, "top/down:1", BASE, base, top)
    rootfs = imgfs.mount(server.image("top/down:1")) / "rootfs"
    server.requests()
    assert (rootfs / "etc" / "own").read_bytes() == b"top"
    assert not (rootfs / "etc" / "gone").exists()
    assert server.requests() == [f"GET blobs/{short(layout, 3)} 200"]
    assert (rootfs / "etc" / "low").read_bytes() == b"low"
    assert server.requests() == [f"GET blobs/{short(layout, 2)} 200"]
    assert (rootfs / "implicit" / "x").exists()
    assert server.requests() == []
    assert not (rootfs / "no").exists()
    assert server.requests() == [f"GET blobs/{short(layout, 1)} 200"]


def test_a_layer_that_another_image_has_is_not_fetched_again(imgfs: Bench, server: Registry) -> None:
    pushed(server, "team/app:3", BASE, APP)
    assert imgfs.run("cat", f"{server.image('team/app:3')}:/app").out == "app"
    server.requests()
    layout, _ = pushed(server, "elsewhere/other:1", BASE, OTHER)
    assert imgfs.run("cat", f"{server.image('elsewhere/other:1')}:/other").out == "other"
    assert server.requests() == [
        f"GET {what} 200" for what in ("manifests/1", *(f"blobs/{short(layout, n)}" for n in (0, 2)))
    ]


def test_a_tag_that_moved_is_another_image(imgfs: Bench, server: Registry) -> None:
    image = server.image("moving/tag:1")
    for data in (APP, OTHER, APP):
        pushed(server, "moving/tag:1", data)
        (name,) = imgfs.run("ls", f"{image}:/").out.split()
        assert imgfs.run("cat", f"{image}:/{name}").out == name == ("app" if data is APP else "other")


def test_readers_that_wait_share_the_fetch_of_a_layer(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    layout, _ = pushed(server, "team/app:4", BASE, APP)
    go = threading.Event()

    def held(_: Asked, reply: Reply) -> Reply:
        go.wait()
        return reply

    mounted = imgfs.mount(proxy.image("team/app:4"))
    proxy.requests()
    proxy.always[f"blobs/sha256:{short(layout, 1)}"] = held
    blob = next(path for path in (mounted / "blobs" / "sha256").iterdir() if path.name.startswith(short(layout, 1)))
    paths = [blob, blob, mounted / "layers" / "0" / "base"] * 3
    read: list[bytes] = []
    readers = [threading.Thread(target=lambda path=path: read.append(Path(path).read_bytes())) for path in paths]
    for reader in readers:
        reader.start()
    time.sleep(0.2)
    go.set()
    for reader in readers:
        reader.join(10)
    assert len(read) == 9
    assert proxy.requests() == [f"GET blobs/{short(layout, 1)}"]


def test_layers_are_fetched_in_parallel_over_few_connections(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    tars = [layer({f"file{number}": b"%d" % number}) for number in range(12)]
    layout, _ = pushed(server, "many/layers:1", *tars)
    meeting = threading.Barrier(4, timeout=10)

    def met(_: Asked, reply: Reply) -> Reply:
        meeting.wait()
        return reply

    mounted = imgfs.mount(proxy.image("many/layers:1"))
    proxy.requests()
    for number in range(1, 13):
        proxy.always[f"blobs/sha256:{short(layout, number)}"] = met
    assert len(list((mounted / "rootfs").iterdir())) == 12
    assert len(proxy.requests()) == 12
    assert proxy.most_connections <= 4 + 1  # that of the mount command may end later


def test_a_reader_of_much_does_not_wait_for_whole_layers(server: Registry, proxy: Proxy) -> None:
    blobs = [random.Random(number).randbytes(9 << 20) for number in range(5)]
    layout = Layout()
    stored = [layout.blob("application/octet-stream", data) for data in blobs]
    push(layout.list(layout.image([], config=layout.blob("application/x", b"{}"), stored=stored), "1"), server)
    transfers = transfers_of([Place(proxy.host, "team/app")], SETTINGS, Traffic())
    *layers, other = [Descriptor("", len(data), Digest.of([data])) for data in blobs]
    go, taken = threading.Event(), bytearray()
    for blob in layers:
        proxy.always[str(blob.digest)] = stall(100, go)
    whole = [threading.Thread(target=transfers.blob, args=(blob, (0, blob.size), lambda *_: None)) for blob in layers]
    much = threading.Thread(target=transfers.blob, args=(other, (5, 5 << 20), lambda _, data: taken.extend(data)))
    for thread in whole:
        thread.start()
    until(lambda: len(proxy.asked) >= 3, "layers are being fetched")
    until(lambda: transfers.waiting == 4, "the last one waits")
    much.start()
    much.join(10)
    assert taken == blobs[-1][5 : 5 << 20]
    go.set()
    for thread in whole:
        thread.join()


def test_a_cached_image_by_digest_needs_no_client(imgfs: Bench, server: Registry) -> None:
    _, digest = pushed(server, "team/app:5", APP)
    image = server.image(f"team/app@{digest}")
    assert imgfs.run("cat", f"{image}:/app").out == "app"
    code = "import sys; from fusefs.cli import main; main(sys.argv[1:]); print({'urllib3', 'ssl'} & set(sys.modules))"
    command = [str(Path(COMMAND).parent / "python"), "-c", code, "cat", f"{image}:/app"]
    done = subprocess.run(command, env=imgfs.environment, capture_output=True, text=True, check=True)
    assert done.stdout == "appset()\n"
    blocked = imgfs.folder / "registries.conf"
    blocked.write_text(f'[[registry]]\nlocation = "{server.host}"\nblocked = true\n')
    assert imgfs.run("cat", f"{image}:/app", CONTAINERS_REGISTRIES_CONF=blocked).status == 4


def test_a_registry_on_this_machine_is_asked_without_the_proxy(imgfs: Bench, server: Registry) -> None:
    pushed(server, "team/app:6", APP)
    nobody = "http://127.0.0.1:1"
    assert imgfs.run("cat", f"{server.image('team/app:6')}:/app", https_proxy=nobody, http_proxy=nobody).out == "app"
    done = imgfs.run("cat", "docker://registry.invalid/team/app:6:/app", https_proxy=nobody)
    assert (done.status, "registry.invalid through the proxy 127.0.0.1:1: Connection refused" in done.err) == (3, True)
