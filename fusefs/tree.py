"""Files and directories, without a word of FUSE."""

from collections.abc import Mapping
from dataclasses import dataclass

from fusefs.content import Content


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
class Directory:
    """A directory whose entries are all known: never waits."""

    attributes: Attributes
    entries: "Mapping[bytes, Node]"


Node = Directory | RegularFile
