"""Bytes of a blob that are in the cache, but not all: used by the next fetch, and shared by processes meanwhile."""

import json
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from tests.support.builders import layer
from tests.support.fault_proxy import Proxy, stall
from tests.support.layouts import Layout
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.registries import Registry, push
from tests.support.slow_link import slow_link
from tests.support.terminals import Terminal

DATA = random.Random(7).randbytes(20 << 20)
LAYER = layer({"data": DATA})
STALL = 8 << 20
"""Bytes after which the answer stalls."""
MISSING = 1 << 20
"""Most of them that are not noted: what is written at once."""


@pytest.fixture(name="blob")
def blob_fixture(server: Registry) -> str:
    """Push the image team/app:1 of one gzip layer, and return its digest."""
    layout = Layout()
    stored = [layout.blob("application/vnd.oci.image.layer.v1.tar", LAYER)]
    push(layout.list(layout.image([LAYER], stored=stored), "1"), server)
    return str(stored[0]["digest"])


def part(imgfs: Bench, blob: str) -> Path:
    """Return the file in the cache in which a blob arrives."""
    return imgfs.cache / "blobs" / blob.replace(":", "-") / "part"


def _has_stalled(imgfs: Bench, blob: str) -> bool:
    arriving = part(imgfs, blob)
    return arriving.exists() and arriving.stat().st_size >= STALL - (1 << 16)


def killed(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    """Kill a process that has received some megabytes of a blob."""
    go = threading.Event()
    proxy.faults[blob] = [stall(STALL, go)]
    process = imgfs.start("cat", "--progress", "none", f"{proxy.image()}:/data")
    until(lambda: _has_stalled(imgfs, blob), "the first bytes are there")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    go.set()
    proxy.requests()


def asked(proxy: Proxy, blob: str) -> list[str]:
    """Return the requests for a blob since the last call."""
    return [line for line in proxy.requests() if line.startswith(f"GET blobs/{blob[7:15]}")]


def read(imgfs: Bench, image: str) -> bool:
    """Return whether the file of the layer is right."""
    mounted = imgfs.mount(image, at=imgfs.mountpoint(f"at{os.urandom(3).hex()}"))
    return (mounted / "rootfs" / "data").read_bytes() == DATA


def test_the_bytes_that_a_killed_process_received_are_not_fetched_again(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    killed(imgfs, proxy, blob)
    assert read(imgfs, proxy.image())
    (rest,) = asked(proxy, blob)
    begin = int(rest.partition("bytes=")[2].partition("-")[0])
    assert STALL - MISSING <= begin <= STALL
    until(lambda: not part(imgfs, blob).exists(), "the blob is complete")
    assert part(imgfs, blob).with_name("blob.seal").exists()


def test_the_cache_lists_how_much_of_a_blob_is_there(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    killed(imgfs, proxy, blob)
    listed = json.loads(imgfs.run("cache", "list", "--json").out)
    (part_of,) = [entry["part"] for entry in listed if entry["id"] == blob]
    assert part_of["total"] == len(LAYER)
    assert STALL - MISSING <= part_of["present"] <= STALL
    size = f"{part_of['present'] / 1e6:.1f} MB of {part_of['total'] / 1e6:.1f} MB"
    assert (
        f"docker://{proxy.host}/team/app (application/vnd.oci.image.layer.v1.tar, {size})"
        in imgfs.run("cache", "list").out
    )
    terminal = Terminal(imgfs, "cache", "list", columns=80)
    assert terminal.end() == 0
    percent = 100 * part_of["present"] // part_of["total"]
    assert f"{proxy.host}/team/app ({percent}%)" in terminal.seen
    assert imgfs.run("cache", "prune").status == 0  # which removes what is incomplete
    parts = [entry["part"] for entry in json.loads(imgfs.run("cache", "list", "--json").out) if entry["part"]]
    assert parts == [{"present": 0, "total": len(LAYER)}]
    assert read(imgfs, proxy.image())


def test_what_would_be_pruned_is_what_is_pruned(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    killed(imgfs, proxy, blob)
    first, would, *kept = imgfs.run("cache", "prune", "--dry-run").out.splitlines()
    assert first.startswith(f"would remove the incomplete files of docker://{proxy.host}/team/app (")
    assert part(imgfs, blob).exists()
    done = imgfs.run("cache", "prune").out.splitlines()
    assert [would.replace("would free", "freed"), *kept] == done
    assert "0 B" not in would
    assert not part(imgfs, blob).exists()


def test_what_a_killed_fetch_left_is_removed_by_its_listed_name(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    killed(imgfs, proxy, blob)
    name = f"docker://{proxy.host}/team/app"
    assert name in {name for entry in json.loads(imgfs.run("cache", "list", "--json").out) for name in entry["names"]}
    assert imgfs.run("cache", "rm", name).status == 0
    assert json.loads(imgfs.run("cache", "list", "--json").out) == []


def test_wrong_bytes_in_the_cache_are_dropped(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    killed(imgfs, proxy, blob)
    with part(imgfs, blob).open("r+b") as file:
        file.write(b"wrong")
    assert read(imgfs, proxy.image())
    assert ["bytes=" in line for line in asked(proxy, blob)] == [True, False]  # the rest, and then everything


def test_a_file_in_the_cache_that_lost_its_end_is_fetched_again(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    killed(imgfs, proxy, blob)
    os.truncate(part(imgfs, blob), 1 << 20)  # as after a crash of the machine
    assert read(imgfs, proxy.image())


def test_a_damaged_note_is_as_if_nothing_were_there(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    killed(imgfs, proxy, blob)
    note = part(imgfs, blob).with_name("part.seal")
    note.write_bytes(note.read_bytes()[:-3])
    assert read(imgfs, proxy.image())
    assert asked(proxy, blob) == [f"GET blobs/{blob[7:15]}"]


def test_two_processes_that_fetch_the_same_layer_share_it(imgfs: Bench, server: Registry, blob: str) -> None:
    with slow_link(server.host, 20, 80) as host:
        image = f"docker://{host}/team/app:1"
        assert imgfs.run("inspect", image).status == 0
        server.requests()
        commands = [imgfs.start("ls", "-l", "--progress", "none", f"{image}:/") for _ in range(3)]
        listed = [process.communicate(timeout=60) for process in commands]
    assert [(str(len(DATA)) in out, err) for out, err in listed] == [(True, "")] * 3
    assert [line for line in server.requests() if "blobs/" in line] == [f"GET blobs/{blob[7:15]} 200"]


def test_a_process_that_does_not_get_on_is_not_waited_for(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    go = threading.Event()
    proxy.faults[blob] = [stall(STALL, go)]
    stalled = imgfs.start("cat", "--progress", "none", f"{proxy.image()}:/data")
    until(lambda: _has_stalled(imgfs, blob), "the first bytes are there")
    try:
        assert str(len(DATA)) in imgfs.run("ls", "-l", "--progress", "none", f"{proxy.image()}:/").out
        assert part(imgfs, blob).with_name("blob.seal").exists()  # for the next one
        assert not part(imgfs, blob).exists()
    finally:
        stalled.send_signal(signal.SIGKILL)
        stalled.communicate()
        go.set()
