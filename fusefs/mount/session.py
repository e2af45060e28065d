"""The session of one mount: mounted, served, unmounted."""

import errno
import logging
import mmap
import os
import re
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Union

import pyfuse3
import trio

from fusefs.errors import LimitReached, MountError, limit_reached
from fusefs.mount.connection import set_switch
from fusefs.mount.kernel.hold import stop_signals_noted
from fusefs.mount.mountinfo import FILE_SYSTEM, Mount, identified, is_mounted, mounts
from fusefs.mount.mountpoint import Mountpoint
from fusefs.mount.operations import Operations
from fusefs.mount.privileges import drop_privileges
from fusefs.mount.requestloop import RequestLoop, reserved_buffers
from fusefs.mount.status import BytesRead, State, state_of
from fusefs.mount.succession import Succession, Successor
from fusefs.mount.trial import Trial
from fusefs.mount.unmounting import detach, stop_signals
from fusefs.pattern import pattern
from fusefs.text import printable
from fusefs.tree.node import Directory, KnownTree, LazyDirectory
from fusefs.tree.overrides import Overrides

if TYPE_CHECKING:
    from fusefs.mount.catalog.catalog import Catalog

log = logging.getLogger(__name__)

_ALWAYS = ("ro", "nosuid", "nodev", "subtype=imgfs")
_MAX_REQUESTS = 4000
"""Requests that may wait at the same time; pyfuse3's default is 99, and 99 waiting requests would block all others."""
_MAX_READS = (3000, 1000, 300, 100)
"""Of these, reads: the first number that the kernel accepts; its default is 12, which as many waiting reads use up."""
_MAX_SOURCE = 1024
"""Bytes of the device's name as libfuse gets it; the kernel takes a page for that and all options (mount(2))."""
_UNMOUNT_PATIENCE = 15.0
"""Seconds for a process to become free for fusermount3: a thread counts as one, and those of trio end after 10 s."""
_STDERR = 2


Root = Union[Directory, LazyDirectory, "Catalog"]
"""What a mount shows: one image, or many."""


class MountOptions(NamedTuple):
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
    successor: Successor | None = None
    """The kernel mount that takes the place of this one when all layers are indexed."""
    files: tuple[str, ...] = ()
    """Files that will be read, besides those of the image: root's process keeps the capability for that."""

    def for_libfuse(self) -> list[str]:
        """Return libfuse's options in our order; in libfuse the last one wins."""
        options = [*self.flags, *_ALWAYS, f"fsname={_shortened(self.source)}"]
        if {"allow_other", "allow_root"} & set(self.flags):
            # Without these flags only the mounting user has access, and must be able to read an image's 0600 files.
            options.append("default_permissions")
        return options


