"""Mounts for the tests: the real command in a process, and nothing of it left at the end."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.folders import new_folder
from tests.support.processes import Mounted, marked, mounts_at, threads_of, until
from tests.support.requirements import FUSE, ROOT, need

COMMAND = str(Path(sys.executable).parent / "imgfs")
_TIMEOUT = 20
"""Seconds after which a command counts as hanging."""
_PROGRESS = re.compile(
    r"imgfs: (the engine prepares|another imgfs saves|asking|saving|verifying|reading|hashing|indexing) "
)
"""What a slow machine may see before a mount is ready."""
_FIGURES = re.compile(r" in [0-9]+(?:\.[0-9])? s \([0-9]+ layers?, [0-9.]+ [kMGT]?B\)")
"""Seconds, layers and size in the line of a mount."""


def without_figures(said: str) -> str:
    """Return what `mount` has said, without seconds, layers and size."""
    return _FIGURES.sub("", said)


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str


@dataclass
class Bench:
    """A folder to work in, and the command with an environment of its own."""

    folder: Path
    marker: str
    environment: dict[str, str]
    command: Sequence[str] = (COMMAND,)
    """What runs instead of the command: a wrapper, or the command as another user."""
    driver: str = "fuse"
    """The driver of a `mount` that names none; most tests look at what a process does.  Empty: the default."""
    log_is_quiet: bool = True
    """Whether a warning or an error in the log fails the test."""
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        """Where spool files are put."""
        return self.folder / "spool"

    @property
    def cache(self) -> Path:
        """Where what is kept is put."""
        return self.folder / "cache"

    @property
    def log(self) -> Path:
        """The log that `mount` asks for."""
        return self.folder / "log"

    def mountpoint(self, name: str = "mnt") -> Path:
        """Return a new empty directory."""
        path = self.folder / name
        path.mkdir()
        return path

    def run(self, *arguments: str | Path, **how: Any) -> Finished:
        """Run the command to its end, which is soon."""
        process = self.start(*arguments, **how)
        out, err = process.communicate(timeout=_TIMEOUT)
        return Finished(process.returncode, out, err)

    def start(
        self,
        *arguments: str | Path,
        cwd: object = None,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        **environment: object,
    ) -> subprocess.Popen[str]:
        """Start the command; its output is captured."""
        words = [*map(str, arguments)]
        if words[:1] == ["mount"] and self.driver and not any("driver" in word for word in words):
            words[1:1] = ["--driver", self.driver]
        process = subprocess.Popen(
            [*self.command, *words],
            env=self.environment | {name: str(value) for name, value in environment.items()},
            cwd=str(cwd or self.folder),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            text=True,
            errors="surrogateescape",
        )
        self._started.append(process)
        return process

    def mount(self, image: str | Path, *options: str | Path, at: Path | None = None) -> Path:
        """Mount *image*, without a word but progress, and return where it is."""
        mountpoint = at or self.mountpoint()
        done = self.run("mount", "--log-file", self.log, *options, str(image), mountpoint)
        *progress, said = done.err.splitlines()
        assert (done.status, done.out) == (0, "")
        assert without_figures(said).removesuffix(f"; log: {self.log}") == f"imgfs: mounted {image} on {mountpoint}"
        assert [line for line in progress if not _PROGRESS.match(line)] == []
        return mountpoint

    def foreground(self, image: str | Path, *options: str | Path, at: Path | None = None) -> subprocess.Popen[str]:
        """Mount *image* with -f and return the process once it says that it is ready."""
        mountpoint = at or self.mountpoint()
        process = self.start("mount", "-f", *options, str(image), mountpoint)
        assert process.stderr is not None
        said = process.stderr.readline()
        assert without_figures(said) == f"imgfs: mounted {image} on {mountpoint}\n"
        return process

    def processes(self) -> dict[int, list[str]]:
        """Return the processes that this bench has started, by id, and what they have started."""
        return marked(self.marker)

    def serving(self, mountpoint: Path) -> int:
        """Return the id of the one process behind *mountpoint*."""
        (pid,) = (pid for pid, words in self.processes().items() if str(mountpoint) in words)
        return pid

    def made_files(self, mountpoint: Path) -> list[str]:
        """Return the files without a name that the process behind *mountpoint* has made: indexes, plain tars.

        They keep none there also when they are linked into the cache, whose documents do not count.
        """
        folder = Path(f"/proc/{self.serving(mountpoint)}/fd")
        found = set()
        for entry in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed by now
                target = os.readlink(entry)
                ours = target.endswith(" (deleted)") and entry.is_file()
                if ours and not (target.startswith(str(self.cache)) and _is_document(entry)):
                    found.add(target)
        return sorted(found)

    def end_mounts(self) -> None:
        """Unmount what is mounted."""
        for mount in mounts_at(self.folder):
            if mount.file_system in ("fuse.imgfs", "erofs"):
                subprocess.run([COMMAND, "umount", mount.path], check=False, timeout=_TIMEOUT)

    def nothing_left(self) -> None:
        """Assert that no process, no mount and no spool file is left, or will be soon."""
        try:
            until(lambda: not self.processes(), "all processes end")
        except AssertionError as error:
            left = [f"{pid} {words}: {threads_of(pid)}" for pid, words in self.processes().items()]
            raise AssertionError("\n".join([str(error), *left])) from None
        assert mounted_below(self.folder) == []
        assert os.listdir(self.spool) == []

    def end(self) -> None:
        """Unmount what is mounted, then check that nothing is left; leave nothing even if something is."""
        try:
            self.end_mounts()
            self.nothing_left()
            if self.log_is_quiet and self.log.exists():
                noise = [line for line in self.log.read_text().splitlines() if "]: INFO: " not in line]
                assert noise == []
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for mount in mounts_at(self.folder):
                # First forced: what waits for an answer keeps its process from ending.
                subprocess.run(["umount", "-f", mount.path], check=False, stderr=subprocess.DEVNULL)
                subprocess.run(["umount", "-l", mount.path], check=False, stderr=subprocess.DEVNULL)
            for process in self._started:
                process.wait(_TIMEOUT)
                for stream in (process.stdout, process.stderr):
                    if stream is not None:
                        stream.close()
            shutil.rmtree(self.folder)


def _is_document(path: Path) -> bool:
    """Return whether a file is a document of the cache, or begins to be one."""
    with path.open("rb") as file:
        return file.read(12) in (b"", b"imgfs cache ")


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """Give a bench, for as long as the block takes."""
    need(ROOT, FUSE, "fusermount3")
    folder = new_folder("bench", 0o755)
    name, value = "IMGFS_TESTS_BENCH", uuid.uuid4().hex
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "IMGFS_TMPDIR": str(folder / "spool"),
        "IMGFS_CACHE_DIR": str(folder / "cache"),
        # All but those of files that are open at the exit: a mount needs its files to the end.
        "PYTHONWARNINGS": "error,ignore::ResourceWarning",
        name: value,
        # For a run against another copy of the package than the installed one.
        **{key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ},
    }
    for directory in ("home", "spool"):
        (folder / directory).mkdir()
    made = Bench(folder, f"{name}={value}", environment)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(name="imgfs")
def imgfs_fixture() -> Iterator[Bench]:
    """Give the test its own bench."""
    with bench() as made:
        yield made


def mounted_below(folder: Path) -> list[str]:
    """Return where something is mounted on *folder* or below."""
    return [mount.path for mount in mounts_at(folder)]


def the_mount(mountpoint: Path) -> Mounted:
    """Return the one mount on *mountpoint*."""
    (mount,) = mounts_at(mountpoint)
    return mount


def tree(mountpoint: Path) -> Mapping[str, bytes | None]:
    """Return every path below *mountpoint*, with a file's bytes."""
    found: dict[str, bytes | None] = {}
    for folder, names, files in os.walk(mountpoint, onerror=_raise):
        for name in names:
            found[os.path.relpath(os.path.join(folder, name), mountpoint)] = None
        for name in files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, mountpoint)] = Path(path).read_bytes()
    return found


def _raise(error: OSError) -> None:
    raise error
