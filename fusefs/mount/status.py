"""The status of mounts, which each mount reports in extended attributes of its root.

`imgfs list` reads these, so there is no registry that a killed process could leave behind.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fusefs.mount.abandonable import ChildReport, Say, answers
from fusefs.mount.mountinfo import FILE_SYSTEM, Mount, identified, lies_in, mounts

if TYPE_CHECKING:  # `imgfs list` needs no images
    from fusefs.image.model import Traffic
    from fusefs.tree.node import Xattrs

_PREFIX = "user.imgfs."
_PATH, _WORD = 4096, 256
"""Bytes of an attribute that are read, as many as a path has or few: any process may claim to be imgfs."""
_NAMES = dict.fromkeys(("user.oci.id", "user.oci.platform"), _WORD)
_NAMES |= dict.fromkeys((_PREFIX + name for name in ("image", "subdir", "source")), _PATH)
_NAMES[_PREFIX + "in_use"] = 4 * _PATH
_NAMES |= dict.fromkeys((_PREFIX + name for name in ("pid", "since", "bytes_read")), _WORD)
_ANSWER_TIMEOUT = 2.0
"""Seconds after which a mount without an answer counts as stuck."""


class BytesRead:
    """The number of bytes of files that the kernel has read.  Used by the event loop's thread alone."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


def image_xattrs(image: str, source: str, subdir: str = "") -> "Xattrs":
    """Return the extended attributes of every mount of an image.

    *image* is the IMAGE argument, *source* the engine's address or the file's path, *subdir* the directory of the view
    that is the root of the mount, empty for the whole view.
    """
    values = {"image": image, "source": source} | ({"subdir": subdir} if subdir else {})
    return tuple((f"{_PREFIX}{name}".encode(), os.fsencode(value)) for name, value in values.items())


def traffic_xattrs(traffic: "Traffic") -> "Xattrs":
    """Return the extended attributes of the mount of an image whose bytes are on another machine."""
    values: dict[str, Callable[[], int]] = {
        "bytes_fetched": lambda: traffic.bytes_fetched,
        "requests": lambda: traffic.requests,
        "errors": lambda: traffic.errors,
    }
    return tuple(
        (f"{_PREFIX}{name}".encode(), lambda value=value: str(value()).encode()) for name, value in values.items()
    )


def process_xattrs(bytes_read: BytesRead) -> "Xattrs":
    """Return the extended attributes of a mount that starts now and that this process or a child of it serves."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    values: dict[str, bytes | Callable[[], bytes]] = {
        # A function: the process that serves is a child of the process that opens the image.
        "pid": lambda: str(os.getpid()).encode(),
        "since": since.encode(),
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


class MountStatus(NamedTuple):
    """A mount, its state, and the attributes that it reports."""

    mount: Mount
    state: State
    attributes: Mapping[str, str] = MappingProxyType({})
    """Extended attributes by the last part of their names: ``id``, ``pid``; empty unless the mount answers."""

    @property
    def is_image(self) -> bool:
        """Whether it is a mount of an image: FUSE mounts are by their type, others if their root says so."""
        return self.mount.file_system == FILE_SYSTEM or bool(self.attributes.get("image"))

    @property
    def driver(self) -> str:
        """What answers for it: ``fuse``, or the kernel's ``erofs``."""
        return "fuse" if self.mount.is_fuse else self.mount.file_system

    @property
    def image(self) -> str:
        """The IMAGE argument; the kernel's table of mounts has it even for a dead mount."""
        from urllib.parse import unquote_to_bytes  # noqa: PLC0415 - a mount does not need it, and it takes 3 ms

        return self.attributes.get("image") or os.fsdecode(unquote_to_bytes(os.fsencode(self.mount.source)))

    def number(self, name: str) -> int | None:
        """Return an attribute as a number, None if it is missing or not a number."""
        text = self.attributes.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def image_mounts(seconds: float = _ANSWER_TIMEOUT) -> list[Mount]:
    """Return the mounts of images, the earliest first.  Asks only those whose type does not tell."""
    candidates = identified(mount for mount in mounts() if mount.may_be_image)
    asked = query_status((mount for mount in candidates if mount.file_system != FILE_SYSTEM), seconds)
    images = {status.mount.id for status in asked if status.is_image}
    return [mount for mount in candidates if mount.file_system == FILE_SYSTEM or mount.id in images]


def may_be_image_root(root: int) -> bool:
    """Return whether the root of a kernel mount, an open file, is that of an image, or hides that from this user."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{root}", f"{_PREFIX}image"))
    except OSError as error:
        return error.errno == errno.EACCES


def query_status(asked: Iterable[Mount], seconds: float = _ANSWER_TIMEOUT) -> list[MountStatus]:
    """Return the status of the mounts *asked*, queried in parallel, within *seconds* even if some are stuck.

    A child process queries them: a mount that never answers would keep this process from ending.  Those for which it
    may start no thread have a child and *seconds* of their own, one after the other.
    """
    queried = list(asked)
    statuses = {number: MountStatus(mount, State.STUCK) for number, mount in enumerate(queried)}
    deadline = time.monotonic() + seconds
    rest = []
    for answer in answers(lambda say: _query_all(queried, say, deadline), seconds) if queried else ():
        number, state, attributes = answer.value
        if state is None:
            rest.append(number)
        else:
            statuses[number] = MountStatus(queried[number], State(state), attributes)
    for number in rest:
        (statuses[number],) = query_status([queried[number]], seconds)
    return list(statuses.values())


def _query_all(queried: Sequence[Mount], say: Say, deadline: float) -> None:
    """Ask each mount in a thread of its own, or say that there is none: silence has to mean that a mount is stuck."""
    telling = threading.Lock()

    def query(number: int, mount: Mount) -> None:
        state, attributes = state_of(mount)
        with telling:
            say(ChildReport((number, state.value, attributes)))

    if len(queried) == 1:
        query(0, queried[0])
        return
    threads = []
    for number, mount in enumerate(queried):
        thread = threading.Thread(target=query, args=(number, mount), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # as many as this user may have
            with telling:
                say(ChildReport((number, None, {})))
        else:
            threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


_STATES = {
    errno.ENOTCONN: State.STALE,
    errno.ECONNABORTED: State.STALE,
    errno.EACCES: State.DENIED,
    errno.EPERM: State.DENIED,
}


def state_of(mount: Mount) -> tuple[State, dict[str, str]]:
    """Ask one mount about itself: whether it answers, and its attributes.  Waits as long as that takes."""
    try:
        return _query(mount)
    except OSError as error:
        return _STATES.get(error.errno or 0, State.COVERED), {}


def _query(mount: Mount) -> tuple[State, dict[str, str]]:
    """Ask the mount itself, not the path, which may lead elsewhere by now."""
    root = os.open(mount.mountpoint, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not lies_in(root, mount):
            return State.COVERED, {}
        os.statvfs(f"/proc/self/fd/{root}")  # which no cache answers
        attributes = {}
        for name, limit in _NAMES.items():
            try:
                value = os.getxattr(f"/proc/self/fd/{root}", name)
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                    raise
            else:
                attributes[name.rpartition(".")[2]] = os.fsdecode(value[:limit])
        return State.MOUNTED, attributes
    finally:
        os.close(root)
