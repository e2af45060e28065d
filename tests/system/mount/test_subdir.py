"""``--subdir``: one directory of the image alone at the mountpoint, with both drivers."""

import gzip
import json
import os
import stat
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.changesets import About, changeset, file, folder, symlink
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.requirements import ROOT, need

NS = 1_500_000_000_123456789
XATTRS = {b"user.imgfs.image": b"forged", b"user.own": b"x"}
LAYERS = (
    changeset(
        folder("etc", About(mode=0o750, uid=5, gid=6, mtime_ns=NS, xattrs=XATTRS)),
        file("etc/motd", b"hello\n"),
        folder("etc/deep"),
        file("etc/deep/end", b"end\n"),
        symlink("conf", "/etc"),
        symlink("out", "../../../../../../etc"),
        symlink("loop", "loop"),
        *(file(f"etc/many/{number:04}", b"%d" % number) for number in range(300)),
    ),
    changeset(file("etc/new", b"new\n")),
)


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """A small image, a kernel mount of which needs no snapshot."""
    path = imgfs.folder / "image.tar.gz"
    path.write_bytes(gzip.compress(Archive(layers=LAYERS).data()))
    return path


SUBDIRS = ("rootfs", "/rootfs/etc/", "rootfs/etc/deep", "layers/0", "layers", "layers/1/etc", "blobs")


def _mount(imgfs: Bench, archive: Path, name: str, *options: str) -> Path:
    """Mount with any driver: for a kernel mount there is no log to name."""
    mountpoint = imgfs.mountpoint(name)
    done = imgfs.run("mount", "--progress=none", *options, archive, mountpoint)
    assert (done.status, done.out) == (0, "")
    assert done.err.startswith(f"imgfs: mounted {archive} on {mountpoint} in ")
    return mountpoint


def _shown(top: Path) -> dict[str, tuple[object, ...]]:
    """Return the attributes of all paths below *top*, with a file's bytes or a link's target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        about = path.lstat()
        data: object = os.readlink(path) if path.is_symlink() else None
        if stat.S_ISREG(about.st_mode):
            data = path.read_bytes()
        found[os.path.relpath(path, top)] = (about.st_mode, about.st_uid, about.st_mtime_ns, data)
    return found


@pytest.mark.parametrize("driver", ["fuse", "erofs"])
def test_the_mountpoint_shows_what_that_directory_of_the_whole_mount_shows(
    imgfs: Bench, archive: Path, driver: str
) -> None:
    need(ROOT)
    whole = _mount(imgfs, archive, "whole", "--driver", driver)
    for number, subdir in enumerate(SUBDIRS):
        part = _mount(imgfs, archive, f"part{number}", "--driver", driver, "--subdir", subdir)
        there = whole / subdir.strip("/")
        assert _shown(part) == _shown(there) != {}
        about, above = part.stat(), there.stat()
        assert (about.st_uid, about.st_gid, about.st_mtime_ns) == (above.st_uid, above.st_gid, above.st_mtime_ns)
        for path in part.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                assert os.path.samestat((path / "..").stat(), path.parent.stat())
        assert imgfs.run("umount", part).status == 0


@pytest.mark.parametrize("driver", ["fuse", "erofs"])
def test_the_mount_says_what_it_is_and_the_image_cannot_forge_it(imgfs: Bench, archive: Path, driver: str) -> None:
    part = _mount(imgfs, archive, "part", "--driver", driver, "-o", "subdir=rootfs/etc")
    said = {name: os.getxattr(part, name) for name in os.listxattr(part) if name.startswith("user.")}
    process = str(imgfs.serving(part)).encode() if driver == "fuse" else None
    assert said.get("user.imgfs.pid") == process or driver == "erofs"
    assert (said["user.imgfs.image"], said["user.imgfs.subdir"], said["user.own"]) == (
        os.fsencode(archive),
        b"rootfs/etc",
        b"x",
    )
    (listed,) = (one for one in json.loads(imgfs.run("list", "--json").out) if one["mountpoint"] == str(part))
    assert (listed["image"], listed["subdir"], listed["driver"]) == (str(archive), "rootfs/etc", driver)
    assert imgfs.run("umount", part).status == 0


@pytest.mark.parametrize(("subdir", "names"), [("rootfs/conf", "etc"), ("rootfs/conf/../etc/deep/", "")])
def test_links_are_followed_inside_the_image(imgfs: Bench, archive: Path, subdir: str, names: str) -> None:
    if not names:
        done = imgfs.run("mount", "--subdir", subdir, archive, imgfs.mountpoint())
        assert (done.status, done.err) == (2, f"imgfs: --subdir {subdir}: the path may not contain ..\n")
        return
    part = imgfs.mount(archive, "--subdir", subdir)
    assert (part / "motd").read_bytes() == b"hello\n"


def test_a_link_never_leads_out_of_the_image(imgfs: Bench, archive: Path) -> None:
    part = imgfs.mount(archive, "--subdir", "rootfs/out")
    assert sorted(os.listdir(part)) == ["deep", "many", "motd", "new"]


@pytest.mark.parametrize(
    ("subdir", "why"),
    [
        ("nothing", "No such file or directory"),
        ("layers/7", "No such file or directory"),
        ("config", "Not a directory"),
        ("rootfs/nothing", "No such file or directory"),
        ("rootfs/etc/motd", "Not a directory"),
        ("rootfs/etc/motd/x", "Not a directory"),
        ("rootfs/loop", "Too many levels of symbolic links"),
    ],
)
def test_a_path_that_is_no_directory_is_an_error_of_the_command(
    imgfs: Bench, archive: Path, subdir: str, why: str
) -> None:
    done = imgfs.run("mount", "--driver", "auto", "--subdir", subdir, archive, imgfs.mountpoint())
    assert (done.status, done.out, done.err) == (4, "", f"imgfs: {archive} has no directory {subdir}: {why}\n")


def test_changed_links_need_the_whole_tree(imgfs: Bench, archive: Path) -> None:
    done = imgfs.run("mount", "-o", "transform_symlinks,subdir=rootfs/etc", archive, imgfs.mountpoint())
    assert (done.status, done.err) == (
        2,
        "imgfs: transform_symlinks changes links to lead into the whole tree: --subdir rootfs or layers/N\n",
    )
    part = imgfs.mount(archive, "-o", "transform_symlinks,subdir=rootfs", at=imgfs.mountpoint("part"))
    assert os.readlink(part / "conf") == "etc"


def test_no_layer_is_indexed_before_someone_looks(imgfs: Bench) -> None:
    archive = Archive(layers=LAYERS).write(imgfs.folder / "image.tar")
    part = imgfs.mount(archive, "--subdir", "rootfs")
    until(lambda: [*imgfs.cache.rglob("index")] != [], "the archive is cached")
    assert [*imgfs.cache.rglob("*.layer")] == []
    assert (part / "etc" / "motd").read_bytes() == b"hello\n"
    until(lambda: len([*imgfs.cache.rglob("*.layer")]) == len(LAYERS), "the layers are indexed")
