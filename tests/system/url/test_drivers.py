"""``--driver``: which archives at URLs the kernel mounts, and what imgfs says of the others."""

import pytest

from tests.support.builders import Archive, compressed, layer
from tests.support.erofs_mounts import by_kernel, kind, need_kernel_mounts
from tests.support.file_server import FileServer
from tests.support.mounts import Bench, mounted_below

DATA = Archive(layers=[layer({"etc/random": bytes(1_000_000)}), layer({"etc/motd": b"hello\n"})]).data()
WHY = "is an archive at a URL, which is served by FUSE only; download it, or use --driver fuse"


@pytest.fixture(name="url")
def url_fixture(imgfs: Bench, server: FileServer) -> str:
    """Give the URL of an archive; skip where the kernel mounts no EROFS, and mount by the default driver."""
    need_kernel_mounts()
    imgfs.driver = ""
    return server.put("/app.tar", DATA)


def test_the_log_says_why_fuse_serves_an_archive_at_a_url(imgfs: Bench, url: str) -> None:
    mountpoint = imgfs.mount(url, "--index")
    assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    assert kind(mountpoint) == "fuse.imgfs"
    log = imgfs.log.read_text()
    assert f"{url} is mounted by FUSE: {url} {WHY}\n" in log
    assert "for now" not in log


def test_the_driver_erofs_refuses_it_before_it_fetches_a_layer(imgfs: Bench, server: FileServer, url: str) -> None:
    done = imgfs.run("mount", "--driver", "erofs", "--progress", "none", f"{url}?signature=secret", imgfs.mountpoint())
    assert (done.status, done.out, done.err) == (9, "", f"imgfs: {url}?… {WHY}\n")
    assert server.count()[1] < 200_000
    assert mounted_below(imgfs.folder) == []


def test_one_that_is_compressed_as_a_whole_is_mounted_by_the_kernel(imgfs: Bench, server: FileServer) -> None:
    need_kernel_mounts()
    url = server.put("/app.tgz", compressed(DATA, "gzip"))
    assert (by_kernel(imgfs, url) / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
