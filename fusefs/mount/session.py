"""The session of one mount: mounted, served, unmounted."""

import errno
import logging
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from fusefs.errors import MountError
from fusefs.mount.connection import set_switch
from fusefs.mount.mountinfo import Mount, mount_at
from fusefs.mount.operations import Operations
from fusefs.mount.overrides import Overrides
from fusefs.mount.privileges import drop_privileges
from fusefs.mount.requestloop import RequestLoop
from fusefs.mount.status import BytesRead
from fusefs.text import printable
from fusefs.tree.node import Directory

log = logging.getLogger(__name__)

_ALWAYS = ("ro", "nosuid", "nodev", "subtype=imgfs")
_MAX_REQUESTS = 4000
"""Requests that may wait at the same time; pyfuse3's default is 99, and 99 waiting requests would block all others."""
_MAX_READS = (3000, 1000, 300, 100)
"""Of these, reads: the first number that the kernel accepts; its default is 12, which as many waiting reads use up."""
_STDERR = 2


@dataclass(frozen=True, slots=True)
class MountOptions:
    """Options of the mount itself."""

    source: str
    """The device in /proc/mounts: the IMAGE argument."""
    flags: tuple[str, ...]
    """Any of ``allow_other``, ``allow_root``, ``noexec``, ``noatime``."""
    overrides: Overrides
    bytes_read: BytesRead
    """The counter of bytes read."""
    folders: tuple[str, ...] = ()
    """Directories in which files will be created: root's process keeps the capabilities for that."""

    def for_libfuse(self) -> list[str]:
        """Return libfuse's options in our order; in libfuse the last one wins."""
        options = [*self.flags, *_ALWAYS, f"fsname={_escaped(self.source)}"]
        if {"allow_other", "allow_root"} & set(self.flags):
            # Without these flags only the mounting user has access, and must be able to read an image's 0600 files.
            options.append("default_permissions")
        return options


def serve(root: Directory, mountpoint: str, options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount the tree below *root* and answer requests until it is unmounted or a signal arrives.

    *ready* is called once the mount is usable.  SIGINT, SIGTERM and SIGHUP (unless ignored) unmount at once, even
    while files are open and requests wait: those fail with ENOTCONN.  Raises MountError if it cannot mount.
    """
    trio.run(_serve, root, mountpoint, options, ready)


async def _serve(root: Directory, mountpoint: str, options: MountOptions, ready: Callable[[], None]) -> None:
    usable = trio.Event()

    def on_ready() -> None:
        ready()
        usable.set()

    logging.getLogger("pyfuse3").addFilter(_is_relevant)
    operations = Operations(root, options.overrides, on_ready, options.bytes_read)
    # Signals are received from here on, so that none can leave a mount behind.
    with trio.open_signal_receiver(*_stop_signals()) as signals:
        with _captured_stderr() as captured:
            try:
                pyfuse3.trio = RequestLoop()  # type: ignore[attr-defined]
                pyfuse3.init(operations, mountpoint, options.for_libfuse())  # type: ignore[arg-type]
            except RuntimeError as error:
                raise MountError(_mount_error(mountpoint, captured(), error)) from None
        try:
            drop_privileges(options.folders)  # before other threads start: each thread has capabilities of its own
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_on_signal, signals, nursery.cancel_scope)
                nursery.start_soon(_tune_when_usable, usable, mountpoint)
                await pyfuse3.main(max_tasks=_MAX_REQUESTS)
                nursery.cancel_scope.cancel()
        finally:
            pyfuse3.close(unmount=True)


async def _tune_when_usable(usable: trio.Event, mountpoint: str) -> None:
    await usable.wait()
    mount = mount_at(mountpoint)
    if mount is not None:
        _set_read_ahead(mount)
        _set_max_background(mount)


def _set_read_ahead(mount: Mount) -> None:
    """Let the kernel read ahead 1 MiB where a file is read sequentially; requires root.

    Random reads are not affected.  The kernel lowers the value when it receives the reply to FUSE_INIT, so
    this has to happen later.
    """
    with suppress(OSError):
        Path(f"/sys/class/bdi/0:{mount.connection}/read_ahead_kb").write_bytes(b"1024")


def _set_max_background(mount: Mount) -> None:
    """Let the kernel send more background requests at the same time, so that slow reads do not block others.

    Reads that fill the page cache are background requests, and the kernel queues those beyond the limit.  The limit
    stays below `_MAX_REQUESTS`, so that lookups and attributes are always answered.
    """
    for number in _MAX_READS:
        with suppress(OSError):
            set_switch(mount.connection, "max_background", number)
            return


def _stop_signals() -> list[signal.Signals]:
    """Return the signals that unmount; SIGHUP only if it is not ignored, as it is under nohup(1)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [signal.SIGHUP])]


async def _stop_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        log.info("%s: unmounting", signal.Signals(number).name)
        # Not pyfuse3.terminate(): that waits for running handlers.
        scope.cancel()


def _is_relevant(record: logging.LogRecord) -> bool:
    """Return False for a reply that the kernel has rejected: the request was interrupted, or the mount is gone."""
    return record.args != (os.strerror(errno.ENOENT),)


@contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Capture descriptor 2, to which libfuse and fusermount3 write the reason of an error."""
    captured = os.memfd_create("stderr", os.MFD_CLOEXEC)
    original = os.dup(_STDERR)
    os.dup2(captured, _STDERR)
    try:
        yield lambda: os.pread(captured, 1 << 16, 0).decode("utf-8", "replace")
    finally:
        os.dup2(original, _STDERR)
        os.close(original)
        os.close(captured)


def _mount_error(mountpoint: str, output: str, error: RuntimeError) -> str:
    lines = [re.sub(r"^(?:fuse|fusermount3?): ", "", line.strip()) for line in output.splitlines() if line.strip()]
    why = printable("; ".join(lines)) or str(error)
    hint = next((hint for words, hint in _HINTS if re.search(words, why)), "")
    return f"cannot mount on {printable(mountpoint)}: {why}{hint and f'; {hint}'}"


_HINTS = (
    ("user_allow_other", "add that line there as root"),
    ("exec fusermount3?", "install fuse3"),
    ("device not found|not permitted", "in a container: run it with --device /dev/fuse --cap-add SYS_ADMIN"),
    ("open /dev/fuse: Permission denied", "become root, or have root chmod 666 /dev/fuse"),
    ("no write access", "choose a directory of your own"),
)
"""Patterns in messages of libfuse and fusermount3, and what to do about them."""


def _escaped(text: str) -> str:
    """Return *text* as the value of a libfuse option: ASCII, commas and backslashes escaped."""
    encoded = "".join(
        char if char.isascii() and char.isprintable() and char != "%" else _percent(char) for char in text
    )
    return encoded.replace("\\", "\\\\").replace(",", "\\,")


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(char))
