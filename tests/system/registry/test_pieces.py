"""Layers in zstd:chunked and eStargz are read piece by piece, and show what whole layers show."""

import contextlib
import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.changesets import About, changeset, file, folder, hard_link, symlink, whiteout
from tests.support.chunked_layers import Chunked, Json, estargz, zstd_chunked
from tests.support.erofs_mounts import need_kernel_mounts, until_kernel
from tests.support.fault_proxy import Asked, Proxy, Reply, flip, status
from tests.support.file_systems import tmpfs
from tests.support.folders import new_folder
from tests.support.layouts import Layout
from tests.support.lazy_images import by_ctr_remote, by_skopeo, of_layers
from tests.support.mounts import Bench, the_mount, tree
from tests.support.registries import Registry, push
from tests.system.registry.test_images import everything

WRITERS: Mapping[str, Callable[[bytes], Chunked]] = {"zstd-chunked": zstd_chunked, "estargz": estargz}
DATA = random.Random(1).randbytes(300_000)
BASE = changeset(
    file("unread", random.Random(2).randbytes(300_000)),
    folder("etc/", About(mode=0o755, mtime_ns=1_600_000_000 * 10**9)),
    file("etc/motd", b"hello\n"),
    file("etc/gone", b"1"),
    file("data", DATA + bytes(100_000), About(xattrs={b"user.x": b"\0\xff"}, uid=3_000_000)),
    file("n" * 150, b"long", About(mode=0o4755)),
    hard_link("again", "data"),
    symlink("link", "./" * 60 + "etc/motd"),
)
TOP = changeset(folder("app/"), file("app/config", b"config"), whiteout("etc/gone"))


@pytest.fixture(name="work")
def work_fixture() -> Iterator[Path]:
    """Give a folder below /var/tmp."""
    path = new_folder("lazy")
    yield path
    shutil.rmtree(path)


def _equal(imgfs: Bench, server: Registry, layout: Layout) -> None:
    """Assert that the image in the registry is mounted as *layout* is; leave the mounts in ``here`` and ``there``."""
    push(layout, server, "same/image:1")
    layout.write(str(imgfs.folder / "layout"))
    here = imgfs.mount(f"oci:{imgfs.folder}/layout:1", at=imgfs.mountpoint("here"))
    there = imgfs.mount(server.image("same/image:1"), at=imgfs.mountpoint("there"))
    for part in ("layers", "rootfs"):
        assert tree(there / part) == tree(here / part)
        assert everything(there / part) == everything(here / part)
    largest = max(layout.files, key=lambda path: len(layout.files[path])).rpartition("/")[2][:8]
    asked = [line for line in server.requests() if largest in line]
    assert asked == [f"GET blobs/{largest} 206"] * len(asked)
    assert tree(there) == tree(here)
    assert everything(there) == everything(here)


@pytest.mark.parametrize("name", WRITERS)
def test_a_mount_from_a_registry_equals_the_mount_of_the_layout(imgfs: Bench, server: Registry, name: str) -> None:
    _equal(imgfs, server, of_layers(WRITERS[name](BASE), WRITERS[name](TOP)))


def test_what_skopeo_writes_is_shown_as_the_layout_is(
    imgfs: Bench, server: Registry, work: Path, lazy_root: Path
) -> None:
    layout = Layout()
    _equal(imgfs, server, by_skopeo(lazy_root, work, layout.list(layout.image([BASE, TOP]), "1")))


def test_what_ctr_remote_writes_is_shown_as_the_layout_is(
    imgfs: Bench, server: Registry, work: Path, lazy_root: Path
) -> None:
    layout = Layout()
    _equal(imgfs, server, by_ctr_remote(lazy_root, work, layout.list(layout.image([BASE, TOP]), "1")))


@pytest.fixture(name="layers", params=WRITERS)
def layers_fixture(request: pytest.FixtureRequest) -> tuple[Chunked, Chunked]:
    """Two layers."""
    write = WRITERS[request.param]
    return write(BASE), write(TOP)


def _short(layer: Chunked) -> str:
    return hashlib.sha256(layer.blob).hexdigest()[:8]


def _asked(proxy: Proxy) -> list[str]:
    """Return what was asked for since the last call, without the ranges."""
    return [" ".join(line.split()[:2]) for line in proxy.requests()]


