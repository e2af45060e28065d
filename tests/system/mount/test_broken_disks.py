"""Disks that fail under an archive, full ones under a log, read-only ones under a cache: errors there, and no more."""

import contextlib
import errno
import os
import random
import re
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.support.builders import Archive, compressed, image_config, layer
from tests.support.failing_disk import failing_disk, in_place_of
from tests.support.fake_engine import Engine, default_engine, json_answer
from tests.support.file_systems import tmpfs
from tests.support.mounts import Bench, Finished
from tests.support.processes import mounts_at, until
from tests.support.requirements import FUSE, ROOT, need
from tests.support.slow_archive import SlowFile

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
        disk.mend()
        assert os.pread(file.fileno(), 4096, 2_500_000) == NOISE[2_500_000:][:4096]
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")


def test_a_layer_that_cannot_be_read_is_not_indexed_by_half(imgfs: Bench, disk: SlowFile) -> None:
    mountpoint = imgfs.mount(disk.path)
    imgfs.log_is_quiet = False
    disk.fail()
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(mountpoint / "layers" / "0")
    until(lambda: imgfs.made_files(mountpoint) == [], "nothing half-made is kept")
    disk.mend()
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
        disk.mend()
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


@pytest.fixture(name="engine")
def engine_on_a_socket(imgfs: Bench) -> Iterator[Engine]:
    """An engine that has the image."""
    with default_engine(imgfs, ARCHIVE) as engine:
        yield engine


def _fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    assert os.statvfs(disk).f_bavail == 0


@pytest.mark.parametrize("size", ["64k", "5m"])
def test_a_cache_without_room_keeps_nothing_by_half(imgfs: Bench, engine: Engine, size: str) -> None:
    engine.script.inspect = json_answer(engine.script.inspected(Size=10_000))  # so that it is tried
    with tmpfs(imgfs.mountpoint("disk"), size) as disk:
        mountpoint = imgfs.mount("img", "--cache-dir", disk / "cache")
        assert (mountpoint / "rootfs" / "noise").read_bytes() == NOISE
        assert [os.path.dirname(path) for path in imgfs.made_files(mountpoint)] == [str(imgfs.spool)]
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all processes end")
        names = ["CACHEDIR.TAG", "blobs", "files", "lock", "saved", "tags"]
        assert sorted(path.name for path in disk.glob("cache/**/*")) == names


def test_a_cache_on_a_disk_that_is_full_by_now_gives_what_it_has_and_keeps_no_more(
    imgfs: Bench, engine: Engine
) -> None:
    with tmpfs(imgfs.mountpoint("disk"), "20m") as disk:
        cache = ("--cache-dir", disk / "cache")
        mountpoint = imgfs.mount("img", *cache)
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all is kept")
        (entry,) = disk.glob("cache/saved/*")
        _fill(disk)
        imgfs.log_is_quiet = False
        imgfs.mount("img", *cache, at=mountpoint)
        assert (mountpoint / "rootfs" / "noise").read_bytes() == NOISE
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all processes end")
        assert sorted(os.listdir(entry)) == ["index", "tar"]
        assert sum(path.endswith("/get") for path in engine.asked) == 1


def test_a_new_cache_on_a_full_disk_is_refused_in_one_line(imgfs: Bench, engine: Engine) -> None:
    with tmpfs(imgfs.mountpoint("disk"), "64k") as disk:
        _fill(disk)
        done = imgfs.run("mount", "--cache-dir", disk / "cache", "img", imgfs.mountpoint())
        why = "No space left on device; choose another directory with --cache-dir, or --no-cache"
        assert done == Finished(8, "", f"imgfs: cannot use the cache {disk / 'cache'}: {why}\n")
        assert engine.asked == []
        assert list(disk.glob("cache/**/*")) == []
        assert mounts_at(imgfs.folder / "mnt") == []


WAYS: dict[str, tuple[str, ...]] = {
    "an engine's image": ("--no-cache", "img"),
    "a compressed archive": ("image.tar.gz",),
    "compressed layers that are indexed at once": ("--no-cache", "--index", "zipped.tar"),
}
PLAIN_LAYERS = ("--no-cache", "--index", "image.tar")
"""They need a file for the index alone, which may lie in memory if the directory cannot be used at all."""
FULL = "No space left on device"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        *product(WAYS.values(), ["Read-only file system", "No such file or directory", FULL]),
        (PLAIN_LAYERS, FULL),
    ],
)
@pytest.mark.usefixtures("engine")
def test_a_tmpdir_that_cannot_be_written_is_one_line_and_no_mount(
    imgfs: Bench, words: tuple[str, ...], why: str
) -> None:
    ARCHIVE.write(imgfs.folder / "image.tar")
    ZIPPED.write(imgfs.folder / "zipped.tar")
    (imgfs.folder / "image.tar.gz").write_bytes(compressed(ARCHIVE.data(), "gzip"))
    with tmpfs(imgfs.mountpoint("disk"), "64k") as disk:
        tmpdir = disk
        if why.startswith("Read-only"):
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        elif why.startswith("No such"):
            tmpdir = disk / "gone"
        else:
            _fill(disk)
        before = sorted(os.listdir(disk))
        done = imgfs.run("mount", "--log-file", imgfs.log, "--tmpdir", tmpdir, *words, imgfs.mountpoint())
        assert (done.status, done.out, done.err.count("\n")) == (8, "", 1)
        assert re.fullmatch(rf"imgfs: .*{tmpdir}[:;] .*choose another directory with --tmpdir\n", done.err)
        assert why in done.err or " 0.0 MB" in done.err
        assert mounts_at(imgfs.folder / "mnt") == []
        assert sorted(os.listdir(disk)) == before
        until(lambda: not imgfs.processes(), "all processes end")


