"""``imgfs mount --all``: all images of an engine as one directory."""

import contextlib
import ctypes
import errno
import json
import os
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.changesets import changeset, file
from tests.support.file_systems import tmpfs
from tests.support.many_images import ManyImages, ManyImagesEngine, image_id, many_images
from tests.support.mounts import Bench, tree
from tests.support.processes import until

NAMES = ("nginx:1.27", "nginx:latest", "ghcr.io/team/app:v1", "localhost:5000/own:1", "docker.io/library/alpine:3")


def _image(content: str) -> Archive:
    return Archive(layers=(changeset(file("etc/name", content.encode())),))


@pytest.fixture(name="images")
def some_images() -> ManyImages:
    """Images, two names of which are one."""
    made = ManyImages({name: _image(name) for name in NAMES}, [_image("unnamed")])
    made.names["nginx:latest"] = made.names["nginx:1.27"]
    return made


@pytest.fixture(name="engine")
def serving_engine(imgfs: Bench, images: ManyImages) -> Iterator[ManyImagesEngine]:
    """The engine that the bench asks by default."""
    with many_images(imgfs.folder / "engine.sock", images) as engine:
        imgfs.environment["DOCKER_HOST"] = engine.host
        yield engine
        imgfs.end_mounts()
        until(lambda: not imgfs.processes(), "all processes end")


def _mount(imgfs: Bench, *options: str) -> Path:
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--all", "--log-file", imgfs.log, "-v", *options, mountpoint)
    assert (done.status, done.out) == (0, ""), done.err
    return mountpoint


def test_each_name_is_a_directory_and_nothing_is_saved_for_their_names(imgfs: Bench, engine: ManyImagesEngine) -> None:
    mountpoint = _mount(imgfs)
    listed = subprocess.run(["find", ".", "-maxdepth", "2"], cwd=mountpoint, check=True, capture_output=True, text=True)
    shown = ["manifest.json", "config", "blobs", "oci-layout", "index.json", "layers", "rootfs"]
    ids = sorted(key.removeprefix("sha256:")[:12] for key in engine.images.images())
    expected = [
        *(".", "./by-id", *(f"./by-id/{key}" for key in ids), "./docker.io", "./docker.io/library", "./ghcr.io"),
        *("./ghcr.io/team", "./localhost@5000", "./localhost@5000/own@1"),
        *(
            name
            for tag in ("1.27", "latest")
            for name in (f"./nginx@{tag}", *(f"./nginx@{tag}/{one}" for one in shown))
        ),
    ]
    assert sorted(listed.stdout.split()) == sorted(expected)
    subprocess.run(["ls", "-l", mountpoint], check=True, capture_output=True)
    assert (engine.saves, engine.lists) == (0, 1)


def test_a_directory_shows_what_a_mount_of_the_image_shows(imgfs: Bench, engine: ManyImagesEngine) -> None:
    mountpoint = _mount(imgfs)
    alone = imgfs.mount("ghcr.io/team/app:v1", at=imgfs.mountpoint("alone"))
    together = mountpoint / "ghcr.io" / "team" / "app@v1"
    assert (together / "rootfs" / "etc" / "name").read_bytes() == b"ghcr.io/team/app:v1"
    assert tree(together) == tree(alone)
    by_id = mountpoint / "by-id" / image_id(engine.images.names["ghcr.io/team/app:v1"]).removeprefix("sha256:")[:12]
    assert tree(by_id / "rootfs") == tree(alone / "rootfs")
    assert engine.saves == 1
    assert {path: os.lstat(together / path) for path in ("config", "blobs")}.keys() == {"config", "blobs"}
    assert os.getxattr(together, "user.oci.ref") == b"ghcr.io/team/app:v1"
    for name in ("config", "manifest.json", "index.json"):
        assert (together / name).stat().st_size == (alone / name).stat().st_size


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("nginx:1.27", "nginx@1.27"),
        ("nginx", "nginx@latest"),
        ("alpine:3", "docker.io/library/alpine@3"),
        ("alpine@3", "docker.io/library/alpine@3"),
        ("localhost:5000", "localhost@5000"),
        ("localhost@5000/own:1", "own@1"),
        ("ghcr.io/team/app:v1", "../../ghcr.io/team/app@v1"),
        ("ID", "by-id/SHORT"),
        ("FULL", "by-id/SHORT"),
        ("by-id/ENCODED", "../by-id/SHORT"),
        ("by-id/PREFIX", "../by-id/SHORT"),
    ],
)
def test_other_names_are_links_that_are_not_listed(
    imgfs: Bench, engine: ManyImagesEngine, path: str, target: str
) -> None:
    mountpoint = _mount(imgfs)
    full = image_id(engine.images.unnamed[0])
    encoded = full.removeprefix("sha256:")
    for word, value in (("SHORT", encoded[:12]), ("ID", encoded), ("FULL", full), ("ENCODED", encoded)):
        path, target = path.replace(word, value), target.replace(word, value)
    path = path.replace("PREFIX", encoded[:7])
    place = mountpoint / path
    found = os.readlink(place)
    assert os.path.normpath(place.parent / found) == os.path.normpath(place.parent / target)
    assert place.is_dir()
    assert place.name not in os.listdir(place.parent)
    assert engine.saves == 0


