"""Options that change what the files say, and a real Debian that programs walk through."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive, layer
from tests.support.changesets import About, changeset, file, folder, hard_link, symlink, whiteout
from tests.support.layouts import Layout
from tests.support.mounts import Bench, Finished, bench
from tests.support.processes import until
from tests.support.real_image import root_file_system
from tests.support.requirements import need

NS = 1_500_000_000_123456789
LAYERS = (
    changeset(
        folder("etc", About(mode=0o1750, uid=5, gid=6)),
        file("etc/motd", b"hello\n", About(mode=0o6444, uid=7, gid=8, mtime_ns=NS)),
        symlink("etc/absolute", "/etc/motd"),
        symlink("etc/relative", "motd"),
        symlink("top", "/"),
        symlink("etc/out", "../../../config"),
    ),
)


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """A small image."""
    return Archive(layers=LAYERS).write(imgfs.folder / "image.tar")


PLACES = ("config", "blobs", "rootfs", "rootfs/etc", "rootfs/etc/motd", "layers/0/etc/motd", "rootfs/top")


def _said(mountpoint: Path) -> dict[str, tuple[str, int, int]]:
    found = {place: (mountpoint / place).lstat() for place in PLACES}
    return {place: (stat.filemode(one.st_mode), one.st_uid, one.st_gid) for place, one in found.items()}


def test_without_options_all_is_as_the_layers_say(imgfs: Bench, archive: Path) -> None:
    assert _said(imgfs.mount(archive)) == {
        "config": ("-r--r--r--", 0, 0),
        "blobs": ("dr-xr-xr-x", 0, 0),
        "rootfs": ("drwxr-xr-x", 0, 0),
        "rootfs/etc": ("drwxr-x--T", 5, 6),
        "rootfs/etc/motd": ("-r-Sr-Sr--", 7, 8),
        "layers/0/etc/motd": ("-r-Sr-Sr--", 7, 8),
        "rootfs/top": ("lrwxrwxrwx", 0, 0),
    }


def test_uid_and_gid_are_put_in_the_place_of_all_owners(imgfs: Bench, archive: Path) -> None:
    said = _said(imgfs.mount(archive, "-o", "uid=1234,gid=0"))
    assert {(uid, gid) for _, uid, gid in said.values()} == {(1234, 0)}
    assert said["rootfs/etc"][0] == "drwxr-x--T"


def test_one_of_them_leaves_the_other(imgfs: Bench, archive: Path) -> None:
    said = _said(imgfs.mount(archive, "-o", "gid=4294967294"))
    assert said["rootfs/etc/motd"] == ("-r-Sr-Sr--", 7, 4294967294)


def test_a_umask_is_put_in_the_place_of_all_modes(imgfs: Bench, archive: Path) -> None:
    assert _said(imgfs.mount(archive, "-o", "umask=027")) == {
        "config": ("-rwxr-x---", 0, 0),
        "blobs": ("drwxr-x---", 0, 0),
        "rootfs": ("drwxr-x---", 0, 0),
        "rootfs/etc": ("drwxr-x---", 5, 6),
        "rootfs/etc/motd": ("-rwxr-x---", 7, 8),
        "layers/0/etc/motd": ("-rwxr-x---", 7, 8),
        "rootfs/top": ("lrwxrwxrwx", 0, 0),
    }


def test_with_allow_other_and_uid_another_user_reads_what_was_roots(imgfs: Bench) -> None:
    secret = changeset(file("secret", b"mine\n", About(mode=0o600)))
    path = Archive(layers=[secret]).write(imgfs.folder / "image.tar")
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat"]
    closed = imgfs.mount(path, "-o", "allow_other", at=imgfs.mountpoint("closed"))
    opened = imgfs.mount(path, "-o", "allow_other,uid=65534", at=imgfs.mountpoint("opened"))
    assert subprocess.run([*as_nobody, closed / "rootfs" / "secret"], capture_output=True, check=False).returncode == 1
    done = subprocess.run([*as_nobody, opened / "rootfs" / "secret"], capture_output=True, check=True)
    assert done.stdout == b"mine\n"


def test_absolute_links_lead_into_the_mount_if_that_is_wanted(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive, "-o", "transform_symlinks")
    for tree in (mountpoint / "rootfs", mountpoint / "layers" / "0"):
        targets = {name: os.readlink(tree / name) for name in ("etc/absolute", "etc/relative", "top", "etc/out")}
        assert targets == {
            "etc/absolute": "../etc/motd",
            "etc/relative": "motd",
            "top": ".",
            "etc/out": "../config",
        }
        assert (tree / "etc" / "absolute").read_bytes() == b"hello\n"
        assert (tree / "top" / "etc" / "motd").samefile(tree / "etc" / "motd")
        assert (tree / "etc" / "absolute").lstat().st_size == len("../etc/motd")


def test_no_link_leads_out_of_the_mount_if_they_are_to_lead_into_it(imgfs: Bench) -> None:
    deep = "/".join("abcde")
    base = changeset(
        folder("x/y"),
        symlink("later", "/x/y" + "/.." * 40 + "/etc/hostname"),
        symlink("climbing", "../" * 40 + "etc/hostname"),
        symlink("up", "x/y/" + "../" * 40 + "etc/hostname"),
        symlink("root", "/"),
        symlink("x/through", "/root" + "/.." * 40 + "/etc/hostname"),
        symlink(f"{deep}/s", "/etc/hostname"),
        hard_link(f"{deep}/f/g/twice", f"{deep}/s"),
        symlink("x/long", "/" + "t" * 4094),
    )
    archive = Archive(layers=[base, changeset(hard_link("t", f"{deep}/s"))]).write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mount(archive, "-o", "transform_symlinks")
    here = mountpoint / "rootfs"
    expected = {"later": ".", "climbing": ".", "up": ".", "x/through": "..", f"{deep}/s": "../../../../..",
                f"{deep}/f/g/twice": "../../../../../../..", "t": "."}  # fmt: skip
    targets = {name: os.readlink(here / name) for name in expected}
    assert targets == {name: os.path.join(up, "etc/hostname").removeprefix("./") for name, up in expected.items()}
    for name in expected:
        with pytest.raises(FileNotFoundError):
            (here / name).read_bytes()
    for tree in (here, mountpoint / "layers" / "0"):
        with pytest.raises(OSError, match="File name too long"):
            os.readlink(tree / "x" / "long")


def test_programs_that_copy_find_the_names_that_a_file_has_from_several_layers(imgfs: Bench) -> None:
    layers = [changeset(file("a", b"1")), changeset(hard_link("d/b", "a"))]
    rootfs = imgfs.mount(Archive(layers=layers).write(imgfs.folder / "image.tar")) / "rootfs"
    assert (rootfs / "a").stat().st_nlink == 2
    copy, unpacked = imgfs.folder / "copy", imgfs.folder / "unpacked"
    unpacked.mkdir()
    _run("cp", "-a", rootfs, copy)
    _run("bash", "-c", 'tar -C "$1" -c . | tar -C "$2" -x', "-", rootfs, unpacked)
    assert (copy / "a").samefile(copy / "d" / "b")
    assert (unpacked / "a").samefile(unpacked / "d" / "b")


@pytest.mark.parametrize("options", [["--index"], ["--index", "--no-trees"], []])
def test_an_artifact_has_no_trees_and_nothing_to_index(imgfs: Bench, options: list[str]) -> None:
    layout = Layout()
    artifact = layout.image(
        [], config=layout.blob("application/vnd.example", b"{}"), stored=[layout.blob("application/vnd.x", b"model")]
    )
    layout.list(artifact, "1")
    (imgfs.folder / "x.tar").write_bytes(layout.tar())
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "-q", "--log-file", imgfs.log, *options, imgfs.folder / "x.tar", mountpoint)
    assert done == Finished(0, "", "")
    assert "rootfs" not in os.listdir(mountpoint)
    assert not (mountpoint / "layers").exists() or os.listdir(mountpoint / "layers") == []
    assert (mountpoint / "blobs" / layout.digest(b"model").replace(":", "/")).read_bytes() == b"model"


CHANGES = changeset(
    file("etc/hostname", b"changed\n"),
    whiteout("usr/share/doc"),
    file("usr/local/bin/hello", b"#!/bin/sh\necho hello from the image\n", About(mode=0o755)),
)


@pytest.fixture(scope="module", name="debian")
def mounted_debian() -> Iterator[Path]:
    """A real Debian with a layer of changes on it."""
    with bench() as made:
        base = root_file_system().read_bytes()
        yield made.mount(Archive(layers=[base, CHANGES]).write(made.folder / "image.tar"))


@pytest.fixture(scope="module", name="unpacked")
def unpacked_debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What GNU tar makes of the base layer."""
    path = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-xpf", root_file_system(), "--numeric-owner", "--xattrs-include=*", "-C", path], check=True)
    yield path
    shutil.rmtree(path)


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode("utf-8", "surrogateescape")


