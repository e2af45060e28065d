"""docs/recipes.md: what is put on top of a mount, by the real programs, for each driver."""

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.changesets import About, changeset, file, folder, whiteout
from tests.support.erofs_mounts import need_kernel_mounts, until_kernel
from tests.support.folders import new_folder
from tests.support.idmaps import idmapped
from tests.support.mounts import Bench, the_mount, tree
from tests.support.processes import mounts_at, until
from tests.support.requirements import ROOT, need

_PROGRAMS = ("/bin/sh", "/bin/cat")
BASE = changeset(folder("etc"), file("etc/base", b"base\n"), file("etc/gone", b"gone\n"), file("data/a", b"a"))
TOP = changeset(whiteout("etc/gone"), file("etc/top", b"top\n", About(mode=0o640, uid=33, gid=7)))


@pytest.fixture(name="make", params=["fuse", "erofs"])
def mount_by_driver(request: pytest.FixtureRequest, imgfs: Bench) -> Callable[..., Path]:
    """Give a function that mounts an image of some layers by one of the drivers."""
    if request.param == "erofs":
        need_kernel_mounts()

    def make(*layers: bytes) -> Path:
        path = imgfs.folder / "image.tar.gz"
        path.write_bytes(gzip.compress(Archive(layers=layers).data(), 1))
        mountpoint = imgfs.mountpoint()
        done = imgfs.run("mount", "--driver", request.param, "--log-file", imgfs.log, path, mountpoint)
        assert done.status == 0, done.err
        return mountpoint

    return make


@pytest.fixture(name="mounted")
def two_layers(make: Callable[..., Path]) -> Path:
    """Give a mount of two small layers."""
    return make(BASE, TOP)


@contextmanager
def overlay(folder: Path, lower: str, *options: str) -> Iterator[Path]:
    """Mount an overlay of *lower* directories with a writable layer."""
    upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
    for path in (folder, upper, work, merged):
        path.mkdir()
    words = ",".join([f"lowerdir={lower}", f"upperdir={upper}", f"workdir={work}", *options])
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", words, merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


def test_a_root_file_system_is_writable_below_an_overlay(imgfs: Bench, mounted: Path) -> None:
    before = tree(mounted / "rootfs")
    with overlay(imgfs.folder / "first", f"{mounted}/rootfs") as merged:
        assert tree(merged) == before == {"etc": None, "etc/base": b"base\n", "etc/top": b"top\n", "data": None,
                                          "data/a": b"a"}  # fmt: skip
        with (merged / "etc" / "top").open("a") as changed:
            changed.write("more\n")
        about = (merged / "etc" / "top").stat()
        assert (about.st_mode & 0o777, about.st_uid, about.st_gid) == (0o640, 33, 7)
        (merged / "etc" / "base").unlink()
        (merged / "data" / "a").rename(merged / "b")
        with overlay(imgfs.folder / "second", str(merged)) as again:
            assert (again / "etc" / "top").read_bytes() == b"top\nmore\n"
            (again / "b").unlink()
        assert sorted(tree(merged)) == ["b", "data", "etc", "etc/top"]
        assert tree(mounted / "rootfs") == before


def test_layers_are_lower_directories_of_an_overlay(imgfs: Bench, mounted: Path) -> None:
    with overlay(imgfs.folder / "overlay", f"{mounted}/layers/1:{mounted}/layers/0") as merged:
        # Whiteouts are files, as in the layer: overlayfs expects devices.
        assert sorted(os.listdir(merged / "etc")) == [".wh.gone", "base", "gone", "top"]
        (merged / "new").touch()


def test_a_part_of_a_mount_is_mounted_elsewhere_and_outlives_it(imgfs: Bench, mounted: Path) -> None:
    elsewhere = imgfs.mountpoint("elsewhere")
    subprocess.run(["mount", "--bind", mounted / "rootfs" / "etc", elsewhere], check=True)
    try:
        assert imgfs.run("umount", mounted).status == 0
        assert tree(elsewhere) == {"base": b"base\n", "top": b"top\n"}
        assert the_mount(elsewhere).options >= {"ro", "nosuid", "nodev"}
    finally:
        subprocess.run(["umount", elsewhere], check=True)
    until(lambda: not imgfs.processes(), "the process ends with the last mount")