@pytest.mark.parametrize("name", ["nothing", "nginx@2", "nginx:2", "by-id/ffffff", "ghcr.io/x", "\xff", "abcd", ".."])
def test_a_name_that_is_none_is_not_there(imgfs: Bench, engine: ManyImagesEngine, name: str) -> None:
    mountpoint = _mount(imgfs)
    assert os.path.lexists(mountpoint / name) == (name == "..")
    assert engine.saves == 0


def test_images_that_come_go_and_move_are_seen_within_two_seconds(imgfs: Bench, engine: ManyImagesEngine) -> None:
    mountpoint = _mount(imgfs)
    name = mountpoint / "nginx@1.27" / "rootfs" / "etc" / "name"
    assert name.read_bytes() == b"nginx:1.27"
    with name.open("rb") as held:
        inside = os.open(mountpoint / "nginx@1.27" / "rootfs", os.O_RDONLY)
        engine.images.names["nginx:1.27"] = _image("moved")
        engine.images.names["new:1"] = _image("new")
        del engine.images.names["nginx:latest"], engine.images.names["ghcr.io/team/app:v1"]
        until((mountpoint / "new@1").is_dir, "the new image is seen", 3)
        assert name.read_bytes() == b"moved"
        assert not (mountpoint / "nginx@latest").exists()
        assert not (mountpoint / "ghcr.io").exists()
        assert held.read() == b"nginx:1.27"
        other = os.open("etc/name", os.O_RDONLY, dir_fd=inside)
        assert os.read(other, 100) == b"nginx:1.27"
        os.close(other)
        os.close(inside)


def test_an_image_that_cannot_be_saved_is_an_error_of_its_directory_alone(
    imgfs: Bench, engine: ManyImagesEngine
) -> None:
    imgfs.log_is_quiet = False
    mountpoint = _mount(imgfs)
    key = image_id(engine.images.names["nginx:1.27"])
    engine.images.broken.add(key)
    for path in ("rootfs", "config"):
        with pytest.raises(OSError, match="Input/output") as caught:
            (mountpoint / "nginx@1.27" / path).stat() if path == "config" else os.listdir(
                mountpoint / "nginx@1.27" / path
            )
        assert caught.value.errno == errno.EIO
    assert engine.saves == 1
    assert b"no room" in os.getxattr(mountpoint / "nginx@1.27", "user.imgfs.error")
    assert imgfs.log.read_text().count("no room") == 1
    assert (mountpoint / "localhost@5000" / "own@1" / "rootfs" / "etc" / "name").read_bytes() == b"localhost:5000/own:1"
    engine.images.broken.clear()
    name = mountpoint / "nginx@1.27" / "rootfs" / "etc" / "name"
    until(lambda: _reads(name) == b"nginx:1.27", "it is tried again", 4)
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(mountpoint / "nginx@1.27", "user.imgfs.error")


def test_a_full_disk_is_an_error_of_its_directory_alone(imgfs: Bench, images: ManyImages, tmp_path: Path) -> None:
    imgfs.log_is_quiet = False
    images.names["large:1"] = Archive(layers=(changeset(file("noise", os.urandom(4_000_000))),))
    with tmpfs(tmp_path, "2m") as disk, many_images(imgfs.folder / "engine.sock", images) as engine:
        imgfs.environment["DOCKER_HOST"] = engine.host
        mountpoint = _mount(imgfs, "--no-cache", "--tmpdir", str(disk))
        with pytest.raises(OSError, match="Input/output"):
            os.listdir(mountpoint / "large@1" / "rootfs")
        why = os.getxattr(mountpoint / "large@1", "user.imgfs.error").decode()
        assert str(disk) in why
        assert why in imgfs.log.read_text()
        assert (mountpoint / "nginx@1.27" / "rootfs" / "etc" / "name").read_bytes() == b"nginx:1.27"
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        noise = mountpoint / "large@1" / "rootfs" / "noise"
        until(lambda: len(_reads(noise)) == 4_000_000, "there is room, and it is tried again", 6)
        imgfs.end_mounts()
        until(lambda: not imgfs.processes(), "all processes end")


