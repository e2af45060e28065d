"""list, umount and what a mount says of itself in extended attributes."""

import datetime as dt
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fusefs.cli.output.ages import age
from fusefs.cli.output.stdout import human_size
from fusefs.cli.output.tables import table
from fusefs.mount.mountinfo import Mount, mounts
from fusefs.mount.status import MountStatus, State
from fusefs.oci.digest import Digest
from tests.support.builders import Archive, compressed, image_config, sha256
from tests.support.changesets import About, changeset, file, folder
from tests.support.file_systems import tmpfs
from tests.support.mounts import Bench, Finished, mounted_below, the_mount
from tests.support.processes import until
from tests.support.readme import REPOSITORY, blocks, session
from tests.support.terminals import Terminal

OWN = {b"user.a": b"own", b"user.oci.digest": b"a lie"}
BASE = changeset(folder("./", About(mode=0o755, xattrs=OWN)), file("x", b"1", About(xattrs=OWN)))
UPPER = changeset(file("y", b"2"))
CONFIG = image_config([BASE, UPPER], history=[{"created_by": "ADD base"}, {"created_by": "RUN " + "é" * 5000}])


def _xattrs(path: Path) -> dict[str, bytes]:
    names = os.listxattr(path)
    assert len(names) == len(set(names))
    return {name: os.getxattr(path, name) for name in names}


def _listed(imgfs: Bench) -> list[dict[str, Any]]:
    """Return what `list` says of this bench's mounts."""
    done = imgfs.run("list", "--json")
    assert (done.status, done.err) == (0, "")
    return [one for one in json.loads(done.out) if one["mountpoint"].startswith(f"{imgfs.folder}/")]


@pytest.fixture(name="archive")
def small_archive(imgfs: Bench) -> Path:
    """An image of two layers, compressed."""
    layers = [compressed(data, "gzip") for data in (BASE, UPPER)]
    return Archive(layers=layers, config=CONFIG).write(imgfs.folder / "image.tar")


def test_the_root_says_which_image_it_is(imgfs: Bench, archive: Path) -> None:
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    mountpoint = imgfs.mount(archive)
    said = _xattrs(mountpoint)
    since = dt.datetime.fromisoformat(said.pop("user.imgfs.since").decode())
    assert before <= since <= dt.datetime.now(dt.UTC)
    assert said == {
        "user.oci.ref": str(archive).encode(),
        "user.oci.id": sha256(CONFIG).encode(),
        "user.oci.platform": b"linux/amd64",
        "user.imgfs.image": str(archive).encode(),
        "user.imgfs.source": str(archive).encode(),
        "user.imgfs.pid": str(imgfs.serving(mountpoint)).encode(),
        "user.imgfs.bytes_read": b"0",
    }


