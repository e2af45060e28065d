"""A registry that is down: what is cached stays usable, what is not is an error that says so."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import layer
from tests.support.fault_proxy import Proxy, fault_proxy, of_head, status
from tests.support.layouts import Layout
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.registries import Registry, free_port, push, registry
from tests.support.terminals import Terminal


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> Path:
    """Return the storage of a registry that has the image team/app:1."""
    layout = Layout()
    with registry(tmp_path) as made:
        push(layout.list(layout.image(compression="gzip"), "1"), made)
    return tmp_path


def test_a_cached_image_is_mounted_although_the_registry_is_down(imgfs: Bench, store: Path) -> None:
    with registry(store) as made:
        assert imgfs.run("cat", f"{made.image()}:/etc/motd").out == "hello\n"
    done = imgfs.run("cat", f"{made.image()}:/etc/motd")
    assert (done.status, done.out) == (0, "hello\n")
    assert done.err == (
        f"imgfs: warning: {made.image()}: using the cached image, which may be old: "
        f"cannot reach the registry {made.host}: Connection refused\n"
    )
    done = imgfs.run("cat", "--offline", f"{made.image()}:/etc/motd")
    assert (done.status, done.out, done.err) == (0, "hello\n", "")


@pytest.fixture(name="moved")
def moved_fixture(imgfs: Bench, store: Path) -> Iterator[Proxy]:
    """Give a proxy whose image team/app:1 is cached, and has another /etc/motd in the registry since then."""
    with registry(store) as made, fault_proxy(made.host) as proxy:
        assert imgfs.run("cat", f"{proxy.image()}:/etc/motd").out == "hello\n"
        layout = Layout()
        push(layout.list(layout.image([layer({"etc/motd": b"moved\n"})], "gzip"), "1"), made)
        yield proxy


@pytest.mark.parametrize("where", ["/manifests/1", "/manifests/sha256:", "/blobs/"])
def test_a_refresh_that_fails_at_any_request_keeps_the_cached_image(imgfs: Bench, moved: Proxy, where: str) -> None:
    moved.always[where] = status(429, Retry_After="3600")
    done = imgfs.run("cat", f"{moved.image()}:/etc/motd")
    assert (done.status, done.out) == (0, "hello\n")
    assert done.err.startswith(f"imgfs: warning: {moved.image()}: using the cached image, which may be old: ")
    mountpoint = imgfs.mountpoint()
    assert imgfs.run("mount", "--log-file", imgfs.log, moved.image(), mountpoint).status == 0
    assert (mountpoint / "layers" / "2" / "etc" / "motd").read_bytes() == b"hello\n"
    imgfs.end_mounts()
    done = imgfs.run("cat", "--offline", f"{moved.image()}:/etc/motd")
    assert (done.status, done.out, done.err) == (0, "hello\n", "")
    del moved.always[where]
    assert imgfs.run("cat", f"{moved.image()}:/etc/motd").out == "moved\n"
    assert imgfs.run("cat", "--offline", f"{moved.image()}:/etc/motd").out == "moved\n"


@pytest.mark.parametrize("where", ["/v2/", "/manifests/1", "/manifests/sha256:"])
def test_a_page_instead_of_a_manifest_is_a_failure_and_not_cached(imgfs: Bench, moved: Proxy, where: str) -> None:
    moved.always[where] = status(200, b"<html>", Content_Type="text/html")
    done = imgfs.run("cat", f"{moved.image()}:/etc/motd")
    assert (done.status, done.out) == (0, "hello\n")
    assert f"may be old: the registry {moved.host} sends text/html, not a manifest, for team/app" in done.err
    assert "html" not in imgfs.run("cache", "list", "--json").out


def test_a_new_image_that_cannot_be_cached_does_not_replace_the_cached_one(imgfs: Bench, moved: Proxy) -> None:
    assert imgfs.run("cat", "--cache-size", "1", f"{moved.image()}:/etc/motd").out == "moved\n"
    done = imgfs.run("cat", "--offline", f"{moved.image()}:/etc/motd")
    assert (done.status, done.out, done.err) == (0, "hello\n", "")


@pytest.mark.parametrize("code", [400, 403, 404, 405, 501])
def test_a_registry_that_refuses_head_is_asked_by_get(imgfs: Bench, moved: Proxy, code: int) -> None:
    moved.always["/manifests/1"] = of_head(status(code))
    moved.requests()
    done = imgfs.run("cat", f"{moved.image()}:/etc/motd")
    assert (done.status, done.out, done.err) == (0, "moved\n", "")
    assert moved.requests()[:2] == ["HEAD manifests/1", "GET manifests/1"]
    assert imgfs.run("cat", "--offline", f"{moved.image()}:/etc/motd").out == "moved\n"


def test_a_storage_that_refuses_head_is_asked_by_get(imgfs: Bench, moved: Proxy) -> None:
    moved.always["/manifests/1"] = of_head(status(307, Location=f"http://{moved.host}/signed-for-get"))
    moved.always["/signed-for-get"] = status(403)
    done = imgfs.run("cat", f"{moved.image()}:/etc/motd")
    assert (done.status, done.out, done.err) == (0, "moved\n", "")


@pytest.mark.parametrize("where", ["/manifests/1", "/blobs/"])
def test_a_storage_that_denies_access_is_an_error_but_offline(imgfs: Bench, moved: Proxy, where: str) -> None:
    moved.always[where] = status(307, Location=f"http://{moved.host}/stored")
    moved.always["/stored"] = status(403)
    done = imgfs.run("cat", f"{moved.image()}:/etc/motd")
    assert (done.status, done.out) == (4, "")
    assert f"the storage {moved.host} answers 403 Forbidden" in done.err
    assert imgfs.run("cat", "--offline", f"{moved.image()}:/etc/motd").out == "hello\n"


def test_an_image_that_the_registry_has_no_more_is_an_error_but_offline(imgfs: Bench, moved: Proxy) -> None:
    moved.always["/manifests/1"] = status(404)
    done = imgfs.run("cat", f"{moved.image()}:/etc/motd")
    assert (done.status, done.out) == (4, "")
    assert done.err == (
        f"imgfs: the registry {moved.host} has no team/app:1: 404 Not Found; --offline uses the cached image\n"
    )
    assert imgfs.run("cat", "--offline", f"{moved.image()}:/etc/motd").out == "hello\n"


def test_an_image_that_is_not_cached_needs_its_registry(imgfs: Bench) -> None:
    image = f"docker://localhost:{free_port()}/team/app:1"
    done = imgfs.run("mount", image, imgfs.mountpoint())
    host = image[len("docker://") :].partition("/")[0]
    assert (done.status, done.err) == (3, f"imgfs: cannot reach the registry {host}: Connection refused\n")
    done = imgfs.run("inspect", "--offline", image)
    assert (done.status, done.err) == (4, f"imgfs: {image} is not in the cache, and --offline asks no registry\n")
    digest = f"sha256:{'0' * 64}"
    done = imgfs.run("inspect", "--offline", image.replace(":1", f"@{digest}"))
    expected = f"imgfs: the manifest {digest} is not in the cache, and --offline asks no registry\n"
    assert (done.status, done.err) == (4, expected)


def test_a_mount_outlives_its_registry_and_uses_it_again(imgfs: Bench, store: Path) -> None:
    imgfs.log_is_quiet = False
    with registry(store) as made:
        mounted = imgfs.mount(made.image())
        assert (mounted / "layers" / "2" / "etc" / "motd").read_bytes() == b"hello\n"
    assert (mounted / "layers" / "2" / "etc" / "motd").read_bytes() == b"hello\n"
    with pytest.raises(OSError, match="Input/output error"):
        (mounted / "layers" / "0" / "etc" / "os-release").read_bytes()
    assert "cannot reach the registry" in imgfs.log.read_text()
    with registry(store, port=int(made.host.rpartition(":")[2])):
        until(lambda: _reads(mounted / "layers" / "0" / "etc" / "os-release"), "the layer is read", 5)
        assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"


def test_the_cache_lists_and_removes_blobs_of_registries(imgfs: Bench, store: Path) -> None:
    with registry(store) as made:
        assert imgfs.run("cat", f"{made.image()}:/etc/motd").out == "hello\n"
        listed = imgfs.run("cache", "list").out
        assert f"docker://{made.host}/team/app (application/vnd.oci.image.layer.v1.tar+gzip)" in listed
        assert f"{made.host}/team/app:1\n" in listed
        for columns, place in ((80, f"  docker://{made.host}"), (60, made.host[-6:])):
            terminal = Terminal(imgfs, "cache", "list", columns=columns)
            assert terminal.end() == 0
            assert f"{place}/team/app\r\n" in terminal.seen
        assert imgfs.run("cache", "prune", "--all").status == 0
        made.requests()
        assert imgfs.run("cat", f"{made.image()}:/etc/motd").out == "hello\n"
        assert made.requests()[0] == "GET manifests/1 200"


def test_a_damaged_cached_blob_is_fetched_again(imgfs: Bench, store: Path) -> None:
    with registry(store) as made:
        assert imgfs.run("cat", f"{made.image()}:/etc/motd").out == "hello\n"
        for path in imgfs.cache.glob("blobs/*/*"):
            if not path.name.endswith(".seal"):
                path.write_bytes(path.read_bytes()[:-1] + b"x")
        done = imgfs.run("cat", f"{made.image()}:/etc/motd")
        assert (done.status, done.out) == (0, "hello\n")
        assert "was altered" in done.err


def _reads(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


@pytest.mark.parametrize("by", ["tag", "digest"])
@pytest.mark.parametrize("is_new", [True, False])
def test_what_a_mount_needs_stays_in_the_cache(imgfs: Bench, server: Registry, *, by: str, is_new: bool) -> None:
    layout = Layout()
    layout.list(layout.image(compression="gzip"), "1")
    push(layout, server)
    image = server.image() + (f"@{layout.entries[0]['digest']}" if by == "digest" else "")
    if not is_new:
        assert imgfs.run("ls", image).status == 0
    mounted = imgfs.mount(image)
    os.listdir(mounted / "rootfs")
    until(lambda: imgfs.run("inspect", "--offline", image).status == 0, "the documents are cached")
    assert imgfs.run("cache", "prune", "--all").status == 0
    assert imgfs.run("ls", "--offline", image).status == 0
    assert imgfs.run("umount", mounted).status == 0
    imgfs.run("cache", "prune", "--all")
    assert imgfs.run("ls", "--offline", image).status == 4
