"""Archives that somebody changes, moves or removes while they are mounted."""

import errno
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import LAYERS, Archive, layer, sha256
from tests.support.layouts import IMAGE_LAYOUTS
from tests.support.mounts import Bench, Finished
from tests.support.processes import until

BIG = layer({"noise": os.urandom(3 << 20), "more": os.urandom(1 << 20)})
BLOB = f"blobs/sha256/{sha256(BIG)[7:]}"


@pytest.fixture(name="archive")
def old_archive(imgfs: Bench) -> Path:
    """An image with a layer that is larger than what is read ahead, an hour old."""
    path = Archive(layers=(*LAYERS, BIG)).write(imgfs.folder / "image.tar")
    os.utime(path, ns=(10**18, 10**18))
    return path


def _replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"new")
    path.with_name("new").replace(path)


HARMLESS: dict[str, Callable[[Path], object]] = {
    "unlinked": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("other.tar")),
    "replaced": _replace,
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_an_archive_that_is_only_gone_from_its_place_is_served(
    imgfs: Bench, archive: Path, change: Callable[[Path], object]
) -> None:
    mountpoint = imgfs.mount(archive)
    change(archive)
    assert (mountpoint / BLOB).read_bytes() == BIG
    assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))


CHANGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, 5000),
    "emptied": lambda path: os.truncate(path, 0),
    "overwritten": _overwrite,
    "written anew": lambda path: path.write_bytes(b"new"),
    "appended to": lambda path: os.truncate(path, path.stat().st_size + 512),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_archive_is_an_error_for_good_and_one_line_in_the_log(
    imgfs: Bench, archive: Path, change: Callable[[Path], object]
) -> None:
    imgfs.log_is_quiet = False
    mountpoint = imgfs.mount(archive)
    original = archive.read_bytes()
    assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    change(archive)
    for path in (BLOB, "rootfs/etc/motd", "layers/0/bin/sh", BLOB):
        with pytest.raises(OSError, match=r".") as raised:
            (mountpoint / path).read_bytes()
        assert raised.value.errno == errno.EIO
    archive.write_bytes(original)
    with pytest.raises(OSError, match=r".") as raised:
        (mountpoint / BLOB).read_bytes()
    assert raised.value.errno == errno.EIO
    # What is not in the archive's file is there as before.
    assert (mountpoint / "config").read_bytes() == Archive(layers=(*LAYERS, BIG)).config_data
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    said = [line.partition("]: ")[2] for line in imgfs.log.read_text().splitlines()]
    assert said == [f"ERROR: {archive} was changed while it is in use; unmount it and mount it again"]


def test_a_file_that_is_open_and_mapped_has_its_old_bytes_or_an_error_never_a_signal(
    imgfs: Bench, archive: Path
) -> None:
    imgfs.log_is_quiet = False
    mountpoint = imgfs.mount(archive)
    with (mountpoint / BLOB).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        first = mapped[:4096]
        _overwrite(archive)

        def end_or_bytes() -> bool:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            try:
                os.pread(file.fileno(), 4096, 2 << 20)  # `file` may have these bytes in its buffer
            except OSError as error:
                assert error.errno == errno.EIO  # noqa: PT017 - it may also be read
                return True
            return False

        until(end_or_bytes, "the change is noticed")
        assert mapped[:4096] == first
    assert imgfs.serving(mountpoint)


def test_blobs_of_a_directory_are_looked_at_each_by_itself(imgfs: Bench) -> None:
    imgfs.log_is_quiet = False
    folder = imgfs.folder / "layout"
    IMAGE_LAYOUTS["plain"]().write(str(folder))
    mountpoint = imgfs.mount(f"oci:{folder}")
    first, second = (f"blobs/sha256/{sha256(data)[7:]}" for data in (LAYERS[0], LAYERS[2]))
    os.truncate(folder / first, 100)
    shutil.move(folder / second, imgfs.folder / "elsewhere")
    with pytest.raises(OSError, match=r".") as raised:
        (mountpoint / first).read_bytes()
    assert raised.value.errno == errno.EIO
    assert (mountpoint / second).read_bytes() == LAYERS[2]


def test_a_mount_goes_on_when_its_folder_is_renamed(imgfs: Bench, archive: Path) -> None:
    parent = imgfs.mountpoint("parent")
    mountpoint = imgfs.mount(archive, at=imgfs.mountpoint("parent/mnt"))
    parent.rename(imgfs.folder / "moved")
    moved = imgfs.folder / "moved" / "mnt"
    assert (moved / BLOB).read_bytes() == BIG
    assert not mountpoint.exists()
    assert imgfs.run("umount", moved) == Finished(0, "", "")
    imgfs.nothing_left()


def test_root_makes_files_in_a_temporary_directory_that_only_its_owner_may_use(imgfs: Bench, archive: Path) -> None:
    tmpdir = imgfs.mountpoint("private")
    tmpdir.chmod(0o700)
    os.chown(tmpdir, 65534, 65534)
    mountpoint = imgfs.mount(archive, "--tmpdir", tmpdir)
    assert (mountpoint / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
