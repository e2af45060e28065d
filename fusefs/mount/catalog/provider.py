"""What lists and opens the images of a catalog: an engine, a folder or a registry, as the command line ties them in."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fusefs.image.opened import Opened

Path = tuple[bytes, ...]
"""Names of directories from the mountpoint down, ``()`` for the mountpoint itself."""


class Listed(NamedTuple):
    """An image directory."""

    path: Path
    key: str
    """The same for directories of the same image, and another one as soon as the image is another one."""
    name: str
    """The image's name for users: ``nginx:1.27``."""
    created_ns: int = 0
    """The time of the directory until the image is opened, nanoseconds since 1970."""


class Listing(Protocol):
    """The images at one moment.  Immutable."""

    @property
    def images(self) -> Sequence[Listed]:
        """The directories that are listed."""

    def link(self, folder: Path, name: bytes) -> bytes | None:
        """Return the target of the unlisted symbolic link *name* in *folder*, None if there is no such link."""


class Provider(Protocol):
    """Lists and opens images.  Safe under concurrency."""

    def listing(self) -> Listing:
        """Return the images that are there now; an ImgfsError if nothing can tell.  Opens none."""

    def open(self, listed: Listed) -> Opened:
        """Return an image, complete and checked, and saved before if that is necessary; an ImgfsError otherwise."""

    def close(self, opened: Opened) -> None:
        """Close an image as soon as nobody reads from it any more."""
