"""Where a run works: a folder, programs and mounts of its own, and nothing of them left afterwards."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_MARK = "IMGFS_BENCH_RUN"
"""In the environment of all that a run starts: what becomes a daemon is found by it."""
_PATIENCE = 20.0
_LONGEST_MOUNT = 300.0
"""Seconds after which a mount is taken to hang (archivemount does, with some archives)."""

Words = Sequence[str | Path]


class Failed(Exception):
    """A program failed; the message says which, and what it wrote."""


@dataclass(frozen=True)
class Mount:
    """Something mounted."""

    path: Path
    started: float
    """When the command was started, in seconds of `time.monotonic`."""
    seconds: float
    """How long the command took."""

    def since_start(self) -> float:
        """Return the seconds since the command was started."""
        return time.monotonic() - self.started


class Workplace:
    """A folder below $TMPDIR or /var/tmp; leaving the context ends its programs, by their ids, and its mounts."""

    def __init__(self) -> None:
        base = os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108 - not /tmp, which may be memory
        # Short and without underscores: for sockets below it, and for what podman and skopeo take for a path.
        self.folder = Path(base, f"imgfs-bench-{uuid.uuid4().hex[:8]}")
        self.folder.mkdir()
        self.folder.chmod(0o755)  # another user reads here too
        self._mark = f"{_MARK}={self.folder}"
        self._numbers = itertools.count()
        self._log = self.folder / "log"
        spool, state = self.new_folder("spool"), self.new_folder("state")
        for folder in (spool, state):
            folder.chmod(0o1777)
        self.environment = os.environ | {
            _MARK: str(self.folder),
            "IMGFS_CACHE_DIR": str(self.folder / "cache"),
            "IMGFS_TMPDIR": str(spool),
            "XDG_STATE_HOME": str(state),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _uninterrupted():
            self._end_processes()
            self.unmount_below(self.folder)
            shutil.rmtree(self.folder)

    @staticmethod
    def unmount_below(folder: Path) -> None:
        """Detach all mounts below *folder*, the latest first."""
        for mountpoint in reversed(mounts_below(folder)):
            _unmount(mountpoint, lazily=True)

    def new_path(self, name: str) -> Path:
        """Return a path where nothing is."""
        return self.folder / f"{next(self._numbers)}-{name}"

    def new_folder(self, name: str) -> Path:
        """Make a folder."""
        path = self.new_path(name)
        path.mkdir()
        path.chmod(0o755)
        return path

    def start(self, command: Words) -> subprocess.Popen[bytes]:
        """Start a program that writes to the log."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

    def run(self, command: Words, environment: Mapping[str, str] | None = None) -> None:
        """Run a program to its end; raise Failed with what it wrote if that is bad.

        Its output goes to a file, not a pipe: a daemon may keep that open.
        """
        log = self.new_path("output")
        with log.open("wb") as output:
            done = subprocess.run(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment | dict(environment or {}),
                check=False,
            )
        text = log.read_text(errors="replace").strip()
        log.unlink()
        if done.returncode:
            raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}: {text[-2000:]}")

    @contextlib.contextmanager
    def mounted(
        self, command: Words, environment: Mapping[str, str] | None = None, owner: int | None = None
    ) -> Iterator[Mount]:
        """Run *command* with a new mountpoint as its last word, and unmount that in the end."""
        mountpoint = self.new_folder("mnt")
        if owner is not None:
            os.chown(mountpoint, owner, owner)
        started = time.monotonic()
        try:
            self.run([*command, mountpoint], environment)
            _until(lambda: str(mountpoint) in mounts_below(self.folder), f"{command[0]} mounts")
            seconds = time.monotonic() - started
            watchdog = threading.Timer(_LONGEST_MOUNT, self._kill_server, (mountpoint,))
            watchdog.start()
            try:
                yield Mount(mountpoint, started, seconds)
            finally:
                watchdog.cancel()
        finally:
            with _uninterrupted():
                if str(mountpoint) in mounts_below(self.folder):
                    _unmount(str(mountpoint))
                with contextlib.suppress(Failed):
                    _until(lambda: not self.served_by(mountpoint), "the mount's process ends")
                mountpoint.rmdir()

    def served_by(self, mountpoint: Path) -> list[int]:
        """Return the ids of our processes with *mountpoint* in their command line."""
        word = os.fsencode(mountpoint)
        return [pid for pid in self._processes() if word in _read(f"/proc/{pid}/cmdline").split(b"\0")]

    def kill_servers(self) -> None:
        """Kill whoever serves a mount: nothing less ends a program that waits in one."""
        for mountpoint in mounts_below(self.folder):
            self._kill_server(Path(mountpoint))

    def _kill_server(self, mountpoint: Path) -> None:
        for pid in self.served_by(mountpoint):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> list[int]:
        mark = self._mark.encode()
        numbers = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return [pid for pid in numbers if mark in _read(f"/proc/{pid}/environ").split(b"\0")]

    def _end_processes(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(Failed):
                _until(lambda: not self._processes(), "programs end")
                return


def mounts_below(folder: Path) -> list[str]:
    """Return the mountpoints below *folder* in the order of their mounts."""
    lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    return [path for line in lines if (path := line.split(" ")[4]).startswith(f"{folder}/")]


def _unmount(mountpoint: str, *, lazily: bool = False) -> None:
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    done = subprocess.run(
        [*command, *(["-l" if os.geteuid() == 0 else "-z"] if lazily else []), mountpoint],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and not lazily:
        _unmount(mountpoint, lazily=True)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it ended meanwhile, or is another user's
        return b""


def _until(found: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not found():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {_PATIENCE:.0f} s")
        time.sleep(0.002)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let another Ctrl-C not stop the cleaning up."""
    stopping = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in stopping]
    try:
        yield
    finally:
        for number, handler in zip(stopping, before, strict=True):
            signal.signal(number, handler)
