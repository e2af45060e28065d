"""Waiting for the end of a kernel mount: it needs no process, but a service manager wants one."""

import os
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fusefs.errors import MountError
from fusefs.mount.mountinfo import Mount, is_mounted, opened_table
from fusefs.mount.unmounting import detach, stop_signals
from fusefs.text import printable

_MANY = 4096
"""Signals that are read at once."""


@contextmanager
def stop_signals_noted() -> Iterator[list[int]]:
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

    Call it in the main thread.  Raises MountError if it cannot be unmounted: something is mounted on it, for example.
    """
    # Both are watched before the first look, so that nothing is missed between a look and the wait.
    with opened_table() as table, _signal_pipe() as signals:
        poll = select.poll()
        poll.register(table, select.POLLPRI)
        poll.register(signals, select.POLLIN)
        while is_mounted(mount):
            if noted:
                if (reason := detach(mount, lazily=True)) and is_mounted(mount):
                    raise MountError(f"cannot unmount {printable(mount.mountpoint)}: {reason}")
                return
            if (signals, select.POLLIN) in poll.poll():
                os.read(signals, _MANY)


@contextmanager
def _signal_pipe() -> Iterator[int]:
    """Give a descriptor that can be read when a signal has arrived: Python continues a poll that a signal ends."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