def test_a_tmpdir_that_cannot_be_written_is_an_error_of_the_first_look_alone(imgfs: Bench) -> None:
    archive = ZIPPED.write(imgfs.folder / "image.tar")
    imgfs.log_is_quiet = False
    with tmpfs(imgfs.mountpoint("disk"), "8m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        mountpoint = imgfs.mount(archive, "--no-cache", "--tmpdir", disk)
        with pytest.raises(OSError, match=r"No space left on device"):
            os.listdir(mountpoint / "rootfs")
        assert (mountpoint / "config").read_bytes() == ZIPPED.config_data
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert (mountpoint / "rootfs" / "noise").read_bytes() == NOISE
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all processes end")


def test_plain_layers_need_no_tmpdir(imgfs: Bench) -> None:
    archive = ARCHIVE.write(imgfs.folder / "image.tar")
    with tmpfs(imgfs.mountpoint("disk")) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        mountpoint = imgfs.mount(archive, "--no-cache", "--tmpdir", disk)
        assert (mountpoint / "rootfs" / "noise").read_bytes() == NOISE
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all processes end")


ZIPPED = Archive(layers=[compressed(PLAIN, "gzip")], config=image_config([PLAIN]))


def test_a_spool_that_cannot_be_written_is_one_line_and_leaves_nothing(imgfs: Bench) -> None:
    stream = compressed(ARCHIVE.data(), "gzip")
    (imgfs.folder / "image.tar.gz").write_bytes(stream)
    with failing_disk(imgfs) as disk:
        disk.fail_to_write(2_000_000)
        done = imgfs.run("mount", "--tmpdir", disk.path, imgfs.folder / "image.tar.gz", imgfs.mountpoint())
        assert (done.status, done.out, done.err.count("\n")) == (8, "", 1)
        assert f"cannot write in {disk.path}: Input/output error; choose another directory with --tmpdir" in done.err
        assert os.listdir(disk.path) == []
        until(lambda: not imgfs.processes(), "all processes end")


def test_a_layer_that_cannot_be_written_down_is_an_error_until_the_disk_is_well(imgfs: Bench) -> None:
    archive = ZIPPED.write(imgfs.folder / "image.tar")
    with failing_disk(imgfs) as disk:
        mountpoint = imgfs.mount(archive, "--no-cache", "--tmpdir", disk.path)
        imgfs.log_is_quiet = False
        for start in (0, 2_000_000):
            disk.fail_to_write(start)
            with pytest.raises(OSError, match=r"Input/output error|No space left on device"):
                os.listdir(mountpoint / "layers" / "0")
        assert (mountpoint / "config").read_bytes() == ZIPPED.config_data
        disk.be_well()
        assert (mountpoint / "layers" / "0" / "noise").read_bytes() == NOISE
        assert "Traceback" not in imgfs.log.read_text()


def test_a_kept_index_that_cannot_be_read_is_made_anew(imgfs: Bench) -> None:
    archive = ARCHIVE.write(imgfs.folder / "image.tar")
    index = _kept_index(imgfs, archive)
    imgfs.log_is_quiet = False
    with failing_disk(imgfs, index) as disk, in_place_of(index, disk.file):
        disk.fail_to_read(100, 200)
        mountpoint = imgfs.mount(archive, at=imgfs.folder / "mnt")
        assert (mountpoint / "layers" / "0" / "noise").read_bytes() == NOISE
    said = [line.partition("]: ")[2] for line in imgfs.log.read_text().splitlines()]
    place = f"WARNING: {index.parent}: "
    assert said == [
        f"{place}dropped {index.name}: cannot read it: Input/output error",
        f"{place}cannot cache {index.name}: Device or resource busy",  # the disk is mounted there
    ]


def test_a_kept_index_that_is_cut_while_it_is_used_changes_nothing(imgfs: Bench) -> None:
    archive = ARCHIVE.write(imgfs.folder / "image.tar")
    index = _kept_index(imgfs, archive)
    mountpoint = imgfs.mount(archive, at=imgfs.folder / "mnt")
    assert os.listdir(mountpoint / "layers" / "0") == ["noise", "other"]
    os.truncate(index, 0)
    assert (mountpoint / "rootfs" / "noise").read_bytes() == NOISE
    assert (mountpoint / "layers" / "0" / "other").read_bytes() == NOISE
    assert not (mountpoint / "rootfs" / "absent").exists()


def _kept_index(imgfs: Bench, archive: Path) -> Path:
    """Mount *archive*, look, and return the index that is kept; nothing is mounted then."""
    mountpoint = imgfs.mount(archive)
    assert os.listdir(mountpoint / "layers" / "0") == ["noise", "other"]
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    until(lambda: not imgfs.processes(), "all is kept")
    (index,) = imgfs.cache.glob("*/*/*.layer")
    return index
