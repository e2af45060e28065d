"""A mount that may open 64 files, of an image with more layers: each is right, or an error that names the limit."""

import errno
import os
import random
from pathlib import Path

import pytest

from tests.drills.mount_drills import check_blobs
from tests.support.builders import Archive, compressed, image_config, layer
from tests.support.layouts import Layout
from tests.support.mounts import COMMAND, Bench, Finished

LIMITED = ("sh", "-c", 'ulimit -n 64; exec "$0" "$@"', COMMAND)
COUNT = 100
FILES = [random.Random(number).randbytes(3000) for number in range(COUNT)]
LAYERS = [layer({f"f{number}": data, "d/same": b"%d" % number}) for number, data in enumerate(FILES)]
TOO_MANY = (
    "cannot write in {}: Too many open files; each decompressed or indexed layer needs an open file; "
    "raise the limit (ulimit -n)"
)


def test_plain_layers_need_none_each(imgfs: Bench) -> None:
    imgfs.command = LIMITED
    mountpoint = imgfs.mount(Archive(layers=LAYERS).write(imgfs.folder / "image.tar"))
    assert len(os.listdir(mountpoint / "rootfs")) == COUNT + 1
    assert [(mountpoint / "rootfs" / f"f{number}").read_bytes() for number in range(COUNT)] == FILES
    assert (mountpoint / "rootfs" / "d" / "same").read_bytes() == b"%d" % (COUNT - 1)
    check_blobs(mountpoint)


@pytest.mark.parametrize("options", [(), ("--no-cache",)])
def test_of_compressed_layers_those_are_right_for_which_there_are_files(imgfs: Bench, options: tuple[str, ...]) -> None:
    imgfs.log_is_quiet = False
    mountpoint = imgfs.mount(_compressed(imgfs.folder), *options)
    assert len(os.listdir(mountpoint / "rootfs")) == COUNT + 1
    imgfs.end_mounts()

    imgfs.command = LIMITED
    mountpoint = imgfs.mount(imgfs.folder / "image.tar", *options, at=mountpoint)
    right = 0
    for number in range(COUNT):
        try:
            assert (mountpoint / "layers" / str(number) / f"f{number}").read_bytes() == FILES[number]
            right += 1
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.EIO)  # noqa: PT017 - counted, too
    assert 10 < right < COUNT
    check_blobs(mountpoint)
    imgfs.command = (COMMAND,)
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    imgfs.nothing_left()
    said = TOO_MANY.format(imgfs.spool)
    assert imgfs.log.read_text().count(f"ERROR: {said}") in (1, 2)  # not once for each look


def _compressed(folder: Path) -> Path:
    names = [f"{number}.tar.gz" for number in range(COUNT)]
    stored = [compressed(data, "gzip") for data in LAYERS]
    return Archive(layers=stored, layer_names=names, config=image_config(LAYERS)).write(folder / "image.tar")


def test_a_directory_of_more_layers_than_files_names_the_limit(imgfs: Bench) -> None:
    folder, layout = imgfs.folder / "layout", Layout()
    layout.list(layout.image(layers=LAYERS)).write(str(folder))
    imgfs.command = LIMITED
    message = "imgfs: too many open files; raise their limit (ulimit -n)\n"
    assert imgfs.run("ls", "--no-cache", f"oci:{folder}:/") == Finished(10, "", message)
