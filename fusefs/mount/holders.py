"""The processes that keep a mount busy, as far as this user may see them (proc(5)).

Links in /proc are only read: nothing is asked of the mount, which may not answer.  The files that a process has
mapped are not read: /proc/PID/maps may wait for a page of a mount.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

from fusefs.text import printable

_MOST = 3
"""Processes that a message names."""


def holders(mountpoint: str) -> list[str]:
    """Return the first processes that have a file or directory of the mount on *mountpoint*: ``tail (12): /m/file``."""
    found: list[str] = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        held = next(_held(pid, mountpoint), None)
        if held is not None and pid != os.getpid():
            found.append(f"{_name(pid)} ({pid}): {printable(held)}")
            if len(found) == _MOST:
                break
    return found


def _held(pid: int, mountpoint: str) -> Iterator[str]:
    """Yield the paths in the mount that a process works in, runs or has open."""
    links = [f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe")]
    with suppress(OSError):
        links += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    for link in links:
        with suppress(OSError):
            path = os.readlink(link)
            if path == mountpoint or path.startswith(f"{mountpoint}/"):
                yield path


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return printable(file.read().rstrip(b"\n"))
    except OSError:
        return "a process"
