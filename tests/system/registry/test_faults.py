"""Registries, networks and proxies that fail: no wrong byte is shown, and nobody waits longer than the timeout."""

import errno
import gzip
import mmap
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from fusefs.mount.holders import has_killed_waiter
from fusefs.mount.mountinfo import Mount, mount_at
from tests.support.builders import compressed, layer
from tests.support.fault_proxy import Fault, Proxy, Reply, body, cut, flip, headers, slow_headers, stall, status
from tests.support.file_systems import tmpfs
from tests.support.layouts import Layout
from tests.support.mounts import Bench, Finished
from tests.support.pagecache import drop_from_cache
from tests.support.processes import until
from tests.support.registries import Registry, push

DATA = random.Random(2).randbytes(300_000)
LAYER = layer({"data": DATA, "small": b"small"})
STORED = gzip.compress(LAYER, mtime=0)
SIZE = len(STORED)
UNKNOWN = b'{"errors":[{"code":"BLOB_UNKNOWN","message":"\\u001b[2J"}]}'


@pytest.fixture(name="blob")
def blob_fixture(server: Registry) -> str:
    """Push the image team/app:1 of one layer, and return the key of its requests."""
    layout = Layout()
    stored = [layout.blob("gzip", STORED)]
    push(layout.list(layout.image([LAYER], stored=stored), "1"), server)
    return f"blobs/{stored[0]['digest']}"


def read(imgfs: Bench, image: str, *options: str) -> tuple[int, str]:
    """Read the layer's files in one command; return its exit code and message, which is empty if they are right."""
    done = imgfs.run("cat", "--no-cache", "--progress", "none", *options, f"{image}:/small")
    assert (done.out == "small") is (done.status == 0)
    assert done.err.count("\n") <= 1
    return done.status, done.err