def test_documents_and_blobs_say_what_they_are(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    manifest = json.loads((mountpoint / "manifest.json").read_bytes())
    for descriptor in (manifest["config"], *manifest["layers"]):
        said = _xattrs(mountpoint / "blobs" / "sha256" / descriptor["digest"][7:])
        for name in ("digest", "mediaType", "size"):
            assert said[f"user.oci.{name}"].decode() == str(descriptor[name])
    assert _xattrs(mountpoint / "config")["user.oci.digest"].decode() == manifest["config"]["digest"]
    data = (mountpoint / "manifest.json").read_bytes()
    assert _xattrs(mountpoint / "manifest.json") == {
        "user.oci.digest": str(Digest.of([data])).encode(),
        "user.oci.mediaType": manifest["mediaType"].encode(),
        "user.oci.size": str(len(data)).encode(),
    }
    assert _xattrs(mountpoint / "index.json") == {}
    base = mountpoint / "blobs" / "sha256" / manifest["layers"][0]["digest"][7:]
    assert os.getxattr(base, "user.oci.diffId").decode() == sha256(BASE)
    assert os.getxattr(base, "user.oci.createdBy") == b"ADD base"


def test_a_layer_says_what_it_is_before_and_after_the_first_look(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    manifest = json.loads((mountpoint / "manifest.json").read_bytes())
    layer = mountpoint / "layers" / "0"
    ours = {
        "user.oci.digest": manifest["layers"][0]["digest"].encode(),
        "user.oci.mediaType": manifest["layers"][0]["mediaType"].encode(),
        "user.oci.size": str(manifest["layers"][0]["size"]).encode(),
        "user.oci.diffId": sha256(BASE).encode(),
        "user.oci.createdBy": b"ADD base",
    }
    assert _xattrs(layer) == ours
    assert imgfs.made_files(mountpoint) == []
    assert os.listdir(layer) == ["x"]
    # What the layer's root says of itself stays, but not what it says of the layer.
    assert _xattrs(layer) == ours | {"user.a": b"own"}
    assert _xattrs(layer / "x") == {"user.a": b"own", "user.oci.digest": b"a lie"}
    assert sorted(os.listdir(mountpoint / "rootfs")) == ["x", "y"]
    assert _xattrs(mountpoint / "rootfs") == {"user.a": b"own", "user.oci.digest": b"a lie"}


def test_a_long_command_is_cut_so_that_copies_have_room_for_it(imgfs: Bench, archive: Path) -> None:
    said = os.getxattr(imgfs.mount(archive) / "layers" / "1", "user.oci.createdBy").decode()
    assert re.fullmatch("RUN é+…", said)
    assert len(said.encode()) <= 2051


def test_list_shows_each_mount(imgfs: Bench, archive: Path) -> None:
    first = imgfs.mount(archive)
    second = imgfs.mount(archive.name, at=imgfs.mountpoint("a b"))
    found = _listed(imgfs)
    assert [one["mountpoint"] for one in found] == [str(first), str(second)]
    assert found[0] == {
        "mountpoint": str(first),
        "image": str(archive),
        "subdir": None,
        "inUse": None,
        "id": sha256(CONFIG),
        "platform": "linux/amd64",
        "source": str(archive),
        "pid": imgfs.serving(first),
        "since": os.getxattr(first, "user.imgfs.since").decode(),
        "bytesRead": found[0]["bytesRead"],
        "driver": "fuse",
        "state": "mounted",
    }
    assert (found[1]["image"], found[1]["source"]) == (archive.name, str(archive))
    lines = imgfs.run("list").out.splitlines()
    assert lines[0].split() == ["MOUNTPOINT", "IMAGE", "SINCE", "READ", "DRIVER", "STATE"]
    (row,) = (line for line in lines if line.startswith(f"{first} "))
    assert re.fullmatch(rf"{first} +{archive} +(?:now|[0-9]+ s ago) +[0-9.]+ k?B  fuse    mounted", row)
    lines = imgfs.run("list", "--wide").out.splitlines()
    assert lines[0].split() == ["MOUNTPOINT", "IMAGE", "ID", "SOURCE", "PID", "SINCE", "READ", "DRIVER", "STATE"]
    (row,) = (line for line in lines if line.startswith(f"{first} "))
    assert row.split()[:5] == [str(first), str(archive), sha256(CONFIG)[7:19], str(archive), str(imgfs.serving(first))]
    assert row.endswith("  mounted")
    assert [line for line in lines if not line.isprintable()] == []


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_shows_what_fits_and_all_with_wide(imgfs: Bench, archive: Path, columns: int) -> None:
    mountpoint = imgfs.mount(archive, at=imgfs.mountpoint("long" * 20))
    terminal = Terminal(imgfs, "list", columns=columns)
    assert terminal.end() == 0
    lines = terminal.seen.splitlines()
    assert max(map(len, lines)) <= max(columns, 72)
    assert len([line for line in lines if re.match("…[^ ]*longlong +…[^ ]*image.tar ", line)]) == 1
    assert str(mountpoint) in imgfs.run("list", "--wide").out


def test_a_mount_counts_the_bytes_that_were_read(imgfs: Bench) -> None:
    big = changeset(file("big", bytes(3 << 20)))
    mountpoint = imgfs.mount(Archive(layers=[big]).write(imgfs.folder / "x.tar"))
    assert len((mountpoint / "rootfs" / "big").read_bytes()) == 3 << 20
    (found,) = _listed(imgfs)
    assert 3 << 20 <= found["bytesRead"] < 4 << 20
    (row,) = (line for line in imgfs.run("list").out.splitlines() if line.startswith(f"{mountpoint} "))
    assert re.search(r" 3\.[0-9] MB  fuse    mounted$", row)


def test_the_reference_shows_what_list_prints(imgfs: Bench, archive: Path) -> None:
    page = REPOSITORY / "docs" / "reference.md"
    (step,) = (session(block.text)[0] for block in blocks(page) if block.runner == "test_list.py")
    header, shown = (re.split("  +", line) for line in step.output.splitlines())
    assert step.output.splitlines() == table([header, shown], (3,))
    mountpoint = imgfs.mount(archive)
    lines = [re.split("  +", line) for line in imgfs.run("list").out.splitlines()]
    (row,) = (line for line in lines if line[0] == str(mountpoint))
    assert lines[0] == header
    assert row[4:] == shown[4:]
    assert re.fullmatch(r"now|\d+ s ago", row[2])
    assert (age(200), human_size(2_100_000)) == tuple(shown[2:4])


def test_list_of_nothing_is_a_header_or_an_empty_list(imgfs: Bench) -> None:
    assert _listed(imgfs) == []
    assert imgfs.run("list").out.splitlines()[0].startswith("MOUNTPOINT ")


def test_list_marks_a_dead_mount(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    os.kill(imgfs.serving(mountpoint), signal.SIGKILL)
    until(lambda: not imgfs.processes(), "it is gone")
    (found,) = _listed(imgfs)
    assert (found["state"], found["image"], found["pid"]) == ("stale", str(archive), None)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    assert _listed(imgfs) == []


def test_list_does_not_wait_for_a_mount_that_is_stuck(imgfs: Bench, archive: Path) -> None:
    alive, stuck = imgfs.mount(archive), imgfs.mount(archive, at=imgfs.mountpoint("stuck"))
    serving = imgfs.serving(stuck)
    os.kill(serving, signal.SIGSTOP)
    try:
        found = {one["mountpoint"]: one["state"] for one in _listed(imgfs)}
        assert found == {str(alive): "mounted", str(stuck): "stuck"}
    finally:
        os.kill(serving, signal.SIGCONT)


def test_list_marks_what_is_covered_by_another_mount(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    with tmpfs(mountpoint):
        assert [one["state"] for one in _listed(imgfs)] == ["covered"]
    assert [one["state"] for one in _listed(imgfs)] == ["mounted"]


def test_list_marks_another_users_mount(user: Bench) -> None:
    archive = Archive(layers=[BASE]).write(user.folder / "image.tar")
    mountpoint = user.mountpoint()
    os.chown(mountpoint, 65534, 65534)
    user.mount(archive, at=mountpoint)
    assert [one["state"] for one in _listed(user)] == ["mounted"]
    users, user.command = user.command, user.command[-1:]
    try:
        (found,) = _listed(user)  # root's view of it
        assert (found["state"], found["image"], found["id"]) == ("denied", str(archive), None)
    finally:
        user.command = users


def test_a_mount_of_an_image_with_an_odd_name_is_called_by_it(imgfs: Bench) -> None:
    name = os.fsdecode("é,\\%41 \n".encode() + b"\xff.tar")
    archive = Archive(layers=[BASE]).write(imgfs.folder / name)
    mountpoint = imgfs.mountpoint()
    assert imgfs.run("mount", "-q", "--log-file", imgfs.log, archive, mountpoint).status == 0
    assert [one["image"] for one in _listed(imgfs)] == [str(archive)]
    (mount,) = (one for one in mounts() if one.mountpoint == str(mountpoint))
    assert MountStatus(mount, State.STALE).image == str(archive)


def test_attributes_that_make_no_sense_are_no_numbers() -> None:
    mount = Mount("/mnt", "fuse.imgfs", 1, "nginx%3Alatest")
    for text in ("", "-1", "²", "x", "9" * 40):
        assert MountStatus(mount, State.MOUNTED, {"pid": text}).number("pid") is None
    assert MountStatus(mount, State.MOUNTED, {"pid": "12"}).number("pid") == 12
    assert MountStatus(mount, State.STALE).image == "nginx:latest"


def test_umount_takes_several_and_tries_them_all(imgfs: Bench, archive: Path) -> None:
    first, second = imgfs.mount(archive), imgfs.mount(archive, at=imgfs.mountpoint("second"))
    done = imgfs.run("umount", first, imgfs.folder, second)
    assert done == Finished(9, "", f"imgfs: {imgfs.folder} is not a mountpoint; imgfs list shows what is mounted\n")
    assert mounted_below(imgfs.folder) == []


def test_umount_refuses_what_is_no_image_also_lazily(imgfs: Bench) -> None:
    folder = imgfs.mountpoint()
    with tmpfs(folder):
        for options in ([], ["-l"]):
            done = imgfs.run("umount", *options, folder)
            assert done == Finished(9, "", f"imgfs: {folder} is not an imgfs mount but of type tmpfs; use umount\n")
        assert the_mount(folder).file_system == "tmpfs"


def test_a_lazy_umount_takes_a_mount_away_while_a_file_is_open(imgfs: Bench, archive: Path) -> None:
    mountpoint = imgfs.mount(archive)
    with (mountpoint / "config").open("rb") as file:
        assert imgfs.run("umount", mountpoint).status == 9
        assert imgfs.run("umount", "-l", mountpoint) == Finished(0, "", "")
        assert mounted_below(mountpoint) == []
        assert file.read() == CONFIG
    imgfs.nothing_left()


@pytest.mark.parametrize("who", ["user", "root"])
def test_umount_all_takes_all_of_a_user_and_root_all(user: Bench, who: str) -> None:
    archive = Archive(layers=[BASE]).write(user.folder / "image.tar")
    commands = {"user": user.command, "root": user.command[-1:]}
    for name, owner in (("a", "user"), ("b", "user"), ("c", "root")):
        mountpoint = user.mountpoint(name)
        if owner == "user":
            os.chown(mountpoint, 65534, 65534)
        user.command = commands[owner]
        user.environment["IMGFS_CACHE_DIR"] = str(user.folder / f"cache-of-{owner}")
        user.mount(archive, at=mountpoint)
    # In a namespace of its own, so that it takes none of other tests' or people's.
    script = '"$@" umount -a; echo $?; exec cat /proc/self/mountinfo'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *commands[who]]
    done = subprocess.run(words, env=user.environment, capture_output=True, text=True, check=True, errors="replace")
    status, *table = done.stdout.splitlines()
    left = [line.split()[4] for line in table if line.split()[4].startswith(f"{user.folder}/")]
    assert (status, done.stderr, left) == ("0", "", [f"{user.folder}/c"] if who == "user" else [])
    assert len(mounted_below(user.folder)) == 3


def test_umount_wants_a_mountpoint_or_all(imgfs: Bench) -> None:
    said = "imgfs: the following arguments are required: MOUNTPOINT; see imgfs umount --help\n"
    assert imgfs.run("umount", "-l") == Finished(2, "", said)
