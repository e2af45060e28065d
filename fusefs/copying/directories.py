"""Directories of the host, opened one below the other without following a symbolic link."""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

_MOST_OPEN = 64
"""Directories on one path that are open at a time: a path of an image may be deeper than a process may have files."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class _Level(NamedTuple):
    """A directory on the way."""

    descriptor: int
    """-1: closed, to be opened again from below."""
    identity: tuple[int, int]


class Way:
    """The way from a directory to the one that is worked in."""

    def __init__(self, top: int) -> None:
        """Begin in the open directory *top*, which stays open."""
        self._levels = [_Level(top, _identity(top))]

    @property
    def here(self) -> int:
        """The descriptor of the directory."""
        return self._levels[-1].descriptor

    def enter(self, name: bytes, *, own: bool = False) -> None:
        """Go into the directory *name*; *own*: change its mode if it cannot be opened otherwise."""
        descriptor = _open_own(name, self.here) if own else os.open(name, _DIRECTORY, dir_fd=self.here)
        self._levels.append(_Level(descriptor, _identity(descriptor)))
        far = len(self._levels) - 1 - _MOST_OPEN
        if far > 0:
            os.close(self._levels[far].descriptor)
            self._levels[far] = self._levels[far]._replace(descriptor=-1)

    def leave(self, finish: Callable[[int], None] = lambda descriptor: None) -> None:  # noqa: ARG005
        """Call *finish* with the descriptor of the directory, and go back to the one above."""
        left, above = self._levels.pop(), self._levels[-1]
        try:
            if above.descriptor < 0:  # before `finish`, which may close the directory to this user
                descriptor = os.open("..", _DIRECTORY, dir_fd=left.descriptor)
                self._levels[-1] = above._replace(descriptor=descriptor)
                if _identity(descriptor) != above.identity:
                    raise OSError(errno.ESTALE, "the directory was moved meanwhile")
            finish(left.descriptor)
        finally:
            os.close(left.descriptor)

    def close(self) -> None:
        """Close all directories but the first."""
        for level in self._levels[1:]:
            if level.descriptor >= 0:
                os.close(level.descriptor)
        del self._levels[1:]


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _open_own(name: bytes, parent: int) -> int:
    """Open a directory of this user, and change its mode so that it can be used."""
    place = os.open(name, _PLACE | os.O_DIRECTORY, dir_fd=parent)
    try:
        if stat.S_IMODE(os.fstat(place).st_mode) & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{place}", 0o700)
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(place)


def open_place(name: bytes, parent: int) -> int:
    """Return a descriptor of the file *name* itself, whatever it is, that only serves to name it (``O_PATH``)."""
    return os.open(name, _PLACE, dir_fd=parent)


def open_below(top: int, names: Sequence[bytes]) -> int:
    """Return a descriptor of the directory that *names* lead to from *top*, to name files in it (``O_PATH``)."""
    here = os.open(".", _PLACE | os.O_DIRECTORY, dir_fd=top)
    for name in names:
        try:
            below = os.open(name, _PLACE | os.O_DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def remove(name: bytes, parent: int) -> None:
    """Remove the file or directory *name* of this user with everything in it; OSError if something stays."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    way = Way(parent)
    try:
        way.enter(name, own=True)
        waiting = [(name, _unlink_files(way.here))]
        """The directories on the way, each with those in it."""
        while waiting:
            here, below = waiting[-1]
            if below:
                inner = below.pop()
                way.enter(inner, own=True)
                waiting.append((inner, _unlink_files(way.here)))
            else:
                waiting.pop()
                way.leave()
                os.rmdir(here, dir_fd=way.here)
    finally:
        way.close()


def _unlink_files(directory: int) -> list[bytes]:
    """Remove what is no directory, and return the names of the directories."""
    directories = []
    for name in map(os.fsencode, os.listdir(directory)):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            directories.append(name)
        else:
            os.unlink(name, dir_fd=directory)
    return directories
