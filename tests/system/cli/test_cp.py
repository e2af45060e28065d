"""imgfs cp: files of an image on the host, by the real command."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.changesets import About, changeset, device, fifo, file, folder, hard_link, symlink, whiteout
from tests.support.file_systems import tmpfs
from tests.support.looks import document, imgfs, printed, refused
from tests.support.mounts import COMMAND, Bench
from tests.support.requirements import ROOT, need
from tests.support.terminals import Terminal

pytestmark = pytest.mark.usefixtures("own_cache")

LAYERS = [
    changeset(
        folder("etc", About(mode=0o750, uid=5, gid=6)),
        file("etc/conf", b"c" * 1000, About(mode=0o4644, uid=7, gid=8)),
        hard_link("etc/name", "etc/conf"),
        symlink("etc/out", "/etc/passwd"),
        file("etc/\x1b[31m\n", b"odd"),
        device("etc/null", "c", 1, 3, About(mode=0o666)),
        fifo("etc/pipe"),
        file("big", b"b" * (3 << 20)),
    ),
    changeset(whiteout("big"), file("new", b"new")),
]


@pytest.fixture(name="image", scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Archive(LAYERS).write(tmp_path_factory.mktemp("image") / "image.tar")


def test_root_gets_owners_and_devices(image: Path, tmp_path: Path) -> None:
    need(ROOT)
    assert printed("cp", f"{image}:/etc", tmp_path) == [f"copied 6 files, 1.0 kB, to {tmp_path}/etc"]
    there = {name: (tmp_path / "etc" / name).lstat() for name in ("", "conf", "name", "null", "pipe", "out")}
    owners = {name: (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) for name, status in there.items()}
    assert owners == {
        "": (5, 6, 0o750),
        "conf": (0, 0, 0o644),  # the last header of a file decides: that of the hard link
        "name": (0, 0, 0o644),
        "null": (0, 0, 0o666),
        "pipe": (0, 0, 0o644),
        "out": (0, 0, 0o777),
    }
    assert there["null"].st_rdev == os.makedev(1, 3)
    assert there["conf"].st_ino == there["name"].st_ino


def test_another_user_gets_all_but_those(user: Bench) -> None:
    image = Archive(LAYERS).write(user.folder / "image.tar")
    target = user.folder / "out"
    done = user.run("cp", f"{image}:/etc", target)
    assert (done.status, done.out) == (0, f"copied 5 files, 1.0 kB, to {target}\n")
    assert done.err == "imgfs: warning: skipped 1 file: /etc/null: Operation not permitted\n"
    assert {path.lstat().st_uid for path in [target, *target.iterdir()]} == {target.stat().st_uid}
    assert target.stat().st_uid != 0
    closed = user.folder / "closed"
    closed.mkdir(0o755)
    done = user.run("cp", f"{image}:/new", closed)
    assert (done.status, done.err) == (8, f"imgfs: cannot write {closed}/new: Permission denied\n")


def test_one_layer_and_several_paths(image: Path, tmp_path: Path) -> None:
    assert printed("cp", "--layer", "1", f"{image}:/", tmp_path / "layer") == [
        f"copied 2 files, 3 B, to {tmp_path}/layer"
    ]
    assert sorted(os.listdir(tmp_path / "layer")) == [".wh.big", "new"]
    found = document("cp", "--json", image, "etc/conf", "/new", tmp_path)
    assert found[1] == {
        "path": "/new",
        "destination": f"{tmp_path}/new",
        "files": 1,
        "directories": 0,
        "symlinks": 0,
        "others": 0,
        "size": 3,
        "skipped": 0,
    }
    assert [one["path"] for one in found] == ["/etc/conf", "/new"]
    assert printed("cp", "-q", f"{image}:/new", tmp_path) == []
    missing = tmp_path / "missing"
    assert refused("cp", image, "/new", "/etc/conf", missing) == (
        8, f"cannot write {missing}: it is not a directory, for 2 files"
    )  # fmt: skip
    assert refused("cp", image, "/new", "/no", tmp_path / "layer")[0] == 4  # nothing was copied
    assert (tmp_path / "layer" / "new").stat().st_ino != 0


def test_a_tar_goes_to_standard_output(image: Path, imgfs: Bench) -> None:
    done = subprocess.run([COMMAND, "cp", f"{image}:/etc", "-"], stdout=subprocess.PIPE, check=True)
    listed = subprocess.run(["tar", "-t"], input=done.stdout, stdout=subprocess.PIPE, check=True).stdout.decode()
    assert listed.splitlines() == [
        *("etc/", "etc/\\033[31m\\n", "etc/conf", "etc/name", "etc/null", "etc/out", "etc/pipe")
    ]
    terminal = Terminal(imgfs, "cp", f"{image}:/etc", "-")
    assert terminal.end() == 2
    assert "a tar is not written to a terminal" in terminal.seen
    assert refused("cp", "--json", f"{image}:/etc", "-") == (
        2, "- and --json exclude each other: both write to standard output"
    )  # fmt: skip
    assert refused("cp", image, "/etc", "/new", "-") == (2, "- takes one PATH, not 2")


def test_what_is_no_copy_out_of_an_image_is_refused(image: Path, tmp_path: Path) -> None:
    assert refused("cp", tmp_path / "x.txt", "nginx:/etc") == (
        2,
        "images are read-only: nothing can be copied to nginx:/etc",
    )
    assert refused("cp", image, tmp_path) == (2, f"PATH is missing; use imgfs cp {image}:/PATH {tmp_path}")
    assert refused("cp", image)[0] == 2
    assert refused("cp", f"{image}:/etc", "") == (2, "DEST is empty")
    assert refused("cp", f"{image}:/no", tmp_path)[0] == 4


def test_a_full_disk_leaves_nothing_of_the_copy(image: Path, tmp_path: Path) -> None:
    with tmpfs(tmp_path, "2m") as small:
        done = imgfs("cp", "--layer", "0", f"{image}:/", small / "new")
        assert (done.status, done.out) == (8, "")
        assert done.err == f"imgfs: cannot write {small}/new/big: No space left on device\n"
        assert os.listdir(small) == []
        (small / "big").write_bytes(b"old")
        assert imgfs("cp", "--layer", "0", f"{image}:/big", small).status == 8
        assert (small / "big").read_bytes() == b"old"
