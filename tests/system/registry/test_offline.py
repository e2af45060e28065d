"""A registry that is down: what is cached stays usable, what is not is an error that says so."""

from pathlib import Path

import pytest

from tests.support.layouts import Layout
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.registries import free_port, push, registry


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
