"""The status of mounts, which each mount reports in extended attributes of its root.

`imgfs list` reads these, so there is no registry that a killed process could leave behind.
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

_PREFIX = "user.imgfs."
_NAMES = (
    *("user.oci.id", "user.oci.platform"),
    *(_PREFIX + name for name in ("image", "source", "pid", "since", "bytes_read")),
)
_ANSWER_TIMEOUT = 2.0
"""Seconds after which a mount without an answer counts as stuck."""


class BytesRead:
    """The number of bytes of files that the kernel has read.  Used by the event loop's thread alone."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


def mount_xattrs(image: str, source: str, bytes_read: BytesRead) -> Xattrs:
    """Return the extended attributes of a mount that starts now.

    *image* is the IMAGE argument, *source* the engine's address or the file's path.
    """
    since = dt.datetime.now(dt.UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    values: dict[str, bytes | Callable[[], bytes]] = {
        "image": os.fsencode(image),
        "source": os.fsencode(source),
        # A function: the process that serves is a child of the process that opens the image.
        "pid": lambda: str(os.getpid()).encode(),
        "since": f"{since}Z".encode(),
        "bytes_read": lambda: str(bytes_read.total).encode(),
    }
    return tuple((f"{_PREFIX}{name}".encode(), value) for name, value in values.items())


class State(Enum):
    """Whether a mount answers."""

    MOUNTED = "mounted"
    STALE = "stale"
    """Its process has ended."""
    DENIED = "denied"
    """It belongs to another user and has no ``allow_other``."""
    STUCK = "stuck"
    """Its process does not answer."""
    COVERED = "covered"
    """Another mount covers it."""


@dataclass(frozen=True, slots=True)
class MountStatus:
    """A mount, its state, and the attributes that it reports."""

    mount: Mount
    state: State
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Extended attributes by the last part of their names: ``id``, ``pid``; empty unless the mount answers."""

    @property
    def image(self) -> str:
        """The IMAGE argument; the kernel's table of mounts has it even for a dead mount."""
        return self.attributes.get("image") or os.fsdecode(unquote_to_bytes(os.fsencode(self.mount.source)))

    def number(self, name: str) -> int | None:
        """Return an attribute as a number, None if it is missing or not a number."""
        text = self.attributes.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def query_status(mounts: Iterable[Mount]) -> list[MountStatus]:
    """Return the status of *mounts*, queried in parallel, within two seconds even if some are stuck."""
    queries = [_Query(mount) for mount in mounts]
    deadline = time.monotonic() + _ANSWER_TIMEOUT
    return [query.result(deadline) for query in queries]


class _Query:
    """A query of one mount in a daemon thread of its own: a stuck mount blocks the thread for ever."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._answers: list[MountStatus] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self, deadline: float) -> MountStatus:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return self._answers[0] if self._answers else MountStatus(self._mount, State.STUCK)

    def _run(self) -> None:
        try:
            self._answers.append(_query(self._mount))
        except OSError as error:
            self._answers.append(MountStatus(self._mount, _STATES.get(error.errno or 0, State.COVERED)))


_STATES = {
    errno.ENOTCONN: State.STALE,
    errno.ECONNABORTED: State.STALE,
    errno.EACCES: State.DENIED,
    errno.EPERM: State.DENIED,
}


def _query(mount: Mount) -> MountStatus:
    attributes = {}
    for name in _NAMES:
        try:
            attributes[name.rpartition(".")[2]] = os.fsdecode(os.getxattr(mount.mountpoint, name))
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
    # After the attributes: the kernel may answer stat(2) for a dead mount's root from its cache.
    if os.minor(os.stat(mount.mountpoint).st_dev) != mount.connection:
        return MountStatus(mount, State.COVERED)
    return MountStatus(mount, State.MOUNTED, attributes)
