"""A credential helper: a program of the user that is asked once, within limits of time and output.

It stays in the process group of imgfs, as with docker and skopeo: in another one it could not ask at the terminal, and
Ctrl-C would not reach it.
"""

import os
import select
import signal
import subprocess
import time
from contextlib import suppress

from fusefs.errors import UsageError

_MAX_OUTPUT = 1 << 20
_GLANCE = 0.05
"""Seconds between two looks whether it has ended, which count only if another program holds its output open."""
_PARTING = 0.25
"""Seconds in which a helper that Ctrl-C has reached may end by itself, and restore the terminal."""


def ask_helper(program: str, registry: str, seconds: float) -> tuple[int, bytes]:
    """Return the status of ``PROGRAM get`` and what it prints about *registry*; its errors are not shown.

    Raises UsageError if it cannot be run, takes longer than *seconds* or prints more than 1 MiB: then it is killed with
    the programs that it has started.  Those that it leaves behind after its answer stay: they may be agents.
    """
    deadline = time.monotonic() + seconds
    try:
        helper = subprocess.Popen(
            [program, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise UsageError(f"cannot run {program}: {error.strerror}") from None
    with helper:
        try:
            assert helper.stdin is not None
            with suppress(BrokenPipeError), helper.stdin:
                helper.stdin.write(registry.encode())
            output = _output(helper, deadline)
            if len(output) > _MAX_OUTPUT:
                raise UsageError(f"{program} prints more than {_MAX_OUTPUT >> 20} MiB")
            return helper.wait(max(0.0, deadline - time.monotonic())), output
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                with suppress(subprocess.TimeoutExpired):
                    helper.wait(_PARTING)
            if helper.poll() is None:
                _kill(helper.pid)
            if isinstance(error, (TimeoutError, subprocess.TimeoutExpired)):
                raise UsageError(f"{program} did not answer within {seconds:.0f} s") from None
            raise


def _output(helper: "subprocess.Popen[bytes]", deadline: float) -> bytes:
    """Return what *helper* prints, up to a bit more than the limit; TimeoutError after *deadline*.

    A program that it leaves behind may hold the pipe open.
    """
    assert helper.stdout is not None
    output, poll = b"", select.poll()
    poll.register(helper.stdout, select.POLLIN)
    while len(output) <= _MAX_OUTPUT:
        has_ended = helper.poll() is not None
        left = max(0.0, deadline - time.monotonic())
        if poll.poll(0 if has_ended else min(left, _GLANCE) * 1000):
            piece = os.read(helper.stdout.fileno(), 1 << 16)
            if not piece:
                break
            output += piece
        elif has_ended:
            break
        elif not left:
            raise TimeoutError
    return output


def _kill(process: int) -> None:
    """Kill *process* and all that it has started.  It is stopped before: a process with a signal cannot fork."""
    with suppress(OSError):
        os.kill(process, signal.SIGSTOP)
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children", encoding="ascii") as children:
                for child in children.read().split():
                    _kill(int(child))
    with suppress(OSError):
        os.kill(process, signal.SIGKILL)
