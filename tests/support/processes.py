"""Processes and mounts as the kernel shows them, and waiting for what they do."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_OCTAL = re.compile(rb"\\([0-7]{3})")


def until(found: Callable[[], _T], what: str, seconds: float = 15.0) -> _T:
    """Return what *found* returns as soon as that is true; fail, saying *what* did not happen, after *seconds*."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.01)
    return result


def marked(variable: str) -> dict[int, list[str]]:
    """Return the living processes that have *variable*, as in ``NAME=value``, in their environment.

    By their ids, each with its command line.
    """
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if variable.encode() in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                words = Path(f"/proc/{entry}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                found[int(entry)] = [os.fsdecode(word) for word in words]
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def threads_of(pid: int) -> list[str]:
    """Return what each thread of *pid* does: its name, its state and the system call in which it waits."""
    found = []
    with suppress(OSError):  # it ended meanwhile
        for thread in Path(f"/proc/{pid}/task").iterdir():
            state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
            call, where = (thread / "syscall").read_text().strip(), (thread / "wchan").read_text()
            found.append(f"{(thread / 'comm').read_text().strip()}: {state}, system call {call}, {where}")
    return found


def descendants(pid: int) -> list[int]:
    """Return the ids of the children of *pid*, of their children, and so on."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError):  # it ended meanwhile
            found += [int(child), *descendants(int(child))]
    return found


def threads_inside(pid: int, call: int) -> int:
    """Return how many threads of *pid* wait in the system call number *call*."""
    count = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        count += (thread / "syscall").read_text().split()[0] == str(call)
    return count


class Mounted:
    """One line of the kernel's table of mounts (proc_pid_mountinfo(5))."""

    def __init__(self, line: bytes) -> None:
        fields, _, more = line.partition(b" - ")
        words = fields.split(b" ")
        self.id = int(words[0])
        self.path = _unescaped(words[4])
        self.options = set(os.fsdecode(words[5]).split(","))
        file_system, source, super_options = more.split(b" ")[:3]
        self.file_system = os.fsdecode(file_system)
        self.source = _unescaped(source)
        self.super_options = set(os.fsdecode(super_options).split(","))


def mounts_at(folder: Path | str) -> list[Mounted]:
    """Return the mounts on *folder* and below it, the latest first."""
    top = os.path.realpath(folder)
    lines = map(Mounted, Path("/proc/self/mountinfo").read_bytes().split(b"\n")[:-1])
    return [line for line in lines if line.path == top or line.path.startswith(f"{top}/")][::-1]


def _unescaped(word: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), word))


@contextmanager
def umask_of(mask: int) -> Iterator[None]:
    """Have the umask *mask* for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, if we are root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
