"""A first request to a new mount: only a mount that answers one is reported as mounted.

A child process makes it: a thread that waits for its own process would keep a killed process from ending (see
`abandonable`).  The child exists before the mount, so it does not hold the connection to the kernel open.
"""

import json
import os
import socket
from contextlib import suppress

import trio

from fusefs.errors import MountError
from fusefs.mount.abandonable import ChildReport, Say, leave, start
from fusefs.mount.mountinfo import Mount, lies_in
from fusefs.text import printable

_PATIENCE = 30.0
"""Seconds to wait for the answer; the files that are read are in memory."""
_FILE = "manifest.json"
"""A file in every mount of an image."""
_MAX_MESSAGE = 1 << 16


class Trial:
    """The child process, which waits for a mount to try."""

    def __init__(self) -> None:
        """Start the child.  Call it only while one thread runs and no mount is served."""
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._child: int | None = start(lambda say: _try_mount(theirs, say), theirs)

    async def run(self, mount: Mount, *, listed: bool) -> None:
        """Make a request to *mount*; MountError if that fails.

        *listed*: list its root and read a file in it, which a lazy directory would be filled for.
        """
        self._connection.send(json.dumps([mount, listed]).encode())
        answer = b""
        with trio.move_on_after(_PATIENCE):
            await trio.lowlevel.wait_readable(self._connection)
            answer = self._connection.recv(_MAX_MESSAGE)
        reason = json.loads(answer)[1] if answer else "it does not answer"
        if reason:
            raise MountError(f"cannot mount on {printable(mount.mountpoint)}: the first request failed: {reason}")
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            leave(self._child)
            self._connection.close()
            self._child = None


def _try_mount(connection: socket.socket, say: Say) -> None:
    message = connection.recv(_MAX_MESSAGE)
    if message:  # none comes if the parent has ended
        try:
            mount, listed = json.loads(message)
            _read(Mount(*mount), listed=listed)
        except PermissionError:  # an answer: the options may deny the user everything
            say(ChildReport(""))
        except OSError as error:
            say(ChildReport(error.strerror))
        else:
            say(ChildReport(""))


def _read(mount: Mount, *, listed: bool) -> None:
    """Ask the mount itself: the path may lead elsewhere by now.

    Each file is closed here: the server answers that, too, and waits for this process once it has heard from it.
    """
    root = os.open(mount.mountpoint, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if lies_in(root, mount) and not listed:
            os.statvfs(f"/proc/self/fd/{root}")  # which no cache answers
        elif lies_in(root, mount):
            os.listdir(f"/proc/self/fd/{root}")
            with suppress(FileNotFoundError):  # another view than that of an image
                file = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
                try:
                    os.read(file, 1)
                finally:
                    os.close(file)
    finally:
        os.close(root)