def test_an_engine_may_be_restarted(imgfs: Bench, images: ManyImages) -> None:
    imgfs.log_is_quiet = False
    socket = imgfs.folder / "engine.sock"
    with many_images(socket, images) as engine:
        imgfs.environment["DOCKER_HOST"] = engine.host
        mountpoint = _mount(imgfs)
        opened = (mountpoint / "nginx@1.27" / "rootfs" / "etc" / "name").open("rb")
    socket.unlink()
    with pytest.raises(OSError, match="Input/output"):
        os.listdir(mountpoint / "localhost@5000" / "own@1" / "rootfs")
    with many_images(socket, ManyImages({"new:1": _image("new:1")})):
        until(lambda: "new@1" in os.listdir(mountpoint), "what it has now is seen", 6)
        assert "nginx@1.27" not in os.listdir(mountpoint)
        assert (mountpoint / "new@1" / "rootfs" / "etc" / "name").read_bytes() == b"new:1"
        with opened:
            assert opened.read() == b"nginx:1.27"
    imgfs.end_mounts()
    until(lambda: not imgfs.processes(), "all processes end")


def _reads(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_names_answer_while_an_image_is_saved(imgfs: Bench, engine: ManyImagesEngine, images: ManyImages) -> None:
    mountpoint = _mount(imgfs, "--max-saves", "1")
    images.gate = threading.Event()
    waiting = [
        subprocess.Popen(["cat", mountpoint / name / "rootfs/etc/name"], stdout=subprocess.PIPE)
        for name in ("nginx@1.27", "localhost@5000/own@1")
    ]
    until(lambda: engine.saves == 1, "the save begins")
    assert "nginx@1.27" in os.listdir(mountpoint)
    assert os.listdir(mountpoint / "docker.io" / "library") == ["alpine@3"]
    assert (mountpoint / "nginx").is_dir()
    assert engine.saves == 1
    images.gate.set()
    assert [process.communicate(timeout=10)[0] for process in waiting] == [b"nginx:1.27", b"localhost:5000/own:1"]


_GETDENTS = ctypes.CDLL(None).getdents64


def _entries(folder: int) -> list[tuple[str, int]]:
    """Return the names behind the position of an open directory, and where each of them ends."""
    found, buffer = [], ctypes.create_string_buffer(1 << 16)
    while (size := _GETDENTS(folder, buffer, len(buffer))) > 0:
        at = 0
        while at < size:
            _, position, length = struct.unpack_from("=QqH", buffer.raw, at)
            found.append((buffer.raw[at + 19 : at + length].partition(b"\0")[0].decode(), position))
            at += length
    return found


def test_a_position_in_a_directory_means_the_same_when_it_is_opened_again(
    imgfs: Bench, engine: ManyImagesEngine
) -> None:
    engine.images.names |= {f"many{number}:1": _image(f"many{number}") for number in range(20)}
    mountpoint = _mount(imgfs)
    before = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    names = _entries(before)
    _, position = names[10]
    del engine.images.names["many0:1"]
    until(lambda: not (mountpoint / "many0@1").exists(), "the name is gone", 4)
    again = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    os.lseek(again, position, os.SEEK_SET)
    assert [name for name, _ in _entries(again)] == [name for name, _ in names[11:] if name != "many0@1"]
    os.close(before)
    os.close(again)


@pytest.mark.usefixtures("engine")
def test_a_filter_shows_images_with_such_a_name_alone(imgfs: Bench) -> None:
    mountpoint = _mount(imgfs, "--filter", "nginx:*")
    assert sorted(os.listdir(mountpoint)) == ["by-id", "nginx@1.27", "nginx@latest"]
    assert len(os.listdir(mountpoint / "by-id")) == 1


def _image_files(imgfs: Bench, serving: int) -> list[str]:
    """Return the files of images, and directories of cache entries, that a process has open."""
    found = []
    for number in os.listdir(f"/proc/{serving}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{serving}/fd/{number}"))
    return [path for path in found if path.startswith(f"{imgfs.cache}/saved/")]


def _in_use(imgfs: Bench, mountpoint: Path) -> object:
    listed = json.loads(imgfs.run("list", "--json").out)
    return next(one for one in listed if one["mountpoint"] == str(mountpoint))["inUse"]


def test_an_unused_image_is_let_go_and_comes_back_with_the_same_numbers(imgfs: Bench, engine: ManyImagesEngine) -> None:
    mountpoint = _mount(imgfs, "--idle", "2")
    folder = mountpoint / "nginx@1.27" / "rootfs" / "etc"
    serving = imgfs.serving(mountpoint)
    inside = os.open(folder, os.O_RDONLY)
    number = (folder / "name").stat().st_ino
    assert (folder / "name").read_bytes() == b"nginx:1.27"
    assert _in_use(imgfs, mountpoint) == ["nginx@1.27"]
    assert _image_files(imgfs, serving) != []
    until(lambda: _image_files(imgfs, serving) == [], "its files are closed")
    assert _in_use(imgfs, mountpoint) == []
    again = os.open("name", os.O_RDONLY, dir_fd=inside)
    assert (os.fstat(again).st_ino, os.read(again, 100)) == (number, b"nginx:1.27")
    os.close(again)
    os.close(inside)
    assert engine.saves == 1


