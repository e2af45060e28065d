"""The life of one mount: ready, in the background, served, unmounted."""

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
"""Requests that may wait at the same time; with pyfuse3's default of 99 as many waiting ones stop everything."""
_MAX_READS = (3000, 1000, 300, 100)
"""How many of these may be reads, or as many as the kernel allows; with its default of 12 as many stop all others."""
_STDERR = 2


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What the user may choose of the mount itself."""

    source: str
    """What /proc/mounts shows as the device: the IMAGE argument."""
    flags: tuple[str, ...]
    """Of ``allow_other``, ``allow_root``, ``noexec``, ``noatime``."""
    overrides: Overrides
    bytes_read: BytesRead
    """Where what is read is counted."""
    folders: tuple[str, ...] = ()
    """Where files are yet to be made: root's process keeps what that needs."""

    def for_libfuse(self) -> list[str]:
        """Return libfuse's options in our order; in libfuse the last one wins."""
        options = [*self.flags, *_ALWAYS, f"fsname={_escaped(self.source)}"]
        if {"allow_other", "allow_root"} & set(self.flags):
            # Without these only the mounter gets in, and must be able to read an image's 0600 files.
            options.append("default_permissions")
        return options


def serve(root: Directory, mountpoint: str, options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount the tree below *root* and answer requests until it is unmounted or a signal comes.

    *ready* is called once the mount is usable.  SIGINT, SIGTERM and SIGHUP, unless that is ignored, unmount at once,
    also while files are open and requests wait: those fail with ENOTCONN.
    """
    trio.run(_serve, root, mountpoint, options, ready)


async def _serve(root: Directory, mountpoint: str, options: MountOptions, ready: Callable[[], None]) -> None:
    usable = trio.Event()

    def told() -> None:
        ready()
        usable.set()

    logging.getLogger("pyfuse3").addFilter(_is_news)
    operations = Operations(root, options.overrides, told, options.bytes_read)
    # Signals are caught before there is a mount, so that none can leave one behind.
    with trio.open_signal_receiver(*_stopping()) as signals:
        with _reason_from_stderr() as reason:
            try:
                pyfuse3.trio = RequestLoop()  # type: ignore[attr-defined]
                pyfuse3.init(operations, mountpoint, options.for_libfuse())  # type: ignore[arg-type]
            except RuntimeError as error:
                raise MountError(_refusal(mountpoint, reason(), error)) from None
        try:
            drop_privileges(options.folders)  # no other thread runs yet: each has its own
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_on_signal, signals, nursery.cancel_scope)
                nursery.start_soon(_once_usable, usable, mountpoint)
                await pyfuse3.main(max_tasks=_MAX_REQUESTS)
                nursery.cancel_scope.cancel()
        finally:
            pyfuse3.close(unmount=True)


async def _once_usable(usable: trio.Event, mountpoint: str) -> None:
    await usable.wait()
    mount = mount_at(mountpoint)
    if mount is not None:
        _read_far_ahead(mount)
        _let_many_wait(mount)


def _read_far_ahead(mount: Mount) -> None:
    """Let the kernel ask for a MiB at once where a file is read from end to end, which takes root.

    Linux does so only there: a read at another place is answered with what was asked for.  It lowers the
    number again when it gets the answer to the request that makes the mount usable, so that has to be over.
    """
    with suppress(OSError):
        Path(f"/sys/class/bdi/0:{mount.connection}/read_ahead_kb").write_bytes(b"1024")


def _let_many_wait(mount: Mount) -> None:
    """Let other reads pass where many wait.

    Those that fill the page cache are requests "in the background" to the kernel, of which it sends a few and keeps the
    rest, whatever they are for.  Fewer than all requests, so that names and attributes always pass.
    """
    for number in _MAX_READS:
        with suppress(OSError):
            set_switch(mount.connection, "max_background", number)
            return


def _stopping() -> list[signal.Signals]:
    """Return the signals that unmount; whoever was started with nohup(1) is not to hear of the terminal."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [signal.SIGHUP])]


async def _stop_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        log.info("%s: unmounting", signal.Signals(number).name)
        # Not terminate(): that waits for the handlers that run.
        scope.cancel()


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for an answer that the kernel wants no more: its request was interrupted, or the mount is gone."""
    return record.args != (os.strerror(errno.ENOENT),)


@contextmanager
def _reason_from_stderr() -> Iterator[Callable[[], str]]:
    """Keep what libfuse and fusermount3 write to descriptor 2, which is where they say why."""
    captured = os.memfd_create("stderr", os.MFD_CLOEXEC)
    kept = os.dup(_STDERR)
    os.dup2(captured, _STDERR)
    try:
        yield lambda: os.pread(captured, 1 << 16, 0).decode("utf-8", "replace")
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(captured)


def _refusal(mountpoint: str, reason: str, error: RuntimeError) -> str:
    lines = [re.sub(r"^(?:fuse|fusermount3?): ", "", line.strip()) for line in reason.splitlines() if line.strip()]
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
"""What helps against what libfuse and fusermount3 say."""


def _escaped(text: str) -> str:
    """Return *text* as the value of a libfuse option: one that cannot end early, in ASCII."""
    encoded = "".join(
        char if char.isascii() and char.isprintable() and char != "%" else _percent(char) for char in text
    )
    return encoded.replace("\\", "\\\\").replace(",", "\\,")


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(char))
