"""Disks that fail under one part of an archive, or of what is kept: errors there, the right bytes everywhere else."""

import errno
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive, image_config, layer, sha256
from tests.support.failing_disk import FailingDisk, failing_disk, in_place_of
from tests.support.fake_engine import Engine, default_engine
from tests.support.mounts import Bench, Finished
from tests.support.processes import until

NOISE = [random.Random(seed).randbytes(3_000_000) for seed in range(4)]
"""Each more than the kernel reads ahead."""
LAYERS = [
    layer({"a": NOISE[0], "etc/a": b"a"}),
    layer({"b": NOISE[1], "c": NOISE[2], "etc/b": b"b"}),
    layer({"d": NOISE[3], "etc/d": b"d"}),
]
ARCHIVE = Archive(layers=LAYERS, config=image_config(LAYERS))
FILES = {"a": NOISE[0], "b": NOISE[1], "c": NOISE[2], "d": NOISE[3], "etc/a": b"a", "etc/b": b"b", "etc/d": b"d"}
PAGE = 4096
PART = range(1_000_000, 1_200_000)
"""What cannot be read of the file b."""


def _blob(mountpoint: Path, number: int) -> Path:
    return mountpoint / "blobs" / "sha256" / sha256(LAYERS[number])[7:]


def _is_right(mountpoint: Path, *, but: tuple[str, ...] = (), blobs: tuple[int, ...] = (0, 1, 2)) -> None:
    """Assert that files and blobs have their bytes, all but those that cannot be read."""
    assert (mountpoint / "config").read_bytes() == ARCHIVE.config_data
    for number in blobs:
        assert sha256(_blob(mountpoint, number).read_bytes()) == sha256(LAYERS[number])
    for name in FILES.keys() - but:
        assert (mountpoint / "rootfs" / name).read_bytes() == FILES[name]


def _fails(path: Path) -> None:
    """Assert that *path* cannot be read, or listed, for an error of the disk and no other reason."""
    with pytest.raises(OSError, match=r".") as raised:
        os.listdir(path) if path.is_dir() else path.read_bytes()
    assert raised.value.errno == errno.EIO


def _break(disk: FailingDisk, whole: bytes, part: bytes, within: range) -> None:
    """Let the bytes *within* the one *part* of *whole* be unreadable."""
    assert whole.count(part[:2048]) == 1
    start = whole.index(part[:2048])
    disk.fail_to_read(start + within.start, start + within.stop)


def _pages_are_right_or_errors(path: Path, data: bytes, unreadable: range) -> None:
    """Assert that each page has its bytes, but those with *unreadable* bytes in them, which are errors."""
    with path.open("rb", buffering=0) as file:
        for start in range(0, len(data), PAGE):
            broken = max(start, unreadable.start) < min(start + PAGE, unreadable.stop)
            try:
                assert os.pread(file.fileno(), PAGE, start) == data[start : start + PAGE]
                assert not broken
            except OSError as error:
                assert (error.errno, broken) == (errno.EIO, True)  # noqa: PT017 - it is read elsewhere


def _ends(imgfs: Bench, mountpoint: Path) -> None:
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    until(lambda: not imgfs.processes(), "all processes end")


def test_a_part_of_one_layer_is_an_error_page_by_page_and_all_else_is_right(imgfs: Bench) -> None:
    archive = ARCHIVE.write(imgfs.folder / "image.tar")
    imgfs.log_is_quiet = False
    with failing_disk(imgfs, archive) as disk:
        mountpoint = imgfs.mount(disk.file)
        _break(disk, ARCHIVE.data(), NOISE[1], PART)
        _is_right(mountpoint, but=("b",), blobs=(0, 2))  # also the layer's other files, and its index
        for path in (mountpoint / "rootfs" / "b", mountpoint / "layers" / "1" / "b", _blob(mountpoint, 1)):
            _fails(path)
        _pages_are_right_or_errors(mountpoint / "rootfs" / "b", NOISE[1], PART)
        start = LAYERS[1].index(NOISE[1])
        _pages_are_right_or_errors(_blob(mountpoint, 1), LAYERS[1], range(start + PART.start, start + PART.stop))
        disk.be_well()
        _is_right(mountpoint)
        _ends(imgfs, mountpoint)
    assert "Traceback" not in imgfs.log.read_text()


