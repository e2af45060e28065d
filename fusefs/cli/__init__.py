"""The command line: arguments in, output, messages and exit codes out.

Only this package reads the environment and writes to the terminal.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from fusefs.cli.caller import ignore_python_variables, may_end_at_once, save_memory
from fusefs.cli.imports import import_command
from fusefs.cli.output.stdout import ReaderGone, flush_stderr, flush_stdout, say
from fusefs.cli.parsing.mount8 import FAILURE, is_helper, mount_status, parse_call
from fusefs.errors import ImgfsError, limit_reached
from fusefs.text import printable

_INTERRUPTED = 130
"""128 + SIGINT."""
_BROKEN_PIPE = 141
"""128 + SIGPIPE: the status that a shell reports for a program that this signal has ended."""
_AGAIN = 0.002
"""Seconds until Ctrl-C is looked at again that came during an import."""


def _open_standard_streams() -> None:
    """Open the standard streams that the caller has closed; otherwise another file would get the number 0, 1 or 2."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the end
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv*, default: that of the process, and return the exit status.

    Called as a helper of mount(8), return the exit status that mount(8) expects.
    """
    _open_standard_streams()
    if argv is None:
        ignore_python_variables()
    _receive_signals()
    program, *words = sys.argv if argv is None else ("imgfs", *argv)
    helper = is_helper(program, words)
    try:
        status = _run(program, words)
        status = mount_status(status) if helper else status
    except Exception:
        if not helper:
            raise
        sys.excepthook(*sys.exc_info())  # a bug; but mount(8) takes Python's status 1 for a usage error
        status = FAILURE
    finally:
        if argv is None:
            _stop_receiving()
        flush_stderr()
    if argv is None and may_end_at_once() and flush_stdout():
        os._exit(status)  # Python's own end takes 3 ms, and, without memory, complains
    return status


def _receive_signals() -> None:
    """Receive the signals that imgfs needs, whatever the caller ignores or blocks.

    With SIGCHLD ignored, the exit status of a child is lost (wait(2)).  Programs that imgfs starts inherit this.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stops = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGALRM, *stops))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the caller ignores it
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but never inside of an import: once that has ended.

    importlib also takes the lock of all imports in callbacks of weak references, where Python ignores exceptions: the
    signal would be lost, the lock could stay taken, and a thread that imports would wait for ever.
    """
    importlib = vars(sys.modules["_frozen_importlib"])
    while frame is not None and frame.f_code is not main.__code__:
        if frame.f_globals is importlib:
            signal.signal(signal.SIGALRM, _interrupt)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _stop_receiving() -> None:
    """Let Ctrl-C end the process from now on: an exception would be a traceback at its end."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(program: str, words: Sequence[str]) -> int:
    try:
        save_memory()
        arguments = parse_call(program, words)
        return import_command(arguments.command).run(arguments, os.environ) or 0
    except ImgfsError as error:
        say(printable(str(error)))
        return error.exit_code
    except ReaderGone:
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        say("interrupted")
        return _INTERRUPTED
    except Exception as error:
        reached = limit_reached(error)
        if reached is None:
            raise
        say(str(reached))
        return reached.exit_code
