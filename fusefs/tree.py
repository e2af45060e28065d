"""Files and directories, without a word of FUSE."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fusefs.content import Content
from fusefs.errors import ImgfsError, NoSpace


@dataclass(frozen=True, slots=True)
class Attributes:
    """What `stat` says of a node besides its type and size."""

    permissions: int
    """The low 12 bits of st_mode."""
    uid: int
    gid: int
    mtime_ns: int
    """Nanoseconds since 1970; atime and ctime are the same."""


@dataclass(frozen=True, slots=True)
class RegularFile:
    """A file with bytes."""

    attributes: Attributes
    content: Content


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link."""

    attributes: Attributes
    target: bytes


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory whose entries are all known: never waits."""

    attributes: Attributes
    entries: "Mapping[bytes, Node]"
    unlisted: "Mapping[bytes, Node]" = field(default_factory=dict)
    """Entries that can be looked up and are not listed."""


class LazyDirectory:
    """A directory whose entries are made at the first look into it.

    `fill` may be called by any number of threads: the first one works while the others wait for
    `_lock`, which guards `_entries` and `_failed`.
    """

    def __init__(self, attributes: Attributes, make: "Callable[[], Mapping[bytes, Node]]") -> None:
        """Make the entries with *make*, at most once if that succeeds."""
        self.attributes = attributes
        self._make = make
        self._entries: Mapping[bytes, Node] | None = None
        self._failed: ImgfsError | None = None
        self._lock = threading.Lock()

    def fill(self) -> "Mapping[bytes, Node]":
        """Return the entries; waits, and raises what making them raises.

        What is wrong with the image stays wrong and is raised again; for want of space, or after
        an error of the system, the next look tries anew.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed.with_traceback(None)  # else it grows with every look
            if self._entries is None:
                try:
                    self._entries = self._make()
                except NoSpace:
                    raise
                except ImgfsError as error:
                    self._failed = error
                    raise
            return self._entries


Node = Directory | LazyDirectory | RegularFile | Symlink
