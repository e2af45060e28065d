"""What a mount says of itself in the extended attributes of its root: all that `imgfs list` knows.

So there is no registry that a killed process could leave behind.
"""

import datetime as dt
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import unquote_to_bytes

from fusefs.mount.mountinfo import Mount
from fusefs.tree.node import Xattrs

_OURS = "user.imgfs."
_NAMES = (
    *("user.oci.id", "user.oci.platform"),
    *(_OURS + name for name in ("image", "source", "pid", "since", "bytes_read")),
)
_ANSWER_TIMEOUT = 2.0
"""Seconds after which a mount that does not answer counts as stuck."""


class BytesRead:
    """How many bytes of files the kernel has asked for.  Counted by one thread, and read by the same."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


def mount_xattrs(image: str, source: str, bytes_read: BytesRead) -> Xattrs:
    """Return the attributes of a mount that begins now.

    *image* is the IMAGE argument, *source* the engine or file that it comes from.
    """
    since = dt.datetime.now(dt.UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    said: dict[str, bytes | Callable[[], bytes]] = {
        "image": os.fsencode(image),
        "source": os.fsencode(source),
        # Asked each time: the process that serves is a child of the one that opens the image.
        "pid": lambda: str(os.getpid()).encode(),
        "since": f"{since}Z".encode(),
        "bytes_read": lambda: str(bytes_read.total).encode(),
    }
    return tuple((f"{_OURS}{name}".encode(), value) for name, value in said.items())


class State(Enum):
    """Whether a mount answers."""

    MOUNTED = "mounted"
    STALE = "stale"
    """Its process is gone."""
    DENIED = "denied"
    """It is another user's, who lets nobody in."""
    STUCK = "stuck"
    """Its process does not answer."""
    COVERED = "covered"
    """Something else is mounted over it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A mount and what it says of itself."""

    mount: Mount
    state: State
    said: Mapping[str, str] = field(default_factory=dict)
    """Extended attributes by the last part of their names: ``id``, ``pid``."""

    @property
    def image(self) -> str:
        """The IMAGE argument; the kernel's table knows it even of a dead mount."""
        return self.said.get("image") or os.fsdecode(unquote_to_bytes(os.fsencode(self.mount.source)))

    def number(self, name: str) -> int | None:
        """Return an attribute that is a number, None if it is none."""
        text = self.said.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def ask(mounts: Iterable[Mount]) -> list[Listed]:
    """Ask each of *mounts* what it is, all at the same time, and wait for none that is stuck."""
    asked = [_Question(mount) for mount in mounts]
    deadline = time.monotonic() + _ANSWER_TIMEOUT
    return [question.answer(deadline) for question in asked]


class _Question:
    """A mount that is being asked, by a thread of its own: a request that is never answered holds it for ever."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._answers: list[Listed] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def answer(self, deadline: float) -> Listed:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return self._answers[0] if self._answers else Listed(self._mount, State.STUCK)

    def _ask(self) -> None:
        try:
            self._answers.append(_asked(self._mount))
        except OSError as error:
            self._answers.append(Listed(self._mount, _STATES.get(error.errno or 0, State.COVERED)))


_STATES = {
    errno.ENOTCONN: State.STALE,
    errno.ECONNABORTED: State.STALE,
    errno.EACCES: State.DENIED,
    errno.EPERM: State.DENIED,
}


def _asked(mount: Mount) -> Listed:
    said = {}
    for name in _NAMES:
        try:
            said[name.rpartition(".")[2]] = os.fsdecode(os.getxattr(mount.mountpoint, name))
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
    # After the questions: the attributes of a dead mount's root may still be in the kernel's cache.
    if os.minor(os.stat(mount.mountpoint).st_dev) != mount.connection:
        return Listed(mount, State.COVERED)
    return Listed(mount, State.MOUNTED, said)
