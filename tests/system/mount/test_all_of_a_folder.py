"""``imgfs mount --all FOLDER``: the archives and image layouts in a folder, by their names."""

import os
from pathlib import Path

import pytest

from tests.support.builders import Archive, two_images
from tests.support.changesets import changeset, file
from tests.support.layouts import Layout
from tests.support.mounts import Bench, tree
from tests.support.processes import until

NO_URL = "--all takes a folder, a registry (docker://HOST) or nothing for the images of an engine, but no URL"


def _layers(content: str) -> tuple[bytes]:
    return (changeset(file("name", content.encode())),)


def _image(content: str) -> Archive:
    return Archive(layers=_layers(content))


@pytest.fixture(name="folder")
def images_folder(imgfs: Bench) -> Path:
    """A folder with images and other files."""
    folder = imgfs.folder / "images"
    folder.mkdir()
    _image("one").write(folder / "one.tar")
    layout = Layout()
    layout.list(layout.image(_layers("layout"))).write(str(folder / "layout"))
    (folder / "notes.txt").write_bytes(b"no image")
    (folder / "empty").mkdir()
    (folder / ".hidden.tar").write_bytes(b"")
    return folder


def _mount(imgfs: Bench, folder: Path, *options: str) -> Path:
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--all", "--log-file", imgfs.log, *options, folder, mountpoint)
    assert (done.status, done.out) == (0, ""), done.err
    assert done.err.startswith(f"imgfs: mounted all of {folder} on {mountpoint} in ")
    return mountpoint


def test_each_archive_and_layout_is_a_directory(imgfs: Bench, folder: Path) -> None:
    mountpoint = _mount(imgfs, folder)
    assert sorted(os.listdir(mountpoint)) == ["layout", "one.tar"]
    assert (mountpoint / "one.tar" / "rootfs" / "name").read_bytes() == b"one"
    assert (mountpoint / "layout" / "rootfs" / "name").read_bytes() == b"layout"
    alone = imgfs.mount(folder / "one.tar", at=imgfs.mountpoint("alone"))
    assert tree(mountpoint / "one.tar") == tree(alone)


def test_a_file_that_comes_goes_or_changes_is_seen(imgfs: Bench, folder: Path) -> None:
    mountpoint = _mount(imgfs, folder)
    name = mountpoint / "one.tar" / "rootfs" / "name"
    assert name.read_bytes() == b"one"
    os.rename(_image("other").write(folder / "new"), folder / "one.tar")
    _image("two").write(folder / "two.tar")
    until((mountpoint / "two.tar").is_dir, "the new archive is seen", 3)
    assert name.read_bytes() == b"other"
    (folder / "two.tar").unlink()
    until(lambda: not (mountpoint / "two.tar").exists(), "it is gone", 3)


def test_several_images_in_an_archive_are_directories_below_it(imgfs: Bench, folder: Path) -> None:
    imgfs.log_is_quiet = False
    layout = Layout()
    layout.list(layout.image(_layers("a")), "team/a:1").list(layout.image(_layers("b")), "b:2")
    layout.write(str(folder / "several"))
    mountpoint = _mount(imgfs, folder)
    several = mountpoint / "several"
    with pytest.raises(OSError, match="Input/output"):
        os.listdir(several / "rootfs")
    until(lambda: sorted(os.listdir(several)) == ["b@2", "team"], "its images are listed", 4)
    assert (several / "b@2" / "rootfs" / "name").read_bytes() == b"b"
    (folder / "two.tar").write_bytes(two_images())
    until((mountpoint / "two.tar").is_dir, "another archive is seen", 4)
    with pytest.raises(OSError, match="Input/output"):
        os.listdir(mountpoint / "two.tar" / "rootfs")
    until(lambda: sorted(os.listdir(mountpoint / "two.tar")) == ["a@1", "b@1"], "its images are listed", 4)
    assert (several / "team" / "a:1" / "rootfs" / "name").read_bytes() == b"a"


def test_an_archive_that_is_none_is_an_error_of_its_directory(imgfs: Bench, folder: Path) -> None:
    imgfs.log_is_quiet = False
    (folder / "bad.tar").write_bytes(b"x" * 2000)
    mountpoint = _mount(imgfs, folder, "--filter", "*.tar")
    assert sorted(os.listdir(mountpoint)) == ["bad.tar", "one.tar"]
    with pytest.raises(OSError, match="Input/output"):
        os.listdir(mountpoint / "bad.tar" / "layers")
    assert b"bad.tar" in os.getxattr(mountpoint / "bad.tar", "user.imgfs.error")
    assert (mountpoint / "one.tar" / "rootfs" / "name").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        ("./nothing", 4, "cannot list FOLDER/nothing: No such file or directory"),
        (
            "nginx",
            2,
            (
                "--all takes a folder (./nginx), a registry (docker://nginx) "
                "or nothing for the images of an engine, not nginx"
            ),
        ),
        ("s3://images", 2, f"{NO_URL}: s3://images"),
        ("docker-archive:http://h/app.tar?secret", 2, f"{NO_URL}: docker-archive:http://h/app.tar?…"),
    ],
)
def test_another_source_is_an_error(imgfs: Bench, source: str, status: int, message: str) -> None:
    done = imgfs.run("mount", "--all", source, imgfs.mountpoint())
    assert (done.status, done.err) == (status, f"imgfs: {message.replace('FOLDER', str(imgfs.folder))}\n")


def test_a_url_without_a_mountpoint_is_the_same_error(imgfs: Bench) -> None:
    done = imgfs.run("mount", "--all", "http://h/images")
    assert (done.status, done.err) == (2, f"imgfs: {NO_URL}: http://h/images\n")