def serve(root: Root, mountpoint: Mountpoint, options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount the tree below *root* and answer requests until it is unmounted or a signal arrives.

    *ready* is called once the mount is usable.  SIGINT, SIGTERM, SIGXCPU and SIGHUP (unless ignored) unmount at
    once, even while files are open and requests wait: those fail with ENOTCONN.  Raises MountError if it cannot mount.
    """
    trial = Trial()
    try:
        # Not in the event loop: a task of trio itself that finds no memory ends, and the loop waits for it for ever.
        beginning = _Beginning(trial, ready, reserved_buffers(_MAX_REQUESTS))
        # No signal can leave a mount behind: trio receives it, or it is noted.
        with stop_signals_noted() as noted:
            succession = trio.run(_serve, root, mountpoint, options, beginning, noted)
            # Not in the event loop: a signal that came while it ended is noted when the loop has ended.
            succession.finish(noted)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:  # as trio wraps it
            error = error.exceptions[0]
        raise error from None
    finally:
        trial.close()


def _operations(root: Root, options: MountOptions) -> Operations:
    if isinstance(root, Directory | LazyDirectory):
        return Operations(KnownTree(root), options.overrides, options.bytes_read)
    from fusefs.mount.catalog.operations import CatalogOperations  # noqa: PLC0415 - few mounts need it

    return CatalogOperations(root, options.overrides, options.bytes_read)


class _Beginning(NamedTuple):
    """What a mount begins with."""

    trial: Trial
    ready: Callable[[], None]
    buffers: list[mmap.mmap] | None
    """Memory for its requests, see `reserved_buffers`."""


async def _serve(
    root: Root, mountpoint: Mountpoint, options: MountOptions, beginning: _Beginning, noted: Sequence[int]
) -> Succession:
    """Serve the FUSE mount to its end, and return what has taken its place; signals *noted* before end it."""
    with trio.open_signal_receiver(*stop_signals()) as signals:
        for number in noted:
            signal.raise_signal(number)
        return await _serve_by_fuse(root, mountpoint, options, beginning, signals)


async def _serve_by_fuse(
    root: Root,
    mountpoint: Mountpoint,
    options: MountOptions,
    beginning: _Beginning,
    signals: AsyncIterator[int],
) -> Succession:
    """Serve the FUSE mount until it is unmounted, taken over or one of *signals* arrives."""
    logging.getLogger("pyfuse3").addFilter(_is_relevant)
    operations = _operations(root, options)
    buffers = beginning.buffers
    # Without a limit of memory pyfuse3 may end workers that are idle; with one, each keeps its buffer.
    least, most = (1, _MAX_REQUESTS) if buffers is None else (len(buffers), len(buffers))

    async def begin(mount: Mount, succession: Succession) -> None:
        await _try_and_tune(beginning, mount, most, options, listed=isinstance(root, Directory))
        # Not earlier: a FUSE mount that nobody uses ends when the kernel takes over, and this process with it.
        await succession.run()

    mounting = _Mounting(mountpoint)
    with _captured_stderr() as captured:
        try:
            pyfuse3.trio = RequestLoop(buffers)  # type: ignore[attr-defined]
            pyfuse3.init(operations, mounting.target, options.for_libfuse())  # type: ignore[arg-type]
        except RuntimeError as error:
            output = captured().replace(mounting.target, mounting.path)
            if os.strerror(errno.EMFILE) in output:
                raise limit_reached(OSError(errno.EMFILE, output)) or error from None
            raise MountError(_mount_error(mounting.path, output, error)) from None
    try:
        mount = mounting.find()
        drop_privileges(options.folders, options.files)  # before other threads start: each has capabilities of its own
        succession = Succession(mount, options.successor)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, signals, succession, nursery.cancel_scope)
            nursery.start_soon(begin, mount, succession)
            nursery.start_soon(operations.serve_idle)
            await _answer_requests(least, most)
            await succession.settle()
            nursery.cancel_scope.cancel()
        return succession
    finally:
        # libfuse would unmount by path, which may lead to another directory by now.
        pyfuse3.close(unmount=False)
        beginning.trial.close()  # its place is free for fusermount3, if this user may start few processes
        mounting.undo()


async def _answer_requests(least: int, most: int) -> None:
    """Answer requests with *least* to *most* workers until the connection to the kernel is closed.

    A read of a request that the kernel hands out while it closes the connection fails with ECONNABORTED, any later one
    with ENODEV (fs/fuse/dev.c, fuse_dev_do_read), which libfuse takes for the end and pyfuse3 for no error.
    """
    try:
        await pyfuse3.main(least, most)
    except* ConnectionAbortedError:
        pass


class _Mounting:
    """The mount of this process.  It is on the checked directory, or does not exist."""

    def __init__(self, mountpoint: Mountpoint) -> None:
        """Refuse a directory that something was mounted on since it was checked."""
        self._mountpoint = mountpoint
        self.path = mountpoint.path
        self.target = mountpoint.target
        self._before = {_identity(mount) for mount in mounts()}
        self._found: Mount | None = None
        if mountpoint.covers():
            raise MountError(f"cannot mount on {printable(self.path)}: something is mounted there by now")

    def find(self) -> Mount:
        """Return the mount that was just made; MountError if it is somewhere else."""
        here = [mount for mount in self._mountpoint.covers() if self._is_new(mount)]
        if not here:
            raise MountError(f"cannot mount on {printable(self.path)}: the directory was moved meanwhile")
        (self._found,) = identified(here[:1])
        return self._found

    def _is_new(self, mount: Mount) -> bool:
        return mount.file_system == FILE_SYSTEM and mount.owner == os.geteuid() and _identity(mount) not in self._before

    def _may_be_dead(self, mount: Mount) -> bool:
        state, _ = state_of(mount)
        return state is State.STALE or (self._found is not None and state is not State.MOUNTED)

    def undo(self) -> None:
        """Unmount, once the connection is closed, unless somebody has."""
        if self._found is not None and not is_mounted(self._found):
            return
        for mount in mounts():
            found = self._found
            ours = found is None or (mount.id, mount.connection) == (found.id, found.connection)
            # The numbers of a mount that is gone may be another one's by now: that one answers.
            if ours and self._is_new(mount) and self._may_be_dead(mount):
                reason = _detached(mount)
                if reason:
                    log.error("cannot unmount %s: %s", printable(mount.mountpoint), reason)


def _detached(mount: Mount) -> str | None:
    """Unmount *mount*; return None or the reason of the failure."""
    deadline = time.monotonic() + _UNMOUNT_PATIENCE
    while True:
        try:
            return detach(mount, lazily=True)
        except MountError as error:
            return str(error)
        except LimitReached as error:  # fusermount3 cannot be started yet
            if time.monotonic() > deadline:
                return str(error)
        time.sleep(0.1)


def _identity(mount: Mount) -> tuple[int, int, str]:
    """Return the numbers and the place of a mount: the kernel gives the numbers of a mount that is gone to others."""
    return mount.id, mount.connection, mount.mountpoint


async def _try_and_tune(beginning: _Beginning, mount: Mount, most: int, options: MountOptions, *, listed: bool) -> None:
    """Say that the mount, which serves *most* requests at the same time, is ready, once it has answered one."""
    await beginning.trial.run(mount, listed=listed)
    options.bytes_read.total = 0  # nobody else has read yet
    beginning.ready()
    _set_read_ahead(mount)
    _set_max_background(mount, most)


def _set_read_ahead(mount: Mount) -> None:
    """Let the kernel read ahead 1 MiB where a file is read sequentially; requires root.

    Random reads are not affected.  The kernel lowers the value when it receives the reply to FUSE_INIT, so
    this has to happen later.
    """
    with suppress(OSError):
        Path(f"/sys/class/bdi/0:{mount.connection}/read_ahead_kb").write_bytes(b"1024")


def _set_max_background(mount: Mount, most: int) -> None:
    """Let the kernel send more background requests at the same time, so that slow reads do not block others.

    Reads that fill the page cache are background requests, and the kernel queues those beyond the limit.  The limit
    stays below *most*, so that lookups and attributes are always answered.
    """
    for number in _MAX_READS:
        with suppress(OSError):
            set_switch(mount.connection, "max_background", min(number, most * 3 // 4))
            return


async def _stop_on_signal(signals: AsyncIterator[int], succession: Succession, scope: trio.CancelScope) -> None:
    async for number in signals:
        log.info("%s: unmounting", signal.Signals(number).name)
        succession.stopped = True
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
    if spawned := _NOT_SPAWNED.search(output):
        lines = [f"failed to exec {spawned[1]}: {spawned[2]}"]
    why = printable("; ".join(lines)) or str(error)
    hint = next((hint for words, hint in _HINTS if re.search(words, why)), "")
    return f"cannot mount on {printable(mountpoint)}: {why}{hint and f'; {hint}'}"


_NOT_SPAWNED = pattern(r"posix_spawn\(p\)\(\) for (fusermount3?) failed: (.*?)(?:On calling|$)", re.MULTILINE)
"""What libfuse 3.17 says, more than once, where older ones say that exec has failed."""
_HINTS = (
    ("user_allow_other", "add that line there as root"),
    ("exec fusermount3?", "install fuse3"),
    ("device not found|not permitted", "in a container: run it with --device /dev/fuse --cap-add SYS_ADMIN"),
    ("open /dev/fuse: Permission denied", "become root, or have root chmod 666 /dev/fuse"),
    ("no write access", "choose a directory of your own"),
)
"""Patterns in messages of libfuse and fusermount3, and what to do about them."""


def _shortened(text: str) -> str:
    """Return *text* as the value of a libfuse option, its beginning replaced by an ellipsis where it is too long."""
    chars = [_escaped(char) for char in text]
    length = sum(map(len, chars))
    if length <= _MAX_SOURCE:
        return "".join(chars)
    ellipsis = _escaped("…")
    end = deque[str]()
    room = _MAX_SOURCE - len(ellipsis)
    while len(chars[-1]) <= room:
        end.appendleft(chars.pop())
        room -= len(end[0])
    return ellipsis + "".join(end)


def _escaped(char: str) -> str:
    """Return a character as a part of a libfuse option's value: in ASCII, and no end of it."""
    if char in "\\,":
        return "\\" + char
    if char.isascii() and char.isprintable() and char != "%":
        return char
    return "".join(f"%{byte:02X}" for byte in os.fsencode(char))
