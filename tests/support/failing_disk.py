"""A disk of our own that fails where it is told to."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mounts import Bench
from tests.support.processes import mounts_at


class FailingDisk:
    """A folder whose reads and writes can be made to fail."""

    def __init__(self, path: Path, process: "subprocess.Popen[str]") -> None:
        self.path = path
        """The folder."""
        self.file = path / "file"
        """The copy of the file that was given."""
        self._process = process
        self._hear("ready")

    def fail_to_read(self, start: int, end: int) -> None:
        """Let each read of these bytes be an error."""
        self._say(f"read {start} {end}")

    def fail_to_write(self, start: int) -> None:
        """Let each write from *start* on be an error."""
        self._say(f"write {start}")

    def be_well(self) -> None:
        """Read and write again."""
        self._say("well")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._hear("done")

    def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"


@contextmanager
def failing_disk(imgfs: Bench, file: Path | None = None) -> Iterator[FailingDisk]:
    """Give a disk, with a copy of *file* if that is given; what is mounted from it is unmounted at the end."""
    folder = imgfs.mountpoint("failing")
    program = Path(__file__).parents[1] / "programs" / "failing_folder.py"
    command = [sys.executable, *map(str, (program, folder, *([file] if file else [])))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            yield FailingDisk(folder, process)
        finally:
            imgfs.end_mounts()
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(10) == 0
    assert mounts_at(folder) == []


@contextmanager
def in_place_of(path: Path, file: Path) -> Iterator[None]:
    """Let *file* be what is at *path*, for as long as the block takes."""
    subprocess.run(["mount", "--bind", file, path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)
