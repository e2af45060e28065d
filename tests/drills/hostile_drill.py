"""The command in hostile surroundings: short in the tests, long in ``scripts/soak hostile``.

A `Case` arranges the surroundings and names the command.  Required of each: the right result, or exactly one printable
line on stderr and a documented exit status; within its time, within `MAX_PEAK`, and with nothing left.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tests.drills.mount_drills import check_blobs
from tests.support import mounts
from tests.support.mounts import Bench, Finished
from tests.support.processes import descendants, mounts_at

MAX_PEAK = 256 << 20
"""Bytes that the largest process of a case may take."""
REFUSALS = frozenset(range(2, 11))
"""The documented exit statuses of an error (docs/reference.md)."""
_MEASURED = Path(__file__).parent.parent / "programs" / "measured.py"
_MAX_LINE = 2000
"""Characters that the line on stderr may have."""
_MAX_OUTPUT = 4 << 20
"""Bytes of the output that are looked at."""
_PATIENCE = 10.0
"""Seconds in which the process of a mount has to end once it is unmounted."""


@dataclass(frozen=True)
class Command:
    """A run of the command."""

    words: Sequence[str | Path]
    """Its arguments."""
    wrapper: Sequence[str | Path] = ()
    """The words before it: a program that sets limits, signals or a user, and then executes its arguments."""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Changes to the environment; None: not set."""
    program: Sequence[str | Path] = (mounts.COMMAND,)


def _no_check(_: Bench, __: Finished) -> None:
    """Accept it."""


@dataclass(frozen=True)
class Case:
    """One hostile situation."""

    name: str
    """Unique among its kind."""
    arrange: Callable[[Bench], AbstractContextManager[Command]]
    """Makes the surroundings, gives the command, and clears them away.  The bench's cache and log are new."""
    check: Callable[[Bench, Finished], None] = _no_check
    """Called while a mount lives, after the exit status 0; raises an AssertionError if the result is wrong."""
    statuses: frozenset[int] = frozenset({0}) | REFUSALS
    """The exit statuses that are right."""
    seconds: float = 20.0
    """Within which the command has to end."""


@dataclass(frozen=True)
class Outcome:
    """The result of a case."""

    case: Case
    finished: Finished
    seconds: float
    peak: int
    """Bytes."""
    faults: tuple[str, ...]
    """Empty if everything is as required."""


@dataclass
class Report:
    """The results of all cases of a kind."""

    kind: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def right(self) -> int:
        """The number of cases with the exit status 0."""
        return sum(outcome.finished.status == 0 for outcome in self.outcomes)

    @property
    def peak(self) -> int:
        """Bytes of the largest process."""
        return max((outcome.peak for outcome in self.outcomes), default=0)

    @property
    def faults(self) -> list[str]:
        """All faults, with the names of their cases."""
        return [f"{self.kind}: {outcome.case.name}: {fault}" for outcome in self.outcomes for fault in outcome.faults]

    def row(self) -> str:
        """Return its row of the table."""
        slowest = max(self.outcomes, key=lambda outcome: outcome.seconds)
        return (
            f"| {self.kind} | {len(self.outcomes)} | {self.right} | {len(self.outcomes) - self.right} "
            f"| {len(self.faults)} | {slowest.seconds:.1f} s ({slowest.case.name}) | {self.peak / 1e6:.0f} MB |"
        )


HEAD = "| kind | cases | right | refused with one line | faults | slowest | peak |\n|---|---|---|---|---|---|---|"


def mount_words(imgfs: Bench, image: str | Path, *options: str | Path) -> list[str | Path]:
    """Return the words that mount *image*, quietly, at the mountpoint of `check_mount`."""
    mountpoint = imgfs.folder / "mnt"
    mountpoint.mkdir(exist_ok=True)
    return ["mount", "-q", "--log-file", imgfs.log, *options, image, mountpoint]


def check_mount(imgfs: Bench, _: Finished) -> None:
    """Check the digests of all blobs of the mount of `mount_words`."""
    assert check_blobs(imgfs.folder / "mnt") > 0


def drill(imgfs: Bench, kind: str, cases: Iterable[Case]) -> Report:
    """Run all *cases*, one after the other."""
    imgfs.log_is_quiet = False  # what is wrong with the surroundings may be said there
    report = Report(kind)
    for case in cases:
        report.outcomes.append(run(imgfs, case))
        for fault in report.outcomes[-1].faults:
            print(f"{kind}: {case.name}: {fault}", flush=True)
    names = [outcome.case.name for outcome in report.outcomes]
    assert len(set(names)) == len(names), "each case has a name of its own"
    return report


