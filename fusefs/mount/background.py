"""A mount's process in the background."""

import fcntl
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from fusefs.errors import ImgfsError

log = logging.getLogger(__name__)

_READY = b"ready"
_STDERR = 2


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
