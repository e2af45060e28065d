"""Waiting for the end of a kernel mount: it needs no process, but a service manager wants one."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from fusefs.mount.mountinfo import Mount, is_mounted
from fusefs.mount.unmounting import detach, stop_signals

_INTERVAL = 0.3
"""Seconds between two looks at the mount table."""


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Let the signals at which a process unmounts wait for `hold_until_unmounted`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hold_until_unmounted(mount: Mount) -> None:
    """Return when *mount* is unmounted; unmount it, even if it is in use, at a signal, which is blocked."""
    signals = stop_signals()
    while is_mounted(mount):
        if signal.sigtimedwait(signals, _INTERVAL):
            detach(mount, lazily=True)
