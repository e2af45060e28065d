"""The processes that keep a mount busy, as far as this user may see them (proc(5)).

Links in /proc are only read, or opened as paths: nothing is asked of the mount, which may not answer.  The files that
a process has mapped are not read: /proc/PID/maps may wait for a page of a mount.
"""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress

from fusefs.mount.mountinfo import Mount, lies_in
from fusefs.pattern import pattern
from fusefs.text import printable

_MOST = 3
"""Processes that a message names."""
_PENDING = pattern(rb"^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$", re.MULTILINE)
_SIGKILL = 1 << signal.SIGKILL - 1
_WAIT = b"request_wait_answer"
"""The function of the kernel in which a thread waits for a FUSE mount, and no signal ends the wait (fs/fuse/dev.c)."""


def holders(mountpoint: str) -> list[str]:
    """Return the first processes that have a file or directory of the mount on *mountpoint*: ``tail (12): /m/file``.

    Killed ones do not count: they have it until the request is answered that they wait for.
    """
    found: list[str] = []
    for pid in _processes():
        held = next((path for _, path in _held(str(pid), mountpoint)), None)
        if held is not None and pid != os.getpid() and not _is_killed(pid):
            found.append(f"{_name(pid)} ({pid}): {printable(held)}")
            if len(found) == _MOST:
                break
    return found


def has_killed_waiter(mount: Mount) -> bool:
    """Return whether a killed process that has a file or directory of *mount* waits for an answer of a FUSE mount.

    Nothing tells of which mount it is.
    """
    return any(
        _is_killed(pid) and any(_has(f"{pid}/task/{thread}", mount) for thread in _waiting(pid)) for pid in _processes()
    )


def _processes() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def _is_killed(pid: int) -> bool:
    """Return whether SIGKILL has been sent to a process, which still exists."""
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        return any(int(mask, 16) & _SIGKILL for mask in _PENDING.findall(file.read()))
    return False


def _waiting(pid: int) -> Iterator[str]:
    """Yield the threads that wait for the answer to a request that the process of a mount has received already."""
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/wchan", "rb") as file:
                if file.read() == _WAIT:
                    yield thread


def _held(process: str, mountpoint: str) -> Iterator[tuple[str, str]]:
    """Yield links, and the paths below *mountpoint* that a process (or ``PID/task/TID``) works in, runs or has open."""
    links = [f"/proc/{process}/{name}" for name in ("cwd", "root", "exe")]
    with suppress(OSError):
        links += [f"/proc/{process}/fd/{name}" for name in os.listdir(f"/proc/{process}/fd")]
    for link in links:
        with suppress(OSError):
            path = os.readlink(link)
            if path == mountpoint or path.startswith(f"{mountpoint}/"):
                yield link, path


def _has(process: str, mount: Mount) -> bool:
    """Return whether a process, or thread, has a file or directory of *mount*, and not only one with such a path."""
    for link, _ in _held(process, mount.mountpoint):
        with suppress(OSError):
            descriptor = os.open(link, os.O_PATH | os.O_CLOEXEC)
            try:
                if lies_in(descriptor, mount):
                    return True
            finally:
                os.close(descriptor)
    return False


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return printable(file.read().rstrip(b"\n"))
    except OSError:
        return "a process"
