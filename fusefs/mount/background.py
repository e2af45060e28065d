"""The background process that serves a mount."""

import fcntl
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

from fusefs.errors import ImgfsError, LimitReached, limit_reached

log = logging.getLogger(__name__)

_LOOKUP = "lookup"
"""The name of the threads with which `sources.servers.early` looks up the name of a host."""
_READY = b"ready"
_NO_MEMORY = f"{LimitReached.exit_code} {limit_reached(MemoryError())}".encode()
"""The report of an error that is made already."""
_STDERR = 2


def in_background(run: Callable[[Callable[[], None]], None], log_handler: logging.Handler) -> None:
    """Call *run* in a child process, and return when the child is ready.

    *run* gets the function to call when it is ready.  The child then leads its own session, has no terminal,
    and logs to *log_handler* alone.  An ImgfsError that it raises before is raised here.  If this process
    ends before the child is ready, the child ends too.
    """
    _join_threads()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os._exit(_background(run, writer, log_handler))
        except (MemoryError, OSError):  # there is too little for the report of an error, too
            os.write(writer, _NO_MEMORY)
        finally:
            os._exit(LimitReached.exit_code)  # in no case go on as the process that was forked
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
        raise _received_error(code, message)


def _join_threads() -> None:
    """Wait for all other threads: the child would not have them, but the locks and the claims that they hold.

    They fetch bytes that nobody waits for any more, or are about to end.  One that looks up the name of a host holds
    nothing, and may take longer than anybody has waited for it.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name != _LOOKUP:
            thread.join()


def _background(run: Callable[[Callable[[], None]], None], writer: int, log_handler: logging.Handler) -> int:
    """Run in the background process; return its exit status."""
    is_ready = False
    _close_inherited()

    def ready() -> None:
        nonlocal is_ready
        is_ready = True
        # Not earlier: until then systemd's automount admits only the process group of its mount(8) to the mountpoint.
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        os.chdir("/")
        logging.getLogger().handlers[:] = [log_handler]
        try:
            os.write(writer, _READY)
        except BrokenPipeError:  # the process that started this mount has ended
            os.kill(os.getpid(), signal.SIGTERM)
        os.close(writer)

    # Ctrl-C is meant for the parent, with which this process shares the terminal until the mount is ready.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(ready)
    except BaseException as raised:  # noqa: BLE001 - every error is reported and logged
        error = limit_reached(raised) or raised
        code = error.exit_code if isinstance(error, ImgfsError) else 1
        message = str(error) if isinstance(error, ImgfsError) else f"bug: {error!r}; see the log"
        if is_ready or not isinstance(error, ImgfsError):
            log_handler.handle(_log_record(error))
        if not is_ready:
            os.write(writer, f"{code} {message}".encode("utf-8", "backslashreplace"))
        return code
    finally:
        logging.shutdown()
    return 0


def _close_inherited() -> None:
    """Close inherited descriptors: a reader of a pipe waits until every copy of the other end is closed."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        with suppress(OSError):
            # Descriptors that Python opened have this flag; inherited ones do not, since exec would have closed them.
            if descriptor > _STDERR and not fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.close(descriptor)


def _log_record(error: BaseException) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__)
    return log.makeRecord(log.name, logging.CRITICAL, __file__, 0, "the mount ended with an error", (), info)


def _received_error(code: bytes, message: bytes) -> ImgfsError:
    """Return the error that the background process has sent."""
    text = message.decode() or "the background process ended without an error message"
    kinds = {b"%d" % kind.exit_code: kind for kind in ImgfsError.__subclasses__()}
    return kinds.get(code, ImgfsError)(text)