@pytest.mark.parametrize(
    ("faults", "requests"),
    [
        ([cut(0)], ["", ""]),
        ([cut(0), cut(0), cut(0)], ["", "", "", ""]),
        ([cut(1000)], ["", "bytes=1000-"]),
        ([cut(1000, reset=True)], ["", "bytes="]),
        ([cut(1000), cut(1000), cut(SIZE - 2001)], ["", "bytes=1000-", "bytes=2000-", f"bytes={SIZE - 1}-"]),
        ([status(500)], ["", ""]),
        ([status(503, b"later")], ["", ""]),
        ([status(408), status(502)], ["", "", ""]),
        ([status(429, Retry_After="1")], ["", ""]),
        ([cut(1000), status(429, Retry_After="Sun, 06 Nov 1994 08:49:38 GMT", Date="Sun, 06 Nov 1994 08:49:37 GMT")],
         ["", "bytes=1000-", "bytes=1000-"]),
        ([flip(SIZE // 2)], ["", ""]),
        ([cut(1000), headers(Content_Range=f"bytes 999-{SIZE - 1}/{SIZE}")], ["", "bytes=1000-", "bytes=1000-"]),
        ([cut(1000), headers(Content_Range="")], ["", "bytes=1000-", "bytes=1000-"]),
        ([slow_headers(0.01)], [""]),
    ],
)  # fmt: skip
def test_a_fault_that_passes_is_not_seen(
    imgfs: Bench, proxy: Proxy, blob: str, faults: list[Fault], requests: list[str]
) -> None:
    proxy.faults[blob] = faults
    assert read(imgfs, proxy.image()) == (0, "")
    asked = [line for line in proxy.requests() if line.startswith(f"GET blobs/{blob.rpartition(':')[2][:8]}")]
    assert len(asked) == len(requests)
    for line, wanted in zip(asked, requests, strict=True):
        assert wanted in line
        assert ("bytes=" in line) is (wanted != "")


def test_the_body_of_a_redirect_that_does_not_end_is_not_waited_for(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    there = f"http://{proxy.upstream}/v2/team/app/{blob}"
    proxy.always[blob] = status(307, b"5\r\nhello\r\n", Location=there, Transfer_Encoding="chunked")
    assert read(imgfs, proxy.image(), "--timeout", "2") == (0, "")


def test_a_registry_that_ignores_ranges_sends_a_blob_at_most_twice(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    proxy.ignores_range = True
    proxy.faults[blob] = [cut(1000)]
    assert read(imgfs, proxy.image()) == (0, "")
    proxy.faults[blob] = [cut(1000), cut(2000), cut(3000)]
    code, error = read(imgfs, proxy.image())
    assert (code, "breaks off, and the registry ignores Range" in error) == (3, True)


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (flip(SIZE - 1), 6, "has the digest sha256:"),
        (body(STORED + b"x"), 5, f"has {SIZE + 1} bytes in the registry, the manifest says {SIZE}"),
        (body(STORED[:-1]), 5, f"has {SIZE - 1} bytes in the registry, the manifest says {SIZE}"),
        (status(404, UNKNOWN), 4, "404 Not Found (BLOB_UNKNOWN: \\x1b[2J)"),
        (status(403), 4, "denies access to blob sha256:"),
        (status(429, Retry_After="7200"), 3, "429 Too Many Requests to the request for blob"),
        (status(418, b"<html>"), 3, "answers 418"),
        (status(307, Location="https://127.0.0.1:1/x?secret"), 3, "127.0.0.1:1"),
        (status(301, Location=""), 3, "redirects to a malformed URL"),
        (headers(Content_Length="9" * 5000), 5, f"bytes in the registry, the manifest says {SIZE}"),
        (status(302, Location="https://127.0.0.1:99999/x?secret"), 3, "redirects to a malformed URL"),
        (status(302, Location="https://127.0.0.1:1x/y?secret"), 3, "redirects to a malformed URL"),
        (status(302, Location="https://someone:secret@127.0.0.1:1/"), 3, "127.0.0.1:1"),
        (status(302, Location="https://a..b/y?secret"), 3, "a..b"),
        (status(302, Location="https://a b/y?secret"), 3, "its URL is malformed"),
        (status(302, Location="https:///y?secret"), 3, "redirects to a malformed URL"),
        (status(302, Location="https://[::1/x"), 3, "redirects to a malformed URL"),
        (status(302, Location="file://localhost/etc/passwd"), 3, "redirects to a URL that is not https"),
        (slow_headers(0.5), 3, "cannot reach the registry"),
        (status(502), 3, "answers 502 Bad Gateway"),
    ],
)  # fmt: skip
def test_a_fault_that_stays_is_an_error_in_time(
    imgfs: Bench, proxy: Proxy, blob: str, fault: Fault, *, code: int, message: str
) -> None:
    proxy.always[blob] = fault
    began = time.monotonic()
    status_, error = read(imgfs, proxy.image(), "--timeout", "2")
    assert (status_, message in error) == (code, True), error
    assert "secret" not in error
    assert time.monotonic() - began < 12  # 2 s, and a slow machine's start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", ["cat IMAGE:/small", "ls --layer 0 IMAGE", "cp IMAGE:/small copy"])
def test_a_signal_ends_a_command_that_waits_for_a_layer(
    imgfs: Bench, proxy: Proxy, blob: str, number: int, words: str
) -> None:
    go = threading.Event()
    proxy.always[blob] = stall(200_000, go)
    process = imgfs.start(*words.replace("IMAGE", proxy.image()).split(), "--no-cache")
    until(lambda: any(blob[-64:][:8] in line for line in proxy.requests()), "the layer is asked for")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)  # some bytes arrive, then none
    process.send_signal(number)
    try:
        assert process.wait(5) in {128 + number, -number}
    finally:
        go.set()
    assert [*imgfs.spool.iterdir()] == []
    assert not (imgfs.folder / "copy").exists()


def test_a_blob_that_its_storage_denies_does_not_deny_others(imgfs: Bench, server: Registry, proxy: Proxy) -> None:
    layout = Layout()
    tars = [layer({name: name.encode()}) for name in ("denied", "given")]
    stored = [layout.blob("application/vnd.oci.image.layer.v1.tar", tar) for tar in tars]
    push(layout.list(layout.image(tars, stored=stored), "1"), server)
    denied, given = (str(descriptor["digest"]) for descriptor in stored)
    proxy.always = {denied: status(307, Location=f"http://{proxy.host}/storage/x"), "/storage/": status(403)}
    mounted = imgfs.mount(proxy.image(), "--timeout", "2")
    imgfs.log_is_quiet = False
    with pytest.raises(OSError, match="Input/output"):
        _blob(mounted, denied).read_bytes()
    assert _blob(mounted, given).read_bytes() == tars[1]


def _blob(mounted: Path, digest: str) -> Path:
    return mounted / "blobs" / digest.replace(":", "/")


@pytest.mark.parametrize(
    ("size", "code", "message"),
    [
        (1001, 5, f"has 1001 bytes in the registry, the manifest says {SIZE}"),
        (SIZE, 0, ""),
    ],
)
def test_the_body_of_a_refused_range_is_not_waited_for(
    imgfs: Bench, proxy: Proxy, blob: str, size: int, *, code: int, message: str
) -> None:
    refusal = {"Content-Length": str(size), "Content-Range": f"bytes */{size}"}  # and no body, as docker-registry does
    proxy.faults[blob] = [cut(1000), lambda _, __: Reply(416, refusal, b"")]
    began = time.monotonic()
    status_, error = read(imgfs, proxy.image(), "--timeout", "20")
    assert (status_, message in error) == (code, True), error
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (flip(10), 6, "the manifest 1 of team/app has the digest"),
        (body(b"x" * ((4 << 20) + 1)), 5, "the manifest 1 has more than 4194304 bytes"),
        (headers(Docker_Content_Digest=f"sha256:{'0' * 64}"), 6, "has the digest"),
        (status(404), 4, "has no team/app:1: 404 Not Found"),
    ],
)
def test_a_manifest_that_is_wrong_is_an_error(
    imgfs: Bench, proxy: Proxy, blob: str, fault: Fault, *, code: int, message: str
) -> None:
    assert blob
    proxy.always["manifests/"] = fault
    status_, error = read(imgfs, proxy.image(), "--timeout", "2")
    assert (status_, message in error) == (code, True), error


