"""Whatever would change something is refused, also on a mount that somebody has made writable."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.mounts import bench, the_mount, tree

_MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 2, 4, 32


def _open(flags: int) -> Callable[[Path], object]:
    return lambda image: os.open(image / "config", flags)


WRITES: dict[str, Callable[[Path], object]] = {
    "open for writing": _open(os.O_WRONLY),
    "open for reading and writing": _open(os.O_RDWR),
    "open and truncate": _open(os.O_RDONLY | os.O_TRUNC),
    "open and append": _open(os.O_WRONLY | os.O_APPEND),
    "create a file": lambda image: os.open(image / "new", os.O_WRONLY | os.O_CREAT),
    "create a file in blobs": lambda image: os.open(image / "blobs" / "new", os.O_RDONLY | os.O_CREAT | os.O_EXCL),
    "truncate": lambda image: os.truncate(image / "config", 0),
    "make a directory": lambda image: os.mkdir(image / "new"),
    "remove a file": lambda image: os.unlink(image / "config"),
    "remove a directory": lambda image: os.rmdir(image / "blobs" / "sha256"),
    "rename": lambda image: os.rename(image / "config", image / "new"),
    "rename over": lambda image: os.rename(image / "config", image / "manifest.json"),
    "make a symbolic link": lambda image: os.symlink("config", image / "new"),
    "make a hard link": lambda image: os.link(image / "config", image / "new"),
    "make a fifo": lambda image: os.mkfifo(image / "new"),
    "make a device": lambda image: os.mknod(image / "new", 0o020666, os.makedev(1, 3)),
    "change the mode": lambda image: os.chmod(image / "config", 0o777),
    "change the mode of the root": lambda image: os.chmod(image, 0o777),
    "change the owner": lambda image: os.chown(image / "config", 1, 1),
    "change the times": lambda image: os.utime(image / "config", (0, 0)),
    "touch": lambda image: os.utime(image / "config"),
    "set an attribute": lambda image: os.setxattr(image / "config", "user.x", b"y"),
    "remove an attribute": lambda image: os.removexattr(image / "config", "user.x"),
}


@pytest.fixture(scope="module", name="image")
def mounted_image() -> Iterator[Path]:
    """A mount as it comes."""
    with bench() as made:
        yield made.mount(Archive().write(made.folder / "image.tar"))


@pytest.fixture(scope="module", name="writable_image")
def remounted_image() -> Iterator[Path]:
    """A mount that root has made writable, which the kernel allows."""
    with bench() as made:
        mountpoint = made.mount(Archive().write(made.folder / "image.tar"))
        libc = ctypes.CDLL(None, use_errno=True)
        flags = _MS_REMOUNT | _MS_NOSUID | _MS_NODEV
        assert libc.mount(b"x", os.fsencode(mountpoint), b"fuse.imgfs", flags, None) == 0, ctypes.get_errno()
        assert "rw" in the_mount(mountpoint).options
        yield mountpoint


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_is_refused_as_on_any_read_only_file_system(image: Path, write: Callable[[Path], object]) -> None:
    _refused(image, write)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_is_refused_after_a_remount(writable_image: Path, write: Callable[[Path], object]) -> None:
    _refused(writable_image, write)


def test_access_says_that_nothing_can_be_written_after_a_remount(writable_image: Path) -> None:
    assert not os.access(writable_image / "config", os.W_OK)
    assert os.access(writable_image / "config", os.R_OK)


def _refused(image: Path, write: Callable[[Path], object]) -> None:
    before, attributes = tree(image), os.stat(image / "config")
    with pytest.raises(OSError, match=r".") as raised:
        write(image)
    assert raised.value.errno == errno.EROFS
    assert (tree(image), os.stat(image / "config")) == (before, attributes)
