"""The words after -o, and what of them reaches the kernel."""

import subprocess
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.mounts import Bench, Finished, mounted_below, the_mount, tree

ALWAYS = {"ro", "nosuid", "nodev"}


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """A small image."""
    return Archive().write(imgfs.folder / "image.tar")


@pytest.mark.parametrize(
    ("options", "shown", "super_options"),
    [
        ("ro,nosuid,nodev", {"relatime"}, set()),
        ("noexec", {"noexec", "relatime"}, set()),
        ("noatime", {"noatime"}, set()),
        ("allow_other", {"relatime"}, {"allow_other", "default_permissions"}),
        ("allow_root", {"relatime"}, {"allow_other", "default_permissions"}),
        ("noexec,noatime,allow_other", {"noexec", "noatime"}, {"allow_other", "default_permissions"}),
    ],
)
def test_an_option_reaches_the_kernel(
    imgfs: Bench, archive: Path, options: str, shown: set[str], super_options: set[str]
) -> None:
    mount = the_mount(imgfs.mount(archive, "-o", options))
    assert mount.options == ALWAYS | shown
    assert mount.super_options - {"user_id=0", "group_id=0"} == {"ro"} | super_options


IGNORED = (
    "rw dev suid exec defaults auto noauto user users owner group nofail _netdev relatime strictatime nodiratime "
    "x-systemd.automount x-anything=1 comment=hello"
)


def test_options_of_fstab_are_ignored(imgfs: Bench, archive: Path) -> None:
    mount = the_mount(imgfs.mount(archive, "-o", IGNORED.replace(" ", ",")))
    assert mount.options == ALWAYS | {"relatime"}
    assert mount.super_options == {"ro", "user_id=0", "group_id=0"}


def test_options_may_come_in_several_words(imgfs: Bench, archive: Path) -> None:
    mount = the_mount(imgfs.mount(archive, "-o", "noexec", "-onoatime,rw", "-o", "ro"))
    assert mount.options == ALWAYS | {"noexec", "noatime"}


@pytest.mark.parametrize(
    "word",
    [
        *("remount", "bind", "fsname=x", "subtype=x", "max_read=1", "default_permissions", "auto_unmount", "fd=3"),
        *("user_id=0", "blkdev", "synch", "allow_others", "ALLOW_OTHER", "allow_other\\,x", "suid=1", "x"),
    ],
)
def test_an_unknown_option_is_a_usage_error(imgfs: Bench, archive: Path, word: str) -> None:
    done = imgfs.run("mount", archive, imgfs.mountpoint(), "-o", f"ro,{word}")
    shown = word.replace("\\,", ",")
    assert done == Finished(2, "", f"imgfs: unknown mount option {shown!r}\n")
    assert mounted_below(imgfs.folder) == []


def test_a_long_option_may_be_spelled_there(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", archive, mountpoint, "-o", f"quiet,verify,log_file={imgfs.log},noexec")
    assert done == Finished(0, "", "")
    assert imgfs.log.exists()
    assert "noexec" in the_mount(mountpoint).options


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b.tar", "a b.tar"),
        ("a,allow_other.tar", "a,allow_other.tar"),
        ("a,subtype=x,fsname=y.tar", "a,subtype=x,fsname=y.tar"),
        ("back\\slash.tar", "back\\slash.tar"),
        ("back\\,both.tar", "back\\,both.tar"),
        ("ends\\\\.tar", "ends\\\\.tar"),
        ("ü€.tar", "%C3%BC%E2%82%AC.tar"),
        (b"\xff.tar".decode(errors="surrogateescape"), "%FF.tar"),
        ("100%.tar", "100%25.tar"),
        ("line\nbreak\ttab.tar", "line%0Abreak%09tab.tar"),
        ("hash#.tar", "hash#.tar"),
        ("quote'\".tar", "quote'\".tar"),
    ],
)
def test_the_device_is_the_image_and_no_name_smuggles_options(imgfs: Bench, name: str, shown: str) -> None:
    image = Archive().write(imgfs.folder / name)
    mountpoint = imgfs.mountpoint()
    assert imgfs.run("mount", "-q", "--log-file", imgfs.log, image, mountpoint) == Finished(0, "", "")
    mount = the_mount(mountpoint)
    assert mount.source == str(imgfs.folder / shown)
    assert mount.file_system == "fuse.imgfs"
    assert mount.super_options == {"ro", "user_id=0", "group_id=0"}
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")


def _nobody_sees(mountpoint: Path) -> str:
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", str(mountpoint / "config")]
    done = subprocess.run(command, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, capture_output=True, check=False)
    return (done.stdout or done.stderr).decode()


def test_other_users_get_in_with_allow_other_only(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive, "-o", "allow_other", at=imgfs.mountpoint("open"))
    assert _nobody_sees(mountpoint) == Archive().config_data.decode()
    for options, name in (("noexec", "closed"), ("allow_root", "root")):
        mountpoint = imgfs.mount(archive, "-o", options, at=imgfs.mountpoint(name))
        assert _nobody_sees(mountpoint) == f"cat: {mountpoint}/config: Permission denied\n"
        assert tree(mountpoint)["config"] == Archive().config_data