def test_owners_are_mapped_in_a_kernel_mount_and_not_with_fuse(imgfs: Bench, mounted: Path) -> None:
    elsewhere = imgfs.mountpoint("elsewhere")
    if the_mount(mounted).file_system != "erofs":
        with pytest.raises(OSError, match="Invalid argument"), idmapped(mounted / "rootfs", elsewhere, 100_000):
            pass
        return
    with idmapped(mounted / "rootfs", elsewhere, 100_000):
        owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (elsewhere / "etc").iterdir()}
        assert owners == {"base": (100_000, 100_000), "top": (100_033, 100_007)}
        assert (elsewhere / "etc" / "top").read_bytes() == b"top\n"


def _with_programs() -> bytes:
    """Return a layer with a shell and what it needs."""
    needed = set(_PROGRAMS)
    for program in _PROGRAMS:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        needed |= set(re.findall(r"(/\S+) \(0x", listed))
    files = [file(path[1:], Path(path).read_bytes(), About(mode=0o755)) for path in sorted(needed)]
    return changeset(*(folder(name) for name in ("proc", "sys", "dev", "etc", "run", "tmp")), *files)


@pytest.fixture(name="podman")
def podman_with_an_empty_store() -> Iterator[list[str]]:
    """Give the beginning of a command line of podman; nothing of its store is left."""
    need(ROOT, "podman", "runc")
    store = new_folder("podman")
    words = ["podman", f"--root={store}/root", f"--runroot={store}/run", f"--tmpdir={store}/tmp"]
    try:
        yield [*words, "--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--events-backend=none"]
    finally:
        for mount in mounts_at(store):
            subprocess.run(["umount", "-l", mount.path], check=False)
        shutil.rmtree(store)


def test_podman_runs_a_container_on_it_that_can_write(
    imgfs: Bench, make: Callable[..., Path], podman: list[str]
) -> None:
    mounted = make(_with_programs(), changeset(file("etc/motd", b"hello\n")))
    script = "cat /etc/motd; echo more >> /etc/motd; echo new > /new; cat /etc/motd /new"
    # A machine may forbid the limits that podman sets by default.
    limits = ["--ulimit=nofile=256:256", "--ulimit=nproc=256:256"]
    words = [*podman, "run", "--rm", "--network=none", *limits, "--rootfs", f"{mounted}/rootfs:O"]
    environment = imgfs.environment | {"TMPDIR": str(imgfs.folder)}
    done = subprocess.run(
        [*words, "/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "hello\nhello\nmore\nnew\n"), done.stderr
    assert tree(mounted / "rootfs")["etc/motd"] == b"hello\n"
    assert not (mounted / "rootfs" / "new").exists()


def test_with_fuse_alone_a_part_that_is_mounted_elsewhere_is_a_mount_of_the_image(imgfs: Bench, mounted: Path) -> None:
    elsewhere = imgfs.mountpoint("elsewhere")
    subprocess.run(["mount", "--bind", mounted / "rootfs", elsewhere], check=True)
    try:
        listed = [mount["mountpoint"] for mount in json.loads(imgfs.run("list", "--json").out)]
        both = [str(mounted), str(elsewhere)]
        fuse = the_mount(mounted).file_system != "erofs"
        assert [path for path in listed if path in both] == (both if fuse else both[:1])
    finally:
        subprocess.run(["umount", elsewhere], check=True)


def test_an_overlay_stays_on_fuse_when_the_kernel_takes_over(imgfs: Bench) -> None:
    need_kernel_mounts()
    path = imgfs.folder / "image.tar.gz"
    path.write_bytes(gzip.compress(Archive(layers=[BASE, TOP]).data(), 1))
    mountpoint = imgfs.mount(path, "--driver", "auto")
    with overlay(imgfs.folder / "overlay", f"{mountpoint}/rootfs") as merged:
        shown = tree(merged)
        until_kernel(mountpoint)
        assert tree(merged) == shown == tree(mountpoint / "rootfs")
        assert len(imgfs.processes()) == 1
    until(lambda: not imgfs.processes(), "the process ends with the overlay")
