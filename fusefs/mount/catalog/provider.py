"""What lists and opens the images of a catalog: an engine, a folder or a registry, as the command line ties them in."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import NamedTuple, Protocol

from fusefs.image.opened import Opened

Path = tuple[bytes, ...]
"""Names of directories from the mountpoint down, ``()`` for the mountpoint itself."""

FRESH = 2.0
"""Seconds for which an answer about names is used at least."""


class Listed(NamedTuple):
    """An image directory."""

    path: Path
    key: str
    """The same for directories of the same image, and another one as soon as the image is another one."""
    name: str
    """The image's name for users: ``nginx:1.27``."""
    created_ns: int = 0
    """The time of the directory until the image is opened, nanoseconds since 1970."""


class Folder(NamedTuple):
    """A directory above image directories."""


class Link(NamedTuple):
    """A symbolic link."""

    target: bytes


Found = Listed | Folder | Link


class Names(Protocol):
    """The directories above the images, as far as they are known.  Safe under concurrency; nothing here waits."""

    def listed(self, folder: Path) -> Mapping[bytes, Listed | Folder]:
        """Return the names that are listed in *folder*, none if it is gone; an ImgfsError if nothing can tell."""

    def is_listed(self, folder: Path, name: bytes) -> bool:
        """Return whether *name* is one of those."""

    def find(self, folder: Path, name: bytes) -> Found | None:
        """Return what *name* is in *folder*, listed or not, None for nothing; an ImgfsError if nothing can tell."""

    def error(self, folder: Path) -> str:
        """Return why names in *folder* may be out of date or missing, empty if they are not."""


class Question(NamedTuple):
    """Something that has to be asked before names are right."""

    key: Hashable
    """Equal for questions with the same answer."""
    ask: Callable[[], None]
    """Asks, and changes what is known; in a thread.  Raises no ImgfsError."""
    keep: Callable[[float], None]
    """Use what is known for so many seconds, since there is no answer."""


class Provider(Protocol):
    """Lists and opens images.  Safe under concurrency."""

    questions_at_once: int
    """How many questions may be asked at the same time."""

    @property
    def names(self) -> Names:
        """What is known now."""

    @property
    def place(self) -> str:
        """What it is, for users: the address of an engine or a registry, the path of a folder."""

    @property
    def fresh_for(self) -> float:
        """The seconds for which the kernel may use a name without asking."""

    def question(self, folder: Path, name: bytes | None) -> Question | None:
        """Return what has to be asked before *name* in *folder*, or None for all of its names, is known; else None."""

    def changes(self) -> Iterable[Path] | None:
        """Return the folders whose names may have changed since the last call; None for all."""

    def open(self, listed: Listed) -> Opened:
        """Return an image, complete and checked, and saved before if that is necessary; an ImgfsError otherwise."""

    def close(self, opened: Opened) -> None:
        """Close an image as soon as nobody reads from it any more."""

    def left(self, key: str) -> None:
        """Note that the kernel knows no directory of the image *key* any more."""
