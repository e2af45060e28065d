"""The life of one mount: ready, in the background, served, unmounted."""

import errno
import fcntl
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

from fusefs.errors import ImgfsError, MountError, printable
from fusefs.fusecontrol import set_switch
from fusefs.mountfacts import BytesRead
from fusefs.mountinfo import Mount, mount_at
from fusefs.operations import Operations, Overrides
from fusefs.privileges import drop_privileges
from fusefs.requestloop import RequestLoop
from fusefs.tree import Directory

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


_READY = b"ready"


def in_background(run: Callable[[Callable[[], None]], None], log_handler: logging.Handler) -> None:
    """Call *run* in a process of its own and return when it says that it is ready.

    *run* gets a function to call then.  The process leads its own session, has no terminal, and
    logs to *log_handler* alone.  An ImgfsError before it is ready is raised here; should this
    process be gone by then, the other one ends too.
    """
    reader, writer = os.pipe()
    child = os.fork()  # no thread runs yet, and nothing is served
    if child == 0:
        os.close(reader)
        os._exit(_background(run, writer, log_handler))
    os.close(writer)
    try:
        with open(reader, "rb") as pipe:
            answer = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    if answer != _READY:
        os.waitpid(child, 0)
        code, _, message = answer.partition(b" ")
        raise _carried(code, message)


def _background(run: Callable[[Callable[[], None]], None], writer: int, log_handler: logging.Handler) -> int:
    """Be the process in the background; return its exit status."""
    told = False
    _close_inherited()

    def ready() -> None:
        nonlocal told
        told = True
        # Not before: systemd's automount keeps everyone from the mountpoint who is not in the group of its mount(8).
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        os.chdir("/")
        logging.getLogger().handlers[:] = [log_handler]
        try:
            os.write(writer, _READY)
        except BrokenPipeError:  # who asked for this mount is gone
            os.kill(os.getpid(), signal.SIGTERM)
        os.close(writer)

    # A Ctrl-C is for who asked for this mount, and until it is there we share the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(ready)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told and logged
        code = error.exit_code if isinstance(error, ImgfsError) else 1
        message = str(error) if isinstance(error, ImgfsError) else f"bug: {error!r}; the log has more"
        if told or not isinstance(error, ImgfsError):
            log_handler.handle(_record(error))
        if not told:
            os.write(writer, f"{code} {message}".encode("utf-8", "backslashreplace"))
        return code
    finally:
        logging.shutdown()
    return 0


def _close_inherited() -> None:
    """Close what the caller of the command left open: who waits for the end of a pipe waits for all who have it."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        with suppress(OSError):
            # Python opens nothing without this flag, and what has it does not come through exec.
            if descriptor > _STDERR and not fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.close(descriptor)


def _record(error: BaseException) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__)
    return log.makeRecord(log.name, logging.CRITICAL, __file__, 0, "the mount ends", (), info)


def _carried(code: bytes, message: bytes) -> ImgfsError:
    """Return the error of the background process as one that can be raised here."""
    text = message.decode() or "the background process died without a word"
    kinds = {b"%d" % kind.exit_code: kind for kind in ImgfsError.__subclasses__()}
    return kinds.get(code, ImgfsError)(text)


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
