"""A disk that answers when it is told to.

Unlike on `slow_archive`'s own file system, what is in its page cache can be told and read meanwhile.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.requirements import need
from tests.support.slow_archive import SlowFile


@contextmanager
def slow_disk(imgfs: Bench, name: str, data: bytes) -> Iterator[tuple[SlowFile, Path]]:
    """Give the disk, which lets everything pass at first, and the file *name* with *data* on it."""
    need("/dev/loop-control", "mkfs.ext4", "losetup")
    content, image = imgfs.mountpoint("content"), imgfs.folder / "disk"
    (content / name).write_bytes(data)
    size = f"{(len(data) >> 20) + 16}M"
    _run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", content, image, size)
    with ExitStack() as stack:
        slow = SlowFile(imgfs, image.read_bytes())
        stack.callback(slow.end)
        device = _run("losetup", "--find", "--show", "--read-only", slow.path)
        stack.callback(_run, "losetup", "--detach", device)
        folder = imgfs.mountpoint("disk-mounted")
        _run("mount", "-o", "ro", device, folder)
        stack.callback(_run, "umount", folder)
        stack.callback(until, lambda: not imgfs.processes(), "all processes end")
        stack.callback(imgfs.end_mounts)
        stack.callback(slow.go)
        yield slow, folder / name


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