def run(imgfs: Bench, case: Case) -> Outcome:
    """Run one *case*."""
    _forget(imgfs)
    faults: list[str] = []
    with case.arrange(imgfs) as command, TemporaryFile() as out, TemporaryFile() as err:
        before = _paths(imgfs.folder)
        began = time.monotonic()
        process, report = _start(imgfs, command, out, err)
        with report:
            status = _status(process, report, case.seconds, faults)
            seconds = time.monotonic() - began
            finished = Finished(status, _text(out), _text(err))
            if status == 0:
                _note(faults, lambda: case.check(imgfs, finished))
            peak = _peak(imgfs, process, report, faults)
        faults += _wrong_words(case, finished)
        faults += _left(imgfs, before, finished)
    _note(faults, imgfs.nothing_left)
    if peak > MAX_PEAK:
        faults.append(f"takes {peak / 1e6:.0f} MB")
    return Outcome(case, finished, seconds, peak, tuple(faults))


def _text(file: IO[bytes]) -> str:
    """Return the end of the text in *file*."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _MAX_OUTPUT))
    return file.read().decode(errors="surrogateescape")


def _forget(imgfs: Bench) -> None:
    """Remove the cache and the log of the case before."""
    shutil.rmtree(imgfs.cache, ignore_errors=True)
    imgfs.log.unlink(missing_ok=True)


def _start(imgfs: Bench, command: Command, out: IO[bytes], err: IO[bytes]) -> tuple["subprocess.Popen[bytes]", IO[str]]:
    """Start *command* below the program that measures it; also return that program's report."""
    changed = {**imgfs.environment, **command.environment}
    reading, writing = os.pipe()
    measured = [sys.executable, "-I", "-S", str(_MEASURED), str(writing)]
    process = subprocess.Popen(
        [*measured, *map(str, (*command.wrapper, *command.program, *command.words))],
        env={name: value for name, value in changed.items() if value is not None},
        cwd=imgfs.folder,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        pass_fds=(writing,),
    )
    os.close(writing)
    return process, os.fdopen(reading, encoding="ascii")


def _status(process: "subprocess.Popen[bytes]", report: IO[str], seconds: float, faults: list[str]) -> int:
    """Return the exit status of the command, which may leave a mount; kill it after *seconds*."""
    if not select.select([report], [], [], seconds)[0]:
        faults.append(f"does not end within {seconds:g} s")
        _kill(process)
    return int(report.readline() or -1)


def _peak(imgfs: Bench, process: "subprocess.Popen[bytes]", report: IO[str], faults: list[str]) -> int:
    """Unmount, wait for the last process, and return the peak in bytes."""
    _note(faults, imgfs.end_mounts)
    for mount in mounts_at(imgfs.folder):
        if mount.file_system.startswith("fuse"):
            faults.append(f"{mount.path} stays mounted")
            subprocess.run(["umount", "-l", mount.path], check=False)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        faults.append("leaves a process")
        _kill(process)
        process.wait(_PATIENCE)
    return int(report.readline() or 0) << 10


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill all processes below the one that measures."""
    for pid in descendants(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _note(faults: list[str], action: Callable[[], object]) -> None:
    """Do *action*; an exception is a fault."""
    try:
        action()
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        faults.append(f"{type(error).__name__}: {error}"[:_MAX_LINE])


def _wrong_words(case: Case, finished: Finished) -> list[str]:
    """Return the faults in the exit status and in the words on stderr."""
    faults = []
    if finished.status not in case.statuses:
        faults.append(f"exit status {finished.status}: {finished.err[-_MAX_LINE:]!r}")
    lines = finished.err.splitlines()
    if finished.status and len(lines) != 1:
        faults.append(f"{len(lines)} lines on stderr: {finished.err[-_MAX_LINE:]!r}")
    bad = [line for line in lines if not (line.startswith("imgfs: ") and line.isprintable())]
    if bad or max(map(len, lines), default=0) > _MAX_LINE:
        faults.append(f"stderr: {finished.err[-_MAX_LINE:]!r}")
    return faults


def _left(imgfs: Bench, before: set[str], finished: Finished) -> list[str]:
    """Return faults for a traceback in the log, and for files and cache entries that are left."""
    faults = []
    if imgfs.log.exists() and "Traceback" in imgfs.log.read_text(errors="replace"):
        faults.append(f"a traceback in the log: {imgfs.log.read_text(errors='replace')[-_MAX_LINE:]}")
    if finished.status and (entries := [*imgfs.cache.glob("saved/*/*")]):
        faults.append(f"an entry of the cache is left: {entries}")
    ours = (str(imgfs.cache), str(imgfs.log))
    files = sorted(path for path in _paths(imgfs.folder) - before if not path.startswith(ours))
    return [*faults, f"files are left: {files}"] if files else faults


def _paths(folder: Path) -> set[str]:
    return {os.path.join(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files)}
