"""Waiting for the end of a kernel mount: it needs no process, but a service manager wants one."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fusefs.errors import MountError
from fusefs.mount.mountinfo import Mount, is_mounted
from fusefs.mount.unmounting import detach, stop_signals
from fusefs.text import printable

_INTERVAL = 0.3
"""Seconds between two looks at the mount table."""


@contextmanager
def stop_signals_noted() -> Iterator[Sequence[int]]:
    """Give a list of the signals at which a process unmounts, which grows as they arrive and do nothing else.

    To block them would not do: a thread that is about to end may not block them, and the process would end with it.
    """
    noted: list[int] = []
    before = {number: signal.signal(number, lambda number, _: noted.append(number)) for number in stop_signals()}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hold_until_unmounted(mount: Mount, noted: Sequence[int]) -> None:
    """Return when *mount* is unmounted; unmount it, even if it is in use, once a signal is *noted*.

    Raises MountError if it cannot be unmounted: something is mounted on it, for example.
    """
    while is_mounted(mount):
        if noted:
            if (reason := detach(mount, lazily=True)) and is_mounted(mount):
                raise MountError(f"cannot unmount {printable(mount.mountpoint)}: {reason}")
            return
        time.sleep(_INTERVAL)
