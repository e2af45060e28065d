"""Small file systems for the tests; only root may mount them."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusefs.mount.mountinfo import Mount
from tests.support.processes import until
from tests.support.requirements import ROOT, need


@contextmanager
def tmpfs(path: Path, size: str = "1m") -> Iterator[Path]:
    """Mount an empty file system of *size* on the directory *path*, for as long as the block takes."""
    need(ROOT, "mount", "umount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        _unmount(path)


def _unmount(path: Path) -> None:
    """Unmount a file system that nobody uses any more.

    A process that ends has no environment a moment before it has no files, and so has a kernel mount of files.
    """
    until(lambda: subprocess.run(["umount", path], capture_output=True, check=False).returncode == 0, "it is unmounted")


def is_at(mount: Mount | None, path: str, file_system: str) -> bool:
    """Return whether *mount* is the one of type *file_system* at *path*."""
    return mount is not None and mount[:3] == (path, file_system, os.minor(os.stat(path).st_dev))


@contextmanager
def disk(kind: str, path: Path) -> Iterator[Path]:
    """Mount an empty file system of a *kind* (``xfs``) on a directory, which may be missing."""
    need(ROOT, "mount", "umount", f"mkfs.{kind}", "/dev/loop-control")
    path.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent) as image:
        image.truncate(512 << 20)
        subprocess.run([f"mkfs.{kind}", "-q", image.name], check=True)
        subprocess.run(["mount", "-o", "loop", image.name, path], check=True)
        try:
            yield path
        finally:
            _unmount(path)
