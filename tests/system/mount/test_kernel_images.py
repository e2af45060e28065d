"""list, umount and mount where an image is mounted by the kernel."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fusefs.mount.kernel.attach import attach
from fusefs.mount.kernel.erofs import mount_erofs
from tests.support.builders import Archive
from tests.support.erofs_images import ErofsImage
from tests.support.erofs_mounts import mount_on, mounted_on, need_kernel_mounts
from tests.support.file_systems import tmpfs
from tests.support.mounts import Bench, Finished, mounted_below
from tests.support.requirements import need
from tests.support.slow_archive import SlowFile
from tests.support.users import reads_all, users_bench

__all__ = ["users_bench"]

IMAGE = ErofsImage(
    {b"config": b"{}"},
    xattrs={
        b"oci.id": b"sha256:0123456789abcdef",
        b"oci.platform": b"linux/amd64",
        b"imgfs.image": b"nginx:latest",
        b"imgfs.source": b"unix:///run/docker.sock",
        b"imgfs.since": b"2026-11-29T11:22:33Z",
    },
)
_PATIENCE = 3.0
"""Seconds for a command, whatever the disks do."""
OTHER = ErofsImage({b"config": b"{}"}, xattrs={b"imgfs.pid": b"1"})


@pytest.fixture(name="mountpoint")
def empty_mountpoint(imgfs: Bench) -> Path:
    """A directory of a bench."""
    need_kernel_mounts()
    return imgfs.mountpoint()


def _listed(imgfs: Bench) -> list[dict[str, Any]]:
    done = imgfs.run("list", "--json")
    assert (done.status, done.err) == (0, "")
    return [mount for mount in json.loads(done.out) if mount["mountpoint"].startswith(f"{imgfs.folder}/")]


def test_list_shows_it_with_its_driver(imgfs: Bench, mountpoint: Path) -> None:
    with mounted_on(mountpoint, IMAGE, "nginx"):
        assert _listed(imgfs) == [
            {
                "mountpoint": str(mountpoint),
                "image": "nginx:latest",
                "subdir": None,
                "id": "sha256:0123456789abcdef",
                "platform": "linux/amd64",
                "source": "unix:///run/docker.sock",
                "pid": None,
                "since": "2026-11-29T11:22:33Z",
                "bytesRead": None,
                "inUse": None,
                "driver": "erofs",
                "state": "mounted",
            }
        ]
        rows = imgfs.run("list", "--wide", TZ="UTC").out.splitlines()
        (row,) = (row.split() for row in rows if row.startswith(f"{mountpoint} "))
        assert row[1:] == [
            *("nginx:latest", "0123456789ab", "unix:///run/docker.sock", "-"),
            *("2026-11-29", "11:22:33", "-", "erofs", "mounted"),
        ]
        (row,) = (row.split() for row in imgfs.run("list").out.splitlines() if row.split()[1] == "nginx:latest")
        assert row[-3:] == ["-", "erofs", "mounted"]


def test_list_shows_neither_other_erofs_mounts_nor_covered_ones(imgfs: Bench, mountpoint: Path) -> None:
    with mounted_on(mountpoint, OTHER, "nginx"):
        assert _listed(imgfs) == []
    with mounted_on(mountpoint, IMAGE, "nginx"), tmpfs(mountpoint):
        assert _listed(imgfs) == []


@pytest.mark.parametrize("options", [[], ["-l"]])
def test_umount_takes_it_away(imgfs: Bench, mountpoint: Path, options: list[str]) -> None:
    with mounted_on(mountpoint, IMAGE, "nginx"):
        assert imgfs.run("umount", *options, mountpoint) == Finished(0, "", "")
        assert mounted_below(mountpoint) == []


def test_a_busy_one_is_taken_away_lazily(imgfs: Bench, mountpoint: Path) -> None:
    with mounted_on(mountpoint, IMAGE, "nginx"), (mountpoint / "config").open() as file:
        name = Path("/proc/self/comm").read_text().strip()
        reason = f"cannot unmount {mountpoint}: in use by {name} ({os.getpid()}): {mountpoint}/config"
        said = f"imgfs: {reason}; close it, or imgfs umount -l {mountpoint}\n"
        assert imgfs.run("umount", mountpoint) == Finished(9, "", said)
        assert imgfs.run("umount", "-l", mountpoint) == Finished(0, "", "")
        assert mounted_below(mountpoint) == []
        assert file.read() == "{}"


@pytest.mark.parametrize("options", [[], ["-l"]])
def test_umount_refuses_other_erofs_mounts(imgfs: Bench, mountpoint: Path, options: list[str]) -> None:
    with mounted_on(mountpoint, OTHER, "nginx"):
        said = f"imgfs: {mountpoint} is not an imgfs mount but of type erofs; use umount\n"
        assert imgfs.run("umount", *options, mountpoint) == Finished(9, "", said)
        assert mounted_below(mountpoint) == [str(mountpoint)]


@pytest.mark.parametrize("options", [[], ["-l"]])
def test_umount_all_takes_the_images_and_no_other_erofs_mount(imgfs: Bench, options: list[str]) -> None:
    need_kernel_mounts()
    archive = Archive().write(imgfs.folder / "image.tar")
    places = [imgfs.mountpoint(name) for name in "abcd"]
    for place, image in zip(places, (IMAGE, OTHER, IMAGE), strict=False):
        mount_on(place, image, "nginx")
    imgfs.mount(archive, at=places[3])
    # In a namespace of its own, so that it takes none of other tests' or people's.
    script = '"$@" umount -a $OPTIONS; echo $?; exec cat /proc/self/mountinfo'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *imgfs.command]
    environment = imgfs.environment | {"OPTIONS": " ".join(options)}
    done = subprocess.run(words, env=environment, capture_output=True, errors="surrogateescape", check=True)
    status, *table = done.stdout.split("\n")[:-1]
    left = [line.split()[4] for line in table if line.split()[4].startswith(f"{imgfs.folder}/")]
    assert (status, done.stderr, left) == ("0", "", [str(places[1])])
    for place in places[:3]:
        subprocess.run(["umount", place], check=True)


def test_only_root_unmounts_it(user: Bench) -> None:
    need_kernel_mounts()
    for name, mode in (("open", 0o40755), ("closed", 0o40500)):
        mountpoint = user.mountpoint(name)
        image = ErofsImage(IMAGE.inline, xattrs=IMAGE.xattrs, mode=mode)
        with mounted_on(mountpoint, image, "nginx"):
            said = f"imgfs: cannot unmount {mountpoint}: only root may unmount a kernel mount\n"
            assert user.run("umount", mountpoint) == Finished(9, "", said)
            assert user.run("umount", "-a") == Finished(0, "", "")
            seen = name == "open" or reads_all(user)
            assert [mount["mountpoint"] for mount in _listed(user)] == [str(mountpoint)] * seen
            assert mounted_below(mountpoint) == [str(mountpoint)]


def test_nothing_is_mounted_on_it(imgfs: Bench, mountpoint: Path) -> None:
    archive = Archive().write(imgfs.folder / "image.tar")
    for image, reason in (
        (IMAGE, f"an image is mounted there; imgfs umount {mountpoint} first"),
        (OTHER, "the directory is not empty; choose an empty one"),
    ):
        with mounted_on(mountpoint, image, "nginx"):
            done = imgfs.run("mount", "--log-file", imgfs.log, archive, mountpoint)
            assert done == Finished(9, "", f"imgfs: cannot mount on {mountpoint}: {reason}\n")


def test_its_mountpoint_is_completed(imgfs: Bench, mountpoint: Path) -> None:
    with mounted_on(mountpoint, IMAGE, "nginx"), mounted_on(imgfs.mountpoint("other"), OTHER, "nginx"):
        done = imgfs.run("__complete", "umount", f"{imgfs.folder}/")
        assert [line.rstrip("\t") for line in done.out.splitlines()[2:]] == [str(mountpoint)]


def test_a_disk_that_never_answers_holds_up_neither_list_nor_umount(imgfs: Bench, mountpoint: Path) -> None:
    slow = SlowFile(imgfs, IMAGE.metadata())
    file, directory = os.open(slow.path, os.O_RDONLY), os.open(mountpoint, os.O_PATH)
    mount = mount_erofs(file, [], "nginx")
    attach(mount, directory)
    try:
        slow.hold()
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        for descriptor in (file, directory, mount):
            os.close(descriptor)
        began = time.monotonic()
        assert _listed(imgfs) == []
        done = imgfs.run("umount", mountpoint)
        assert done == Finished(9, "", f"imgfs: cannot unmount {mountpoint}: it does not answer\n")
        assert time.monotonic() - began < 2 * _PATIENCE
        slow.go()
        assert [found["mountpoint"] for found in _listed(imgfs)] == [str(mountpoint)]
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    finally:
        slow.end()


@pytest.mark.parametrize("source", ["nginx:latest", "docker-archive:/srv/x.tar", "/srv/x.tar", "oci:dir/"])
def test_mount_8_takes_it_for_the_line_of_fstab_that_it_is_of(imgfs: Bench, mountpoint: Path, source: str) -> None:
    need("mount")
    fstab = imgfs.folder / "fstab"
    fstab.write_text(f"{source} {mountpoint} fuse.imgfs ro 0 0\n")
    with mounted_on(mountpoint, IMAGE, source):
        done = subprocess.run(["mount", "-T", fstab, "-a", "-v"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(rf"^{mountpoint} *: already mounted$", done.stdout)
        assert mounted_below(mountpoint) == [str(mountpoint)]
