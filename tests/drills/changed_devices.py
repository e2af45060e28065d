"""A file that is truncated or overwritten while the kernel reads a mount from it: what readers see.

imgfs never lets that happen (`fusefs.mount.kernel.snapshot`).  So the drill mounts the metadata of an archive with the
archive itself as the device, which no driver does.  ``scripts/soak changed [FILES]`` prints the table.
"""

import mmap
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from fusefs.erofs.writer import write
from fusefs.image.opened import Opened
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.kernel.support import Backing
from fusefs.mount.view import ViewOptions, image_view
from fusefs.progress import Silent
from fusefs.sources import open_image
from tests.support.builders import Archive
from tests.support.changesets import changeset, file
from tests.support.conformance import SETTINGS
from tests.support.file_systems import tmpfs
from tests.support.folders import new_folder
from tests.support.pagecache import drop_from_cache

SIZE = 16 << 10
"""Bytes of each file."""
CHANGES = ("overwritten", "truncated to half", "truncated to 0")
READS = ("not read before", "in memory", "dropped from memory")
"""Of the files: whether their pages are in the page cache of the mount when the archive has changed."""
_MAP = (
    "import mmap, sys\n"
    "with open(sys.argv[1], 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as map: map[-1]\n"
)


class Row(NamedTuple):
    """What the files of one mount looked like after a change."""

    backing: Backing
    change: str
    reads: str
    seen: Counter[str]
    """Number of files, by what a read gave: ``right``, ``new``, ``zeros``, ``wrong``, ``mixed``, or an error."""
    mapped: Counter[str]
    """Number of mapped ones, by how a process ended that touched their last page: ``a byte``, or a signal."""

    def line(self) -> str:
        """Return the row of a table."""
        cells = (self.backing.value, self.change, self.reads, _counted(self.seen), _counted(self.mapped))
        return f"| {' | '.join(cells)} |"


HEAD = "| devices | archive | files | a read gives | a mapping gives |\n|---|---|---|---|---|"


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


def drill(count: int, backing: Backing) -> list[Row]:
    """Mount an archive of *count* files for each case, change it, and look at the files."""
    return [Row(backing, change, reads, *_case(count, backing, change, reads)) for change in CHANGES for reads in READS]


def _case(count: int, backing: Backing, change: str, reads: str) -> tuple[Counter[str], Counter[str]]:
    data = {f"{number:05}": os.urandom(SIZE) for number in range(count)}
    with mounted(data, backing) as (root, archive):
        if reads != READS[0]:
            assert all(_read(root, name) == content for name, content in data.items())
        size = archive.stat().st_size
        with archive.open("r+b") as stream:
            if change == "overwritten":
                stream.write(b"\xff" * size)
            else:
                stream.truncate(size // 2 if change == "truncated to half" else 0)
        if reads == READS[2]:
            for name in data:
                _drop(root, name)
        seen = Counter(_look(root, name, content) for name, content in data.items())
        step = -(-count // 4)
        return seen, Counter(map(_end_of_mapping, (f"{root}/{name}" for name in list(data)[::step])))


@contextmanager
def mounted(data: dict[str, bytes], backing: Backing) -> Iterator[tuple[str, Path]]:
    """Mount an archive with the files *data* in ``rootfs/``; give the path of these, and that of the archive."""
    folder = new_folder("changed", 0o755)
    with ExitStack() as stack:
        stack.callback(folder.rmdir)
        if backing is Backing.LOOP:  # metadata in tmpfs cannot be read directly
            (folder / "memory").mkdir()
            stack.callback((folder / "memory").rmdir)
            stack.enter_context(tmpfs(folder / "memory", "64m"))
        place = folder / "memory" if backing is Backing.LOOP else folder
        archive = Archive(layers=[changeset(*(file(name, content) for name, content in data.items()))])
        path = archive.write(folder / "image.tar")
        stack.callback(path.unlink)
        mount = _mount(path, place)
        stack.callback(os.close, mount)
        yield f"/proc/{os.getpid()}/fd/{mount}/rootfs", path


def _mount(archive: Path, place: Path) -> int:
    """Mount without a snapshot; return a descriptor of the root."""
    opened = Opened(open_image(str(archive), SETTINGS), str(place), Silent())
    metadata = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        with open(metadata, "wb", closefd=False) as out:
            devices = write(image_view(opened.image, opened.layers, ViewOptions(uid=0, gid=0)), out).devices
        for device in devices:
            os.fsync(device.descriptor)
            drop_from_cache(device.descriptor)
        return mount_erofs(metadata, [device.descriptor for device in devices], str(archive))
    finally:
        os.close(metadata)
        opened.close()


def _read(root: str, name: str) -> bytes:
    return Path(root, name).read_bytes()


def _drop(root: str, name: str) -> None:
    """Drop the pages of a file, as the kernel does if it needs memory."""
    with Path(root, name).open("rb") as stream:
        drop_from_cache(stream.fileno())


def _look(root: str, name: str, expected: bytes) -> str:
    """Return what a read of a file gives."""
    try:
        found = _read(root, name)
    except OSError as error:
        return str(error.strerror)
    kinds = {_kind(found[at : at + mmap.PAGESIZE], expected[at:][: mmap.PAGESIZE]) for at in range(0, SIZE, 4096)}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _kind(found: bytes, expected: bytes) -> str:
    if found == expected:
        return "right"
    return {b"\0": "zeros", b"\xff": "new"}.get(found[:1] if len({*found}) == 1 else b"", "wrong")


def _end_of_mapping(path: str) -> str:
    """Return how a process ends that maps a file and reads its last byte."""
    status = subprocess.run([sys.executable, "-c", _MAP, path], stderr=subprocess.DEVNULL, check=False).returncode
    return signal.Signals(-status).name if status < 0 else "a byte" if status == 0 else "an error"
