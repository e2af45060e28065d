"""Waiting for the end of a kernel mount, for which no process is needed: a service manager wants one."""

import signal
import time
from types import FrameType
from typing import NoReturn

from fusefs.mount.mountinfo import Mount, mounts
from fusefs.mount.unmounting import detach, stop_signals

_INTERVAL = 0.3
"""Seconds between two looks at the mount table."""


class _Stopped(Exception):
    """A signal has arrived."""


def hold_until_unmounted(mount: Mount) -> None:
    """Return when *mount* is unmounted; unmount it, even if it is in use, at a signal (`stop_signals`)."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - as signal(2) calls it
        raise _Stopped

    signals = stop_signals()
    try:
        for number in signals:
            signal.signal(number, stop)
        while any((found.id, found.mountpoint) == (mount.id, mount.mountpoint) for found in mounts()):
            time.sleep(_INTERVAL)
    except _Stopped:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        detach(mount, lazily=True)
