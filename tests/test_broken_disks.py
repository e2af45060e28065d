"""Disks that fail under an archive, full ones under a log, read-only ones under a cache: errors there, and no more."""

import errno
import os
import random
import subprocess
from collections.abc import Iterator

import pytest

from tests.builders import Archive, image_config, layer
from tests.file_systems import tmpfs
from tests.mounts import Bench, Finished
from tests.processes import until
from tests.requirements import FUSE, ROOT, need
from tests.slow_archive import SlowFile

NOISE = random.Random(6).randbytes(3_000_000)
"""More than the kernel reads ahead."""
PLAIN = layer({"noise": NOISE, "other": NOISE})
ARCHIVE = Archive(layers=[PLAIN], config=image_config([PLAIN]))


@pytest.fixture(name="disk")
def broken_disk(imgfs: Bench) -> Iterator[SlowFile]:
    need(FUSE, ROOT)
    disk = SlowFile(imgfs, ARCHIVE.write(imgfs.folder / "image").read_bytes())
    yield disk
    disk.end()


def test_an_unreadable_archive_is_an_io_error_where_it_is_read_and_only_there(imgfs: Bench, disk: SlowFile) -> None:
    mountpoint = imgfs.mount(disk.path)
    imgfs.log_is_quiet = False
    with (mountpoint / "layers" / "0" / "noise").open("rb", buffering=0) as file:
        disk.fail()
        with pytest.raises(OSError, match="Input/output error") as raised:
            os.pread(file.fileno(), 4096, 2_500_000)
        assert raised.value.errno == errno.EIO
        assert (mountpoint / "config").read_bytes() == ARCHIVE.config_data
        assert os.listdir(mountpoint / "layers" / "0") == ["noise", "other"]
        disk.go()
        assert os.pread(file.fileno(), 4096, 2_500_000) == NOISE[2_500_000:][:4096]
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")


def test_a_layer_that_cannot_be_read_is_not_indexed_by_half(imgfs: Bench, disk: SlowFile) -> None:
    mountpoint = imgfs.mount(disk.path)
    imgfs.log_is_quiet = False
    disk.fail()
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(mountpoint / "layers" / "0")
    until(lambda: imgfs.made_files(mountpoint) == [], "nothing half-made is kept")
    disk.go()
    assert (mountpoint / "layers" / "0" / "noise").read_bytes() == NOISE


def test_a_full_disk_under_the_log_stops_nothing(imgfs: Bench, disk: SlowFile) -> None:
    with tmpfs(imgfs.mountpoint("full"), "64k") as full:
        log = full / "log"
        done = imgfs.run("mount", "-q", "--log-file", log, disk.path, imgfs.mountpoint())
        assert done == Finished(0, "", "")
        mountpoint = imgfs.folder / "mnt"
        with pytest.raises(OSError, match="No space left"):
            (full / "filler").write_bytes(bytes(1 << 20))
        disk.fail()
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output error"):
                os.listdir(mountpoint / "layers" / "0")
        disk.go()
        assert (mountpoint / "layers" / "0" / "other").read_bytes() == NOISE
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all processes end")


def test_a_read_only_cache_that_was_named_is_refused(imgfs: Bench) -> None:
    archive = ARCHIVE.write(imgfs.folder / "image.tar")
    with tmpfs(imgfs.mountpoint("disk")) as place:
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        done = imgfs.run("mount", "--cache-dir", place / "cache", archive, imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (8, "", 1)
    assert done.err.startswith("imgfs: ")
    assert str(place) in done.err
    assert ": Read-only file system; " in done.err
