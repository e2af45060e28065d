"""Mounts of images whose files are all cached: made again without opening the image."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusefs.mount.kernel.record import record_name
from fusefs.oci.platform import Platform
from tests.support.builders import LAYERS, Archive, compressed, image_config
from tests.support.erofs_mounts import by_kernel, kind, need_kernel_mounts, seal_again, until_kernel
from tests.support.fake_engine import Engine, default_engine, json_answer
from tests.support.file_systems import disk
from tests.support.layouts import HOST, OTHER, Layout, platform_json
from tests.support.mounts import COMMAND, Bench, tree
from tests.support.processes import until
from tests.support.requirements import give_up

pytestmark = pytest.mark.usefixtures("kernel_mounts")

_OPENED = {"fusefs.image.model", "fusefs.oci.documents", "fusefs.tree.node", "http.client", "logging", "trio"}
"""Some of what is imported if an image is opened or served."""


@pytest.fixture(name="kernel_mounts")
def kernel_mounts_fixture(imgfs: Bench) -> None:
    """Skip where the kernel mounts no EROFS; mount by the default driver."""
    need_kernel_mounts()
    imgfs.driver = ""


@pytest.fixture(name="engine")
def engine_on_a_socket(imgfs: Bench) -> Iterator[Engine]:
    """An engine with an image that has a compressed layer."""
    layers = [LAYERS[0], compressed(LAYERS[1], "gzip"), *LAYERS[2:]]
    with default_engine(imgfs, Archive(layers=layers, config=image_config(LAYERS))) as engine:
        yield engine


def record(imgfs: Bench) -> Path:
    """Return the one record in the cache, as soon as all is written."""
    until(lambda: not imgfs.processes(), "all is written")
    (found,) = imgfs.cache.glob("*/*/*.mount")
    return found


def mounted_again(imgfs: Bench, image: str | Path, *options: str) -> tuple[Path, set[str], str]:
    """Mount by the kernel; return the mountpoint, what of `_OPENED` was imported, and the message."""
    command, mountpoint = imgfs.command, imgfs.mountpoint("again")
    imgfs.command = (sys.executable, "-X", "importtime", COMMAND)
    done = imgfs.run("mount", *options, image, mountpoint)
    imgfs.command = command
    assert (done.status, kind(mountpoint)) == (0, "erofs")
    until(lambda: not imgfs.processes(), "no process is left")
    *imports, said = done.err.splitlines()
    return mountpoint, {line.rpartition("|")[2].strip() for line in imports} & _OPENED, said


def told(said: str) -> str:
    """Return what a message says of the image."""
    return said.rpartition(" (")[2].partition("; log: ")[0]


def test_an_engine_is_asked_which_image_it_is_and_nothing_is_opened(imgfs: Bench, engine: Engine) -> None:
    first = imgfs.mountpoint("first")
    message = imgfs.run("mount", "--driver", "erofs", "img", first).err.splitlines()[-1]
    record(imgfs)
    engine.asked.clear()
    again, opened, said = mounted_again(imgfs, "img")
    assert (opened, engine.asked, told(said)) == (set(), ["/images/img/json"], told(message))
    assert tree(again) == tree(first)
    assert os.getxattr(again, "user.imgfs.image") == b"img"


def test_an_archive_is_compared_and_not_opened(imgfs: Bench, tmp_path: Path) -> None:
    with disk("xfs", tmp_path / "disk") as folder:
        archive = Archive().write(folder / "image.tar")
        first = by_kernel(imgfs, archive)
        record(imgfs)
        again, opened, _ = mounted_again(imgfs, archive)
        assert (opened, tree(again)) == (set(), tree(first))
        with archive.open("r+b") as file:  # the mounts show a snapshot
            file.write(b"x")
        assert tree(again) == tree(first)
        Archive(layers=LAYERS[:1], config=image_config(LAYERS[:1])).write(archive)
        assert imgfs.run("umount", again).status == 0
        done = imgfs.run("mount", archive, again)
        assert done.status == 0
        assert "1 layer" in done.err
        assert imgfs.run("umount", first, again).status == 0
        until(lambda: not imgfs.processes(), "nobody has the archive open")


def test_the_process_that_lets_the_kernel_take_over_records_it(imgfs: Bench, engine: Engine) -> None:
    first = imgfs.mount("img")
    os.listdir(first / "rootfs")
    until_kernel(first)
    record(imgfs)
    engine.asked.clear()
    again, opened, _ = mounted_again(imgfs, "img")
    assert (opened, tree(again)) == (set(), tree(first))


@pytest.mark.parametrize(
    "change", [{"RepoTags": ["img:latest", "other:1"]}, {"RepoDigests": ["img@sha256:" + "0" * 64]}, {"Size": 1}]
)
def test_what_the_engine_says_otherwise_is_shown(imgfs: Bench, engine: Engine, change: dict[str, object]) -> None:
    by_kernel(imgfs, "img", name="first")
    record(imgfs)
    engine.script.inspect = json_answer(engine.script.inspected(**change))
    again, opened, _ = mounted_again(imgfs, "img")
    assert bool(opened) == ("Size" not in change)
    index = json.loads((again / "index.json").read_bytes())
    fresh = imgfs.mount("img", "--driver", "fuse", "--no-cache")
    assert index == json.loads((fresh / "index.json").read_bytes())


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("options", [["--foreground"], ["--verbose"], ["--log-file", "log"], ["--driver", "erofs"]])
def test_options_on_which_no_view_depends_are_no_other_mount(imgfs: Bench, options: list[str]) -> None:
    first = by_kernel(imgfs, "img", name="first")
    name = record(imgfs).name
    if options == ["--foreground"]:
        process = imgfs.foreground("img", at=imgfs.mountpoint("again"))
        process.terminate()
        assert process.wait(20) == 0
    else:
        again, opened, _ = mounted_again(imgfs, "img", *options)
        assert opened <= {"logging"}
        assert tree(again) == tree(first)
    assert record(imgfs).name == name


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _emptied(path: Path) -> None:
    os.truncate(path, 0)


def _other_bytes_known(path: Path) -> None:
    metadata, devices, known, contents = json.loads(path.read_bytes())
    known[0][1] = "x" + known[0][1][1:]
    path.write_text(json.dumps([metadata, devices, known, contents]))


def _other_devices(path: Path) -> None:
    metadata, devices, known, contents = json.loads(path.read_bytes())
    path.write_text(json.dumps([metadata, devices[::-1], known, contents]))


def _fewer_devices(path: Path) -> None:
    metadata, devices, known, contents = json.loads(path.read_bytes())
    path.write_text(json.dumps([metadata, devices[:1], known, contents]))


def _of_another_kind(path: Path) -> None:
    path.write_text('{"metadata": [[]]}')


def _without_the_metadata(path: Path) -> None:
    for file in path.parent.glob("*.erofs*"):
        file.unlink()


def _without_the_plain_tar(path: Path) -> None:
    for file in path.parent.glob("*.tar*"):
        file.unlink()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("damage", "sealed"),
    [
        (_cut, False),
        (_cut, True),
        (_emptied, True),
        (_other_bytes_known, True),
        (_other_devices, True),
        (_fewer_devices, True),
        (_of_another_kind, True),
        (_without_the_metadata, True),
        (_without_the_plain_tar, True),
    ],
)
def test_a_record_that_does_not_fit_opens_the_image(
    imgfs: Bench, damage: Callable[[Path], None], *, sealed: bool
) -> None:
    first = by_kernel(imgfs, "img", name="first")
    path = record(imgfs)
    damage(path)
    if sealed:  # as a disk that errs leaves it
        seal_again(path.with_name(path.name + ".seal"), path)
    again = by_kernel(imgfs, "img", name="again")
    assert tree(again) == tree(first)


def test_the_warnings_of_an_archive_are_shown_each_time(imgfs: Bench, tmp_path: Path) -> None:
    with disk("xfs", tmp_path / "disk") as folder:
        archive = folder / "image.tar"
        archive.write_bytes(Archive().data().rstrip(b"\0") + bytes(512))  # one block of zeros at the end, not two
        said = []
        for name in ("first", "again"):
            mountpoint = imgfs.mountpoint(name)
            done = imgfs.run("mount", "--driver", "erofs", archive, mountpoint)
            assert done.status == 0
            said.append([line for line in done.err.splitlines() if line.startswith("imgfs: warning")])
            until(lambda: not imgfs.processes(), "all is written")
            assert imgfs.run("umount", mountpoint).status == 0
    assert said[0] == said[1]
    assert said[0]


def test_an_image_without_a_root_file_system_is_opened(imgfs: Bench, engine: Engine) -> None:
    engine.script.archive = Archive()
    by_kernel(imgfs, "img", "--verify", name="first")
    until(lambda: not imgfs.processes(), "all is written")
    assert list(imgfs.cache.glob("*/*/*.mount")) == []


def test_of_two_platforms_each_machine_gets_its_own(imgfs: Bench, tmp_path: Path) -> None:
    if os.uname().machine != "x86_64":
        give_up("runs a command as on an older machine, which x86_64 can")
    layout, other = Layout(), Platform("linux", "386")
    images = [
        layout.image(LAYERS[:count], runs_on=platform, platform=platform_json(platform))
        for count, platform in ((1, other), (2, HOST))
    ]
    with disk("xfs", tmp_path / "disk") as folder:
        archive = folder / "image.tar"
        archive.write_bytes(layout.list(layout.index(*images)).tar())
        first = by_kernel(imgfs, archive, name="first")
        record(imgfs)
        imgfs.command = ("setarch", "i686", *imgfs.command)
        second = by_kernel(imgfs, archive, name="second")
        shown = [sorted(os.listdir(mountpoint / "layers")) for mountpoint in (first, second)]
        assert imgfs.run("umount", first, second).status == 0
        until(lambda: not imgfs.processes(), "nobody has the archive open")
    assert shown == [["0", "1"], ["0"]]


def test_what_was_said_when_the_image_was_opened_is_said_again(imgfs: Bench, tmp_path: Path) -> None:
    layout = Layout()
    gone = layout.index(layout.image(LAYERS[:1], runs_on=OTHER, platform=platform_json(OTHER)))
    layout.list(layout.index(gone, layout.image(LAYERS, platform=platform_json(HOST))))
    layout.remove(gone)
    with disk("xfs", tmp_path / "disk") as folder:
        archive = folder / "image.tar"
        archive.write_bytes(layout.tar())
        for name in ("first", "again"):
            mountpoint = imgfs.mountpoint(name)
            done = imgfs.run("mount", "--driver", "erofs", archive, mountpoint)
            assert (done.status, "is not stored" in done.err) == (0, True)
            assert imgfs.run("umount", mountpoint).status == 0
            until(lambda: not imgfs.processes(), "all is written")


def test_no_file_of_an_editor_beside_the_modules_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("a = 1")
    (tmp_path / ".#a.py").symlink_to("user@machine.1")
    monkeypatch.setattr("fusefs.mount.kernel.record._CODE", str(tmp_path))
    before = record_name([1])
    assert record_name([1]) == before != record_name([2])
    (tmp_path / "a.py").write_text("a = 10")
    assert record_name([1]) != before
