"""A path of 10,000 directories, longer than any call takes, walked in a real mount step by step."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import Archive, image_config
from tests.support.changesets import changeset, file, folder
from tests.support.mounts import Bench, Finished

DEPTH = 10_000
BOTTOM = "/".join(["d"] * DEPTH)
DATA = random.Random(7).randbytes(300_000)
LAYERS = [changeset(file(f"{BOTTOM}/lower", DATA)), changeset(folder("d/d"), file(f"{BOTTOM}/upper", b"upper"))]
ARCHIVE = Archive(layers=LAYERS, config=image_config(LAYERS))
PATH_MAX = 4096


@pytest.fixture(name="mountpoint")
def deep_mount(imgfs: Bench) -> Path:
    """The image, mounted."""
    return imgfs.mount(ARCHIVE.write(imgfs.folder / "image.tar"))


def _at_the_bottom(top: Path) -> int:
    """Open each directory from the one above, and return the last."""
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(DEPTH):
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    return here


def _read(name: str, directory: int) -> bytes:
    with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=directory)) as data:
        return data.read()


def test_each_level_is_opened_from_the_one_above_and_the_bottom_is_right(imgfs: Bench, mountpoint: Path) -> None:
    assert len(BOTTOM) > PATH_MAX
    for top, names in (("rootfs", ["lower", "upper"]), ("layers/0", ["lower"]), ("layers/1", ["upper"])):
        bottom = _at_the_bottom(mountpoint / top)
        try:
            assert sorted(os.listdir(bottom)) == names
            for name in names:
                assert _read(name, bottom) == {"lower": DATA, "upper": b"upper"}[name]
            assert os.stat("..", dir_fd=bottom).st_ino != os.stat(".", dir_fd=bottom).st_ino
        finally:
            os.close(bottom)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()


def test_a_process_that_changes_its_directory_each_time_gets_there_and_back(imgfs: Bench, mountpoint: Path) -> None:
    program = """if True:
        import os, sys
        depth = int(sys.argv[1])
        for _ in range(depth): os.chdir("d")
        print(open("upper").read())
        for _ in range(depth): os.chdir("..")
        for _ in range(depth): os.chdir("d")
        print(sorted(os.listdir(".")))
    """
    words = [sys.executable, "-c", program, str(DEPTH)]
    done = subprocess.run(words, cwd=mountpoint / "rootfs", capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "upper\n['lower', 'upper']\n"
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()


@pytest.mark.parametrize(("top", "directories"), [("rootfs", DEPTH), ("layers", 2 * DEPTH)])
def test_find_ends_and_counts_all(imgfs: Bench, mountpoint: Path, top: str, directories: int) -> None:
    words = ["find", str(mountpoint / top), "-name", "d", "-printf", "d", "-o", "-type", "f", "-printf", "f"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert (done.stdout.count("d"), done.stdout.count("f")) == (directories, 2)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()


def test_a_whole_path_is_too_long_and_no_more(imgfs: Bench, mountpoint: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        os.stat(f"{mountpoint}/rootfs/{BOTTOM}")
    assert os.listdir(mountpoint / "rootfs") == ["d"]
    assert imgfs.run("cat", f"{imgfs.folder}/image.tar:/{BOTTOM}/upper") == Finished(0, "upper", "")
