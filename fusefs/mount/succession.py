"""The change from a FUSE mount to a kernel mount in its place, while the FUSE mount is in use."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from fusefs.errors import ImgfsError, MountError, limit_reached
from fusefs.log import logger
from fusefs.mount.kernel.hold import hold_until_unmounted
from fusefs.mount.kernel.support import BytesMissing
from fusefs.mount.mountinfo import Mount
from fusefs.text import printable

log = logger(__name__)

_FETCHING = 1.0
"""Seconds between two looks whether layers of a registry are here; doubled each time, up to the next number."""
_MOST = 60.0


class Successor(NamedTuple):
    """A kernel mount that can take the place of a FUSE mount."""

    wanted: threading.Event
    """Set when all layers are indexed."""
    mount: Callable[[], int]
    """Makes the mount and returns a descriptor of its root; raises as `KernelView.written` does."""
    foreground: bool
    """Whether this process ends with the kernel mount, and not already with the last open file of the FUSE mount."""


class Succession:
    """The change of one mount.  It never ends the FUSE mount with an error."""

    def __init__(self, mount: Mount, successor: Successor | None) -> None:
        """Let *successor*, if there is one, take the place of the FUSE mount *mount* of this process."""
        self._mount = mount
        self._successor = successor
        self._kernel_mount: Mount | None = None
        self._taking_over = trio.Lock()
        self.stopped = False
        """Whether a signal has asked to unmount."""

    async def run(self) -> None:
        """Wait until the kernel mount is wanted, make it, and let it take over."""
        successor = self._successor
        if successor is None:
            return
        shown = printable(self._mount.mountpoint)
        try:
            await trio.to_thread.run_sync(successor.wanted.wait, abandon_on_cancel=True)
            root = await self._mounted(successor)
            async with self._taking_over:
                self._kernel_mount = await trio.to_thread.run_sync(self._take_over, root)
        except (ImgfsError, OSError, MemoryError) as error:
            log.info("%s stays a FUSE mount: %s", shown, error)
        except Exception as error:
            if limit := limit_reached(error):  # no thread, for example
                log.info("%s stays a FUSE mount: %s", shown, limit)
            else:
                log.exception("%s stays a FUSE mount: a bug", shown)
        else:
            log.info("%s is a kernel mount now", shown)

    async def _mounted(self, successor: Successor) -> int:
        """Make the kernel mount as soon as all bytes are on this machine: indexed layers need not be fetched whole."""
        interval = _FETCHING
        while True:
            try:
                return await trio.to_thread.run_sync(successor.mount, abandon_on_cancel=True)
            except BytesMissing as error:
                if interval == _FETCHING:
                    log.info("%s is a FUSE mount for now: %s", printable(self._mount.mountpoint), error)
                await trio.sleep(interval)
                interval = min(2 * interval, _MOST)

    def _take_over(self, root: int) -> Mount | None:
        from fusefs.mount.kernel.attach import take_over  # noqa: PLC0415 - few mounts have a successor

        try:
            return take_over(root, self._mount)
        finally:
            os.close(root)

    async def settle(self) -> None:
        """Wait until it is known why the FUSE mount has ended: it may end a moment before."""
        async with self._taking_over:
            pass

    def finish(self, signals: Sequence[int]) -> None:
        """Unmount the kernel mount if a signal has asked for it; in the foreground, wait for its end or a signal.

        *signals* are those of `stop_signals_noted`.  Raises MountError in the foreground if it cannot be unmounted.
        """
        mount, successor = self._kernel_mount, self._successor
        if mount is None or successor is None or not (self.stopped or signals or successor.foreground):
            return
        try:
            hold_until_unmounted(mount, [signal.SIGTERM] if self.stopped else signals)
        except MountError as error:
            if successor.foreground:
                raise
            log.error("%s", error)  # noqa: TRY400 - it is no bug