LOOK = "%P\\0%y %m %U %G %l %n %T@\\0"


def _found(path: Path) -> dict[str, str]:
    """Return what ``find`` says of all below *path*, but the link counts of directories."""
    fields = iter(_run("find", path, "-mindepth", "1", "-printf", LOOK).split("\0"))
    found = dict(zip(fields, fields, strict=False))
    return {name: re.sub(r"^(d .*) [0-9]+ ([^ ]*)$", r"\1 - \2", said) for name, said in found.items()}


def test_find_sees_in_a_layer_what_tar_unpacks(debian: Path, unpacked: Path) -> None:
    found, expected = _found(debian / "layers" / "0"), _found(unpacked)
    assert len(found) > 5000
    assert {name: (found.get(name), said) for name, said in expected.items() if found.get(name) != said} == {}
    assert found.keys() == expected.keys()


def test_diff_sees_no_difference_between_a_layer_and_what_tar_unpacks(debian: Path, unpacked: Path) -> None:
    _run("diff", "-r", "--no-dereference", "--exclude=dev", debian / "layers" / "0", unpacked)


def test_diff_of_two_trees_shows_what_a_layer_changes(debian: Path) -> None:
    command = ["diff", "-rq", "--no-dereference", "--exclude=dev", "layers/0", "rootfs"]
    done = subprocess.run(command, cwd=debian, env={"LC_ALL": "C"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert sorted(done.stdout.splitlines()) == sorted(
        [
            *(["Files layers/0/etc/hostname and rootfs/etc/hostname differ"]
              if (debian / "layers/0/etc/hostname").exists() else ["Only in rootfs/etc: hostname"]),
            "Only in layers/0/usr/share: doc",
            "Only in rootfs/usr/local/bin: hello",
        ]
    )  # fmt: skip


def test_tar_packs_what_is_there(debian: Path) -> None:
    command = ["tar", "-C", str(debian / "rootfs"), "--xattrs", "-cf", "-", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as packing:
        listed = subprocess.run(["tar", "-tf", "-"], stdin=packing.stdout, capture_output=True, text=True, check=True)
        assert packing.stderr is not None
        assert packing.stderr.read() == b""
    assert packing.returncode == 0
    assert len(listed.stdout.splitlines()) == len(_found(debian / "rootfs")) + 1


def test_a_copy_is_the_same(debian: Path, tmp_path: Path) -> None:
    _run("cp", "-a", debian / "rootfs" / "etc", tmp_path / "etc")
    assert _found(tmp_path / "etc") == _found(debian / "rootfs" / "etc")
    _run("diff", "-r", "--no-dereference", debian / "rootfs" / "etc", tmp_path / "etc")


def test_rsync_finds_nothing_to_do_for_what_tar_unpacked(debian: Path, unpacked: Path) -> None:
    need("rsync")
    said = _run("rsync", "-aHAX", "--dry-run", "--itemize-changes", f"{debian}/layers/0/", f"{unpacked}/")
    assert [line for line in said.splitlines() if not line.startswith(".d")] == []


def test_programs_of_the_image_run_in_it(debian: Path) -> None:
    command = ["chroot", str(debian / "rootfs"), "/usr/bin/env", "-i", "A=b", "/bin/sh", "-c"]
    assert _run(*command, "echo $A; cat /etc/hostname; hello") == "b\nchanged\nhello from the image\n"
    assert _run(*command, "cat /etc/debian_version").startswith("12.")


def test_every_file_has_its_bytes(debian: Path, unpacked: Path) -> None:
    def sums(path: Path) -> dict[str, str]:
        files = (one for one in path.rglob("*") if one.is_file() and not one.is_symlink())
        return {str(one.relative_to(path)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}

    assert sums(debian / "layers" / "0") == sums(unpacked)


def test_a_layer_of_more_than_16_mib_is_indexed_by_a_child_and_nothing_of_it_stays(imgfs: Bench) -> None:
    big = layer({"big": bytes(17 << 20), "after": b"x"})
    mountpoint = imgfs.mount(Archive(layers=[big]).write(imgfs.folder / "image.tar"))
    assert sorted(os.listdir(mountpoint / "rootfs")) == ["after", "big"]
    assert (mountpoint / "rootfs" / "after").read_bytes() == b"x"
    assert list(imgfs.processes()) == [imgfs.serving(mountpoint)]
    until(lambda: imgfs.made_files(mountpoint) == [], "nothing of it is open")