def test_the_first_byte_takes_four_requests_and_a_second_file_one(
    imgfs: Bench, server: Registry, proxy: Proxy, layers: tuple[Chunked, Chunked]
) -> None:
    push(of_layers(*layers), server, "team/app:1")
    rootfs = imgfs.mount(proxy.image()) / "rootfs"
    assert len(_asked(proxy)) == 2
    base, top = (f"GET blobs/{_short(layer)}" for layer in layers)
    assert (rootfs / "app" / "config").read_bytes() == b"config"
    asked = _asked(proxy)
    assert set(asked) == {top}  # the top layer alone
    assert len(asked) <= 2
    with (rootfs / "data").open("rb") as file:
        assert file.read(5) == DATA[:5]
    assert _asked(proxy) == [base, base]
    assert (rootfs / ("n" * 150)).read_bytes() == b"long"
    assert len(_asked(proxy)) <= 1
    assert (rootfs / "data").read_bytes() == DATA + bytes(100_000)
    in_tmpdir = [name for name in imgfs.made_files(rootfs.parent) if name.startswith(str(imgfs.spool))]
    assert len(in_tmpdir) == 2  # plain pieces: all that is in the cache counts there
    imgfs.end_mounts()
    _asked(proxy)
    again = imgfs.mount(proxy.image(), at=imgfs.mountpoint("again")) / "rootfs"
    assert sorted(path.name for path in (again / "etc").iterdir()) == ["motd"]
    assert len(_asked(proxy)) == 1  # the HEAD of the tag: the tables of contents are cached
    assert (again / "app" / "config").read_bytes() == b"config"
    assert (again / "data").read_bytes() == DATA + bytes(100_000)
    assert _asked(proxy) == []  # what was read is cached, too
    assert (again / "etc" / "motd").read_bytes() == b"hello\n"
    assert len(_asked(proxy)) == 1
    proxy.always[""] = status(500)
    imgfs.end_mounts()
    offline = imgfs.mount(proxy.image(), "--offline", at=imgfs.mountpoint("offline")) / "rootfs"
    assert (offline / "data").read_bytes() == DATA + bytes(100_000)
    assert (offline / "unread").stat().st_size == 300_000
    with pytest.raises(OSError, match="Input/output error"):
        (offline / "unread").read_bytes()
    imgfs.log_is_quiet = False


def test_what_verifies_a_layer_is_told_until_it_is_whole(imgfs: Bench, server: Registry) -> None:
    lazy, plain = estargz(BASE), zstd_chunked(TOP)
    layout = of_layers(lazy, plain)
    push(layout, server, "team/verified:1")

    def verified(mounted: Path) -> list[str]:
        paths = (mounted, mounted / "layers" / "0", mounted / "layers" / "1")
        return [os.getxattr(path, "user.imgfs.verified").decode() for path in paths]

    mounted = imgfs.mount(server.image("team/verified:1"))
    assert verified(mounted) == ["toc", "toc", "tar"]
    assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    assert verified(mounted) == ["toc", "toc", "tar"]
    assert (mounted / ".uncompressed" / "0" / "tar").read_bytes() == lazy.tar
    assert verified(mounted) == ["tar", "tar", "tar"]
    assert (mounted / "rootfs" / "data").read_bytes() == DATA + bytes(100_000)


def test_strict_fetches_the_whole_layer_first(imgfs: Bench, server: Registry, layers: tuple[Chunked, Chunked]) -> None:
    push(of_layers(*layers), server, "team/strict:1")
    mounted = imgfs.mount(server.image("team/strict:1"), "--strict")
    server.requests()
    assert (mounted / "rootfs" / "app" / "config").read_bytes() == b"config"
    assert server.requests() == [f"GET blobs/{_short(layers[1])} 200"]
    assert "user.imgfs.verified" not in os.listxattr(mounted)
    assert imgfs.run("cat", "--strict", f"{server.image('team/strict:1')}:/etc/motd").out == "hello\n"


def test_a_bit_that_is_flipped_once_is_fetched_again_and_one_that_stays_is_an_error(
    imgfs: Bench, server: Registry, proxy: Proxy, layers: tuple[Chunked, Chunked]
) -> None:
    digest = push(of_layers(*layers), server, "team/flips:1")
    mounted = imgfs.mount(proxy.image(f"team/flips@{digest}"))
    assert (mounted / "rootfs" / "app" / "config").read_bytes() == b"config"
    key = hashlib.sha256(layers[0].blob).hexdigest()
    assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    proxy.always[key] = _flip_all
    with (mounted / "layers" / "0" / "data").open("rb") as file, pytest.raises(OSError, match="Input/output error"):
        file.read(10)
    assert "do not have the digest sha256:" in imgfs.log.read_text()
    del proxy.always[key]
    time.sleep(2)  # as long as readers get that error
    proxy.faults[key] = [flip(10)]
    assert (mounted / "rootfs" / "data").read_bytes() == DATA + bytes(100_000)
    imgfs.log_is_quiet = False


def _flip_all(_: Asked, reply: Reply) -> Reply:
    reply.body = bytes(255 - byte for byte in reply.body)
    return reply


