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
from fusefs.pattern import pattern
from fusefs.text import printable

_MAX_OUTPUT = 1 << 20
_MAX_ERRORS = 1 << 12
_MAX_REASON = 200
_LIKE_JSON = pattern(rb'^\s*["\[]|[{}]|(?i:secret)')
_GLANCE = 0.05
"""Seconds between two looks whether it has ended, which count only if another program holds its output open."""
_PARTING = 0.25
"""Seconds in which a helper that Ctrl-C has reached may end by itself, and restore the terminal."""


def ask_helper(program: str, registry: str, seconds: float) -> tuple[int, bytes, bytes]:
    """Return the status of ``PROGRAM get``, what it prints about *registry*, and the beginning of its errors.

    Raises UsageError if it cannot be run, takes longer than *seconds* or prints more than 1 MiB: then it is killed with
    the programs that it has started.  Those that it leaves behind after its answer stay: they may be agents.
    """
    deadline = time.monotonic() + seconds
    try:
        helper = subprocess.Popen(
            [program, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise UsageError(f"cannot run {program}: {error.strerror}") from None
    with helper:
        try:
            assert helper.stdin is not None
            with suppress(BrokenPipeError), helper.stdin:
                helper.stdin.write(registry.encode())
            output, errors = _output(helper, deadline)
            if len(output) > _MAX_OUTPUT:
                raise UsageError(f"{program} prints more than {_MAX_OUTPUT >> 20} MiB")
            return helper.wait(max(0.0, deadline - time.monotonic())), output, errors
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                with suppress(subprocess.TimeoutExpired):
                    helper.wait(_PARTING)
            if helper.poll() is None:
                _kill(helper.pid)
            if isinstance(error, (TimeoutError, subprocess.TimeoutExpired)):
                raise UsageError(f"{program} did not answer within {seconds:.0f} s") from None
            raise


def reason(output: bytes, errors: bytes) -> str:
    """Return why a helper failed, by the first line of its *errors* or its *output*; empty if it does not say.

    Helpers of Docker print it, but a secret may be there: nothing that looks like JSON is shown.
    """
    for text in (errors, b"" if _LIKE_JSON.search(output) else output):
        lines = text.decode(errors="replace").split("\n")
        line = next((stripped for line in lines if (stripped := line.strip())), "")
        if line:
            return printable(line[:_MAX_REASON])
    return ""


def _output(helper: "subprocess.Popen[bytes]", deadline: float) -> tuple[bytes, bytes]:
    """Return what *helper* prints, up to a bit more than the limit, and its first errors.

    TimeoutError after *deadline*.  A program that it leaves behind may hold the pipes open.
    """
    assert helper.stdout is not None
    assert helper.stderr is not None
    output, errors = helper.stdout.fileno(), helper.stderr.fileno()
    texts, poll = {output: b"", errors: b""}, select.poll()
    for pipe in texts:
        poll.register(pipe, select.POLLIN)
    is_open = set(texts)
    while is_open and len(texts[output]) <= _MAX_OUTPUT:
        has_ended = helper.poll() is not None
        left = max(0.0, deadline - time.monotonic())
        ready = {pipe for pipe, _ in poll.poll(0 if has_ended else min(left, _GLANCE) * 1000)}
        for pipe in ready:
            piece = os.read(pipe, 1 << 16)
            if not piece:
                poll.unregister(pipe)
                is_open.remove(pipe)
            elif pipe == output or len(texts[errors]) < _MAX_ERRORS:  # the others are read, too: it must not wait
                texts[pipe] += piece
        if has_ended and output not in ready:
            break
        if not left and output not in ready:
            raise TimeoutError
    return texts[output], texts[errors]


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