def test_a_header_that_cannot_be_read_is_an_error_of_its_layer_alone(imgfs: Bench) -> None:
    archive = ARCHIVE.write(imgfs.folder / "image.tar")
    imgfs.log_is_quiet = False
    with failing_disk(imgfs, archive) as disk:
        mountpoint = imgfs.mount(disk.file)
        _break(disk, ARCHIVE.data(), NOISE[2], range(-512, 0))
        for path in (mountpoint / "layers" / "1", mountpoint / "rootfs", _blob(mountpoint, 1)):
            _fails(path)
        for number, name in ((0, "a"), (2, "d")):
            assert sha256(_blob(mountpoint, number).read_bytes()) == sha256(LAYERS[number])
            assert (mountpoint / "layers" / str(number) / name).read_bytes() == FILES[name]
        disk.be_well()
        _is_right(mountpoint)
        _ends(imgfs, mountpoint)
    assert "Traceback" not in imgfs.log.read_text()


def _kept(imgfs: Bench) -> dict[str, tuple[int, int]]:
    """Return the files of the cache, and what changes when they are made anew; an index's time is when it was used."""
    found = {str(path.relative_to(imgfs.cache)): path.stat() for path in imgfs.cache.glob("*/*/*")}
    return {
        name: (status.st_ino, 0 if name.endswith("/index") else status.st_mtime_ns) for name, status in found.items()
    }


def test_what_is_kept_of_an_archive_outlives_a_disk_that_fails_under_that(imgfs: Bench) -> None:
    archive = ARCHIVE.write(imgfs.folder / "image.tar")
    whole = ARCHIVE.data()
    imgfs.log_is_quiet = False
    with failing_disk(imgfs, archive) as disk:
        mountpoint = imgfs.mount(disk.file)
        _is_right(mountpoint)
        _ends(imgfs, mountpoint)
        before = _kept(imgfs)
        assert sum(name.endswith(".layer") for name in before) == 3

        _break(disk, whole, LAYERS[1], range(-512, 0))  # a header of the archive itself
        done = imgfs.run("mount", "--log-file", imgfs.log, disk.file, mountpoint)
        assert done == Finished(4, "", f"imgfs: cannot read {disk.file}: Input/output error\n")
        assert _kept(imgfs) == before

        _break(disk, whole, NOISE[2], range(-512, 0))  # one in a layer
        imgfs.mount(disk.file, at=mountpoint)
        _fails(mountpoint / "layers" / "1")
        assert (mountpoint / "layers" / "2" / "etc" / "d").read_bytes() == b"d"
        _break(disk, whole, NOISE[2], range(1000))  # and only what lies behind it
        assert (mountpoint / "rootfs" / "etc" / "b").read_bytes() == b"b"
        disk.be_well()
        _is_right(mountpoint)
        _ends(imgfs, mountpoint)
        assert _kept(imgfs) == before


@pytest.fixture(name="engine")
def engine_on_a_socket(imgfs: Bench) -> Iterator[Engine]:
    """An engine that has the image."""
    with default_engine(imgfs, ARCHIVE) as engine:
        yield engine


def _saves(engine: Engine) -> int:
    return sum(path.endswith("/get") for path in engine.asked)


