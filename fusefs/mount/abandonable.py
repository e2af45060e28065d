"""Work that may never end, in a child process that the parent can abandon.

If a FUSE server reads a request and never answers, not even SIGKILL ends the sleep of its client (fuse.rst,
"Interrupting filesystem operations").  One thread in such a sleep keeps its whole process from ending.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from fusefs.errors import ImgfsError, LimitReached

if TYPE_CHECKING:  # most mounts need no such child
    import socket

_MAX_ANSWER = 3 << 16
"""Bytes of an answer: below the default buffer of a socket, 212,992 bytes (net.core.wmem_default)."""
_MAX_DESCRIPTORS = 4
_ANSWER = "answer"
"""First word of an answer; an error begins with the name of its class."""


class ChildReport(NamedTuple):
    """One message of the child."""

    value: Any
    """A value of JSON types."""
    descriptors: tuple[int, ...] = ()
    """Files that the child opened and passed to this process."""


Say = Callable[[ChildReport], None]


def answers(work: Callable[[Say], None], seconds: float) -> Iterator[ChildReport]:
    """Run *work* in a child process and yield its messages until it ends, or sends none for *seconds*.

    Raises the ImgfsError of *work*.  The child has neither open files of this process nor a terminal.  Call it only
    while one thread runs and no mount is served.
    """
    import socket  # noqa: PLC0415 - most mounts need no such child

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = start(work, theirs)
        try:
            yield from _received(ours, seconds)
        finally:
            leave(child)


def start(work: Callable[[Say], None], connection: "socket.socket") -> int:
    """Run *work* in a child process that has no open file but *connection*, to which its messages go; return its ID."""
    child = _forked()
    if child == 0:
        _be_child(work, connection)
    return child


def _forked() -> int:
    try:
        return os.fork()
    except OSError as error:
        reason = f"cannot start a process: {error.strerror}"
        raise LimitReached(f"{reason}; raise the limit of processes or of memory (ulimit -u, -v)") from None


def _received(connection: "socket.socket", seconds: float) -> Iterator[ChildReport]:
    import socket  # noqa: PLC0415

    connection.settimeout(seconds)
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, _MAX_ANSWER, _MAX_DESCRIPTORS)
        except TimeoutError:
            return
        if not data:
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        name, value = json.loads(data)
        if name != _ANSWER:
            kinds = {kind.__name__: kind for kind in ImgfsError.__subclasses__()}
            raise kinds.get(name, RuntimeError)(value)
        yield ChildReport(value, tuple(descriptors))


def _be_child(work: Callable[[Say], None], connection: "socket.socket") -> NoReturn:
    """Do *work* and exit, even after an error."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _close_others(connection.fileno())

        import socket  # noqa: PLC0415

        def say(answer: ChildReport) -> None:
            socket.send_fds(connection, [json.dumps([_ANSWER, answer.value]).encode()], answer.descriptors)

        try:
            work(say)
        except Exception as error:  # noqa: BLE001 - the parent reports bugs, too
            text = str(error) if isinstance(error, ImgfsError) else repr(error)
            connection.send(json.dumps([type(error).__name__, text]).encode())
    finally:
        os._exit(0)


def _close_others(kept: int) -> None:
    """Close all files except *kept*: an abandoned child would hold the caller's pipes open."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def leave(child: int) -> None:
    """Kill *child* without waiting: it exits when the kernel lets it."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 0.1
    with suppress(ChildProcessError):  # SIGCHLD is ignored, so there is nothing to wait for
        while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.001)