def test_what_was_open_when_its_image_went_is_forgotten_when_it_is_closed(
    imgfs: Bench, engine: ManyImagesEngine
) -> None:
    mountpoint = _mount(imgfs, "--idle", "1")
    folder = mountpoint / "ghcr.io" / "team"
    number = (folder / "app@v1").stat().st_ino
    with (folder / "app@v1" / "rootfs" / "etc" / "name").open("rb") as held:
        engine.images.names["ghcr.io/team/app:v1"] = _image("moved")
        until(lambda: (folder / "app@v1").stat().st_ino != number, "the other image is seen", 4)
        engine.images.names["later:1"] = _image("later")
        until((mountpoint / "later@1").is_dir, "a later image is seen", 4)
        assert held.read() == b"ghcr.io/team/app:v1"

    def is_given_to_another() -> bool:
        version = len(engine.images.names)
        engine.images.names[f"ghcr.io/team/app:n{version}"] = _image(str(version))
        place = folder / f"app@n{version}"
        until(place.exists, "a new image is seen", 4)
        return place.stat().st_ino == number

    until(is_given_to_another, "its number is free", 30)


def test_an_engine_that_does_not_answer_leaves_the_names_of_before(imgfs: Bench, engine: ManyImagesEngine) -> None:
    imgfs.log_is_quiet = False
    mountpoint = _mount(imgfs)
    engine.images.lists = False
    asked = engine.lists
    until(lambda: "nginx@1.27" in os.listdir(mountpoint) and engine.lists > asked, "the engine is asked again", 4)
    assert (mountpoint / "nginx@1.27" / "rootfs" / "etc" / "name").read_bytes() == b"nginx:1.27"
    assert "cannot list the images" in imgfs.log.read_text()


@pytest.mark.usefixtures("engine")
def test_it_is_an_option_of_mount_8(imgfs: Bench) -> None:
    mountpoint = imgfs.mountpoint()
    options = f"ro,noauto,all,allow_other,_netdev,filter=nginx:latest,max-saves=1,idle=5,log-file={imgfs.log}"
    done = imgfs.run("docker-daemon:", mountpoint, "-o", options)
    assert (done.status, done.out, done.err) == (0, "", "")
    assert sorted(os.listdir(mountpoint)) == ["by-id", "nginx@latest"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--filter", "x"], "--filter needs --all"),
        (["--max-saves", "1"], "--max-saves needs --all"),
        (["--idle", "1"], "--idle needs --all"),
        (["--all", "--subdir", "rootfs"], "--all and --subdir exclude each other"),
        (["--all", "--driver", "erofs"], "--all needs the driver fuse: images come and go"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(imgfs: Bench, words: list[str], message: str) -> None:
    done = imgfs.run("mount", *words, "nginx", imgfs.mountpoint())
    assert (done.status, done.err) == (2, f"imgfs: {message}\n")


def test_an_engine_that_cannot_be_reached_is_an_error_of_the_command(imgfs: Bench) -> None:
    done = imgfs.run("mount", "--all", "-H", "unix:///nowhere.sock", imgfs.mountpoint())
    assert done.status == 3
    assert done.err.startswith("imgfs: cannot reach an engine at unix:///nowhere.sock: No such file or directory; ")


@pytest.mark.parametrize("how", ["umount", "SIGTERM"])
def test_the_mount_ends_while_an_image_is_saved(
    imgfs: Bench, engine: ManyImagesEngine, images: ManyImages, how: str
) -> None:
    mountpoint = _mount(imgfs)
    images.gate = threading.Event()
    waiting = subprocess.Popen(["cat", mountpoint / "nginx@1.27" / "rootfs" / "etc" / "name"], stderr=subprocess.PIPE)
    until(lambda: engine.saves == 1, "the save begins")
    if how == "umount":
        assert imgfs.run("umount", "--lazy", mountpoint).status == 0
        os.kill(next(iter(imgfs.processes())), signal.SIGTERM)
    else:
        os.kill(imgfs.serving(mountpoint), signal.SIGTERM)
    until(lambda: not imgfs.processes(), "the process ends")
    assert waiting.wait(10) == 1
    assert waiting.stderr is not None
    waiting.stderr.close()
    images.gate.set()