def test_a_config_that_is_wrong_is_asked_for_twice(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    assert blob
    assert read(imgfs, proxy.image()) == (0, "")
    manifest, config = proxy.requests()[:2]
    proxy.always[config.replace("GET blobs/", "blobs/sha256:")] = flip(1)
    status_, error = read(imgfs, proxy.image())
    assert (status_, "has the digest" in error) == (6, True), error
    assert proxy.requests() == [manifest, config, config]


def test_a_manifest_that_decompresses_to_too_much_is_refused(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    assert blob
    bomb = compressed(bytes(64 << 20), "gzip")
    proxy.always["manifests/"] = status(200, bomb, Content_Encoding="gzip")
    status_, error = read(imgfs, proxy.image())
    assert (status_, "more than 4194304 bytes" in error) == (5, True), error


def test_a_stalled_registry_is_an_error_within_the_timeout_and_used_again_later(
    imgfs: Bench, proxy: Proxy, blob: str
) -> None:
    mounted = imgfs.mount(proxy.image(), "--timeout", "2")
    go = threading.Event()
    proxy.always[blob] = stall(1000, go)
    began, failed = time.monotonic(), []

    def look() -> None:
        try:
            (mounted / "rootfs" / "small").read_bytes()
        except OSError as error:
            failed.append((error.errno, time.monotonic() - began))

    readers = [threading.Thread(target=look) for _ in range(5)]
    for reader in readers:
        reader.start()
    time.sleep(0.2)
    asked = time.monotonic()
    assert "rootfs" in os.listdir(mounted)
    assert (mounted / "config").read_bytes().startswith(b"{")
    assert (mounted / "blobs" / "sha256" / blob.rpartition(":")[2]).stat().st_size == SIZE
    assert time.monotonic() - asked < 1
    for reader in readers:
        reader.join(10)
    assert [number for number, _ in failed] == [errno.EIO] * 5
    assert all(2 <= after < 4 for _, after in failed)
    go.set()
    proxy.always.clear()
    _until_read(mounted / "rootfs" / "small", b"small", 5)
    imgfs.log_is_quiet = False
    assert "sends nothing" in imgfs.log.read_text() or "timed out" in imgfs.log.read_text()


def test_however_many_look_up_names_all_get_the_error_in_time(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    mounted = imgfs.mount(proxy.image(), "--timeout", "2")
    imgfs.log_is_quiet = False
    go = threading.Event()
    proxy.always[blob] = stall(1000, go)
    began, failed = time.monotonic(), []

    def look(number: int) -> None:
        try:
            (mounted / "rootfs" / f"{number}").stat()
        except OSError as error:
            failed.append((error.errno, time.monotonic() - began))

    readers = [threading.Thread(target=look, args=(number,)) for number in range(500)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    go.set()
    assert [number for number, _ in failed] == [errno.EIO] * 500
    assert max(after for _, after in failed) < 5  # a second timeout would begin 2 s after the first, and end at 6 s


def test_a_mount_that_waits_for_a_registry_is_unmounted_at_once(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    mounted = imgfs.mount(proxy.image())
    go = threading.Event()
    proxy.always[blob] = stall(1000, go)

    def look() -> None:
        with pytest.raises(OSError, match=r"not connected|abort"):
            (mounted / "rootfs" / "small").read_bytes()

    reader = threading.Thread(target=look)
    reader.start()
    time.sleep(0.5)
    pid = imgfs.serving(mounted)
    os.kill(pid, 15)
    began = time.monotonic()
    reader.join(10)
    while imgfs.processes():
        time.sleep(0.01)
        assert time.monotonic() - began < 5
    go.set()


def test_a_mount_that_only_a_killed_reader_waits_for_is_unmounted(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    mounted = imgfs.mount(proxy.image())
    go = threading.Event()
    proxy.always[blob] = stall(1000, go)
    proxy.requests()
    reader = subprocess.Popen(["cat", mounted / "rootfs" / "small"], stderr=subprocess.DEVNULL, cwd=mounted)
    until(proxy.requests, "the reader waits for the layer")
    with (mounted / "config").open():
        reader.kill()
        until(lambda: has_killed_waiter(mount_on(mounted)), "the reader waits although it was killed")
        assert imgfs.run("umount", mounted).status == 9  # somebody else is there, too
    assert imgfs.run("umount", mounted) == Finished(0, "", "")
    assert not os.path.ismount(mounted)
    assert reader.poll() is None
    go.set()
    reader.wait(10)
    until(lambda: not imgfs.processes(), "the mount has ended")


def test_a_killed_reader_of_another_mount_makes_no_unmount_lazy(imgfs: Bench, proxy: Proxy, blob: str) -> None:
    awaited, mounted = imgfs.mount(proxy.image()), imgfs.mount(proxy.image(), at=imgfs.mountpoint("other"))
    go = threading.Event()
    proxy.always[blob] = stall(1000, go)
    proxy.requests()
    reader = subprocess.Popen(["cat", awaited / "rootfs" / "small"], stderr=subprocess.DEVNULL, cwd=awaited)
    until(proxy.requests, "the reader waits for the layer")
    reader.kill()
    until(lambda: has_killed_waiter(mount_on(awaited)), "the reader waits although it was killed")
    assert not has_killed_waiter(mount_on(mounted))
    with (mounted / "config").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)  # it is in use, by nobody that can be named
    assert imgfs.run("umount", mounted).status == 9
    mapped.close()
    assert imgfs.run("umount", mounted) == Finished(0, "", "")
    with tmpfs(awaited / "blobs"):
        assert imgfs.run("umount", awaited).status == 9
    assert imgfs.run("umount", awaited) == Finished(0, "", "")
    go.set()
    reader.wait(10)
    until(lambda: not imgfs.processes(), "the mounts have ended")


def mount_on(mountpoint: Path) -> Mount:
    found = mount_at(str(mountpoint))
    assert found is not None
    return found


def test_readers_that_wait_for_a_registry_do_not_hold_up_those_of_the_disk(
    imgfs: Bench, server: Registry, proxy: Proxy
) -> None:
    layout = Layout()
    large = random.Random(4).randbytes(64 << 20)
    stored = [layout.blob("application/octet-stream", data) for data in (large, DATA)]
    push(layout.list(layout.image([], config=layout.blob("application/x", b"{}"), stored=stored), "1"), server, "a/b:1")
    done = imgfs.run("mount", "-q", "--log-file", imgfs.log, proxy.image("a/b:1"), imgfs.mountpoint())
    assert (done.status, done.err) == (0, "")
    blobs = imgfs.folder / "mnt" / "blobs" / "sha256"
    waiting, here = (blobs / descriptor["digest"][7:] for descriptor in stored)
    assert here.read_bytes() == DATA
    go = threading.Event()
    proxy.always[f"blobs/{stored[0]['digest']}"] = stall(1000, go)
    readers = [threading.Thread(target=_read_at, args=(waiting, number << 19)) for number in range(100)]
    for reader in readers:
        reader.start()
    until(proxy.requests, "the blob is asked for")
    time.sleep(1)
    _drop_pages(imgfs, here)
    read: list[bytes] = []
    threading.Thread(target=lambda: read.append(here.read_bytes()), daemon=True).start()
    try:
        until(lambda: read == [DATA], "a blob that is here is read", 5)
    finally:
        go.set()
        for reader in readers:
            reader.join()


def _read_at(path: Path, offset: int) -> None:
    with path.open("rb", buffering=0) as file:
        os.pread(file.fileno(), 4096, offset)


def _drop_pages(imgfs: Bench, shown: Path) -> None:
    """Drop the pages of a blob: those of the mount, and those of the file in the cache, once that is on the disk."""
    stored = until(lambda: list(imgfs.cache.glob(f"blobs/*{shown.name}/blob")), "the blob is cached")[0]
    for path in (stored, shown):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor) if path == stored else None
        drop_from_cache(descriptor)
        os.close(descriptor)


def _until_read(path: Path, data: bytes, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            assert path.read_bytes() == data
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return