def test_a_kept_image_that_cannot_be_read_in_part_is_an_error_there_until_it_can(imgfs: Bench, engine: Engine) -> None:
    mountpoint = imgfs.mount("img")
    _is_right(mountpoint)
    _ends(imgfs, mountpoint)
    before = _kept(imgfs)
    (tar,) = imgfs.cache.glob("saved/*/tar")
    imgfs.log_is_quiet = False
    with failing_disk(imgfs, tar) as disk, in_place_of(tar, disk.file):
        _break(disk, tar.read_bytes(), NOISE[1], PART)
        imgfs.mount("img", at=mountpoint)
        _is_right(mountpoint, but=("b",), blobs=(0, 2))
        _fails(_blob(mountpoint, 1))
        _pages_are_right_or_errors(mountpoint / "rootfs" / "b", NOISE[1], PART)
        disk.be_well()
        _is_right(mountpoint)
        _ends(imgfs, mountpoint)
    imgfs.mount("img", at=mountpoint)
    _is_right(mountpoint)
    assert (_saves(engine), _kept(imgfs)) == (1, before)


@pytest.mark.parametrize("name", ["tar", "index"])
def test_a_kept_image_whose_documents_cannot_be_read_is_saved_again_and_stays(
    imgfs: Bench, engine: Engine, name: str
) -> None:
    mountpoint = imgfs.mount("img")
    _is_right(mountpoint)
    _ends(imgfs, mountpoint)
    before = _kept(imgfs)
    (file,) = imgfs.cache.glob(f"saved/*/{name}")
    with failing_disk(imgfs, file) as disk, in_place_of(file, disk.file):
        disk.fail_to_read(0, file.stat().st_size)
        for count in (2, 3):
            done = imgfs.run("mount", "--log-file", imgfs.log, "img", mountpoint)
            first, *others = done.err.splitlines()
            said = {
                "tar": "cannot read img from the cache: Input/output error",
                "index": "cannot cache img: Input/output error",
            }
            assert (done.status, first) == (0, f"imgfs: warning: {said[name]}")
            assert len(others) == 1
            _is_right(mountpoint)
            assert [os.path.dirname(path) for path in imgfs.made_files(mountpoint)] == [str(imgfs.spool)]
            _ends(imgfs, mountpoint)
            assert _saves(engine) == count
    imgfs.mount("img", at=mountpoint)
    _is_right(mountpoint)
    assert (_saves(engine), _kept(imgfs)) == (3, before)


@pytest.mark.usefixtures("engine")
def test_an_entry_that_cannot_be_read_stays_and_hides_no_other(imgfs: Bench) -> None:
    mountpoint = imgfs.mountpoint()
    for image in ("img", ARCHIVE.write(imgfs.folder / "image.tar")):
        imgfs.mount(image, at=mountpoint)
        _is_right(mountpoint)
        _ends(imgfs, mountpoint)
    before = _kept(imgfs)
    (index,) = imgfs.cache.glob("saved/*/index")
    warning = f"imgfs: warning: {index.parent} cannot be read: Input/output error\n"
    with failing_disk(imgfs, index) as disk, in_place_of(index, disk.file):
        disk.fail_to_read(0, index.stat().st_size)
        listed = imgfs.run("cache", "list", "--json")
        assert (listed.status, listed.err) == (0, warning)
        assert [one["path"] for one in json.loads(listed.out)] == [str(imgfs.folder / "image.tar")]
        assert imgfs.run("cache", "prune").err == warning
    assert _kept(imgfs) == before


def test_a_seal_that_cannot_be_read_is_in_the_way_of_nothing(imgfs: Bench) -> None:
    mountpoint = imgfs.mount(ARCHIVE.write(imgfs.folder / "image.tar"))
    _is_right(mountpoint)
    _ends(imgfs, mountpoint)
    before = _kept(imgfs)
    (entry,) = imgfs.cache.glob("files/*")
    (entry / "left.layer").write_bytes(b"by one that was killed")
    (entry.parent / "incomplete").mkdir(0o700)
    seal = min(entry.glob("*.layer.seal"))
    warning = f"imgfs: warning: {entry}: {seal.name} cannot be read: Input/output error\n"
    with failing_disk(imgfs, seal) as disk, in_place_of(seal, disk.file):
        disk.fail_to_read(0, seal.stat().st_size)
        done = imgfs.run("cache", "prune")
        assert (done.status, done.err) == (0, warning)
        assert sorted(os.listdir(entry.parent)) == [entry.name]
    assert _kept(imgfs) == before