def test_a_table_of_contents_that_is_damaged_or_refused_costs_only_the_whole_layer(
    imgfs: Bench, server: Registry, proxy: Proxy, layers: tuple[Chunked, Chunked]
) -> None:
    push(of_layers(*layers), server, "team/damaged:1")
    key = hashlib.sha256(layers[1].blob).hexdigest()
    proxy.faults[key] = [flip(-200), flip(-200)]
    done = imgfs.run("cat", "-v", f"{proxy.image('team/damaged:1')}:/app/config")
    assert (done.status, done.out) == (0, "config")
    assert "is fetched whole, although it is annotated as" in done.err
    proxy.ignores_range = True
    assert imgfs.run("cat", "--no-cache", f"{proxy.image('team/damaged:1')}:/etc/motd").out == "hello\n"


def test_a_layer_that_is_not_what_its_table_says_is_an_error_once_it_is_whole(imgfs: Bench, server: Registry) -> None:
    def lie(toc: Json) -> None:
        for entry in toc["entries"]:
            entry.pop("chunkType", None)
            if entry["name"] == "data" and entry.get("chunkOffset") == 5000:
                entry["chunkType"] = "zeros"

    push(of_layers(zstd_chunked(BASE, lie)), server, "team/liar:1")
    imgfs.log_is_quiet = False
    mounted = imgfs.mount(server.image("team/liar:1"))
    with (mounted / "rootfs" / "data").open("rb") as file:
        assert os.pread(file.fileno(), 4000, 0) == DATA[:4000]
    assert (mounted / ".uncompressed" / "0" / "tar").read_bytes() == BASE
    with pytest.raises(OSError, match="Input/output error"):
        (mounted / "rootfs" / "etc" / "motd").read_bytes()
    assert "its table of contents and its tar differ at data" in imgfs.log.read_text()
    assert (mounted / "layers" / "0" / "etc" / "motd").read_bytes() == b"hello\n"  # its tree was not made before
    imgfs.end_mounts()
    assert (imgfs.mount(server.image("team/liar:1"), at=imgfs.mountpoint("next")) / "rootfs" / "data").read_bytes() == (
        DATA + bytes(100_000)
    )


def test_a_size_that_is_not_that_of_the_layer_is_one_line(imgfs: Bench, server: Registry) -> None:
    lazy, layout = estargz(BASE), Layout()
    size = len(lazy.blob)
    stored = layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", lazy.blob, annotations=lazy.annotations)
    layout.list(layout.image([lazy.tar], stored=[stored | {"size": 3 * size}]), "1")
    push(layout, server, "team/size:1")
    done = imgfs.run("cat", "--progress", "none", f"{server.image('team/size:1')}:/etc/motd")
    reason = f"has {size} bytes in the registry, the manifest says {3 * size}"
    assert (done.status, done.err) == (5, f"imgfs: {server.host}/team/size: {stored['digest']} {reason}\n")
    assert server.requests()[-1].endswith(" 416")


def test_the_kernel_takes_over_when_the_layers_are_here(
    imgfs: Bench, server: Registry, layers: tuple[Chunked, Chunked]
) -> None:
    need_kernel_mounts()
    push(of_layers(*layers), server, "team/kernel:1")
    imgfs.driver = ""
    mounted = imgfs.mount(server.image("team/kernel:1"))
    assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    shown = tree(mounted / "rootfs")
    assert the_mount(mounted).file_system == "fuse.imgfs"
    for path in (mounted / "blobs" / "sha256").iterdir():
        path.read_bytes()
    until_kernel(mounted, 20)
    assert tree(mounted / "rootfs") == shown
    imgfs.end_mounts()
    erofs = imgfs.mount(server.image("team/kernel:1"), "--driver", "erofs", at=imgfs.mountpoint("erofs"))
    assert tree(erofs / "rootfs") == shown


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_keeps_nobody_from_the_whole_layer(
    imgfs: Bench, server: Registry, write: Callable[[bytes], Chunked]
) -> None:
    layer = write(changeset(*(file(f"f{number}", bytes([number % 251]) * 3000) for number in range(500))))
    push(of_layers(layer), server, "team/full:1")
    with tmpfs(imgfs.mountpoint("small"), "8m") as small:
        mounted = imgfs.mount(server.image("team/full:1"), "--tmpdir", small)
        assert len(os.listdir(mounted / "rootfs")) >= 500
        assert (mounted / "rootfs" / "f7").read_bytes() == b"\7" * 3000
        with contextlib.suppress(OSError), (small / "rest").open("wb", buffering=0) as rest:
            while rest.write(bytes(4096)):
                pass
        descriptors: list[int] = []
        for _ in range(3):
            whole = (mounted / ".uncompressed" / "0" / "tar").read_bytes()
            assert len(whole) == len(layer.tar)
            held = len(os.listdir(f"/proc/{imgfs.serving(mounted)}/fd"))
            descriptors.append(held)
        assert descriptors[0] == max(descriptors)
        imgfs.end_mounts()
