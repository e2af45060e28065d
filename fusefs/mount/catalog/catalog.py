"""The images of one provider: what is listed now, what is open, and until when a listing counts."""

import time
from collections.abc import Iterator

from fusefs.errors import ImgfsError
from fusefs.log import logger
from fusefs.mount.catalog.directory import ImageDirectory
from fusefs.mount.catalog.images import Images
from fusefs.mount.catalog.provider import Listed, Listing, Provider
from fusefs.mount.catalog.tree import CatalogTree
from fusefs.mount.view import ViewOptions
from fusefs.tree.node import Attributes

log = logger(__name__)

FRESH = 2.0
"""Seconds for which a listing is used."""
_MAX_IN_USE = 8000
"""Bytes of the attribute that names the directories in use."""


class Catalog:
    """The images of a provider as directories.

    Used by the event loop's thread alone, but for `new_listing`, which sets `_last` and `_failure` whole.
    """

    def __init__(self, provider: Provider, listing: Listing, options: ViewOptions, idle: float) -> None:
        """Begin with *listing*.  *idle*: seconds after which an image that nobody uses is let go."""
        self._provider = provider
        self._options = options._replace(xattrs=())
        self._images = Images(provider)
        self.idle = idle
        self._directories: dict[int, ImageDirectory] = {}
        """The image directories that somebody has looked into and the kernel has not forgotten."""
        xattrs = (*options.xattrs, (b"user.imgfs.in_use", self._in_use))
        attributes = Attributes(0o555, options.uid, options.gid, time.time_ns())
        self.tree = CatalogTree(attributes, xattrs, self._image_directory)
        self._stale_at = 0.0
        self._last = listing
        """The last one that the provider gave, even if nobody waited for it any more."""
        self._failure = ""
        """Why it did not give one the last time."""
        self.update(listing)

    def _in_use(self) -> bytes:
        paths = sorted(b"/".join(one.listed.path) for one in self._directories.values() if one.image.is_open)
        return b"\n".join(paths)[:_MAX_IN_USE]

    def _image_directory(self, listed: Listed) -> ImageDirectory:
        return ImageDirectory(listed, self._images, self._options)

    @property
    def fresh_for(self) -> float:
        """The seconds for which names of the last listing are still valid."""
        return max(0.0, self._stale_at - time.monotonic())

    def new_listing(self) -> Listing | None:
        """Return what is there now, None if the provider cannot tell; for any thread."""
        try:
            listing = self._last = self._provider.listing()
        except (ImgfsError, OSError) as error:
            if str(error) != self._failure:  # an engine that is gone for hours is asked every 2 s
                log.warning("cannot list the images: %s", error)
            self._failure = str(error)
            return None
        self._failure = ""
        return listing

    def update(self, listing: Listing | None) -> list[tuple[int, bytes]]:
        """Use a new listing, or the last one again; return parent and name of all names that are gone."""
        self._stale_at = time.monotonic() + FRESH
        return [] if listing is None else self.tree.update(listing)

    def keep(self, seconds: float) -> list[tuple[int, bytes]]:
        """Use the last listing for so many seconds more; return what `update` does."""
        gone = self.update(self._last)
        self._stale_at = time.monotonic() + seconds
        return gone

    def entered(self, directory: ImageDirectory) -> None:
        """Note that somebody has looked into a directory; again has no effect."""
        if id(directory) not in self._directories:
            self._directories[id(directory)] = directory
            directory.enter()

    def left(self, directory: ImageDirectory) -> None:
        """Let go of a directory that the kernel has forgotten."""
        del self._directories[id(directory)]
        directory.leave()

    def unused(self, now: float) -> Iterator[ImageDirectory]:
        """Yield the directories of open images that nobody has used for long, by any of their directories."""
        used = {one.listed.key for one in self._directories.values() if one.busy or now < one.used + self.idle}
        for directory in self._directories.values():
            if directory.is_held and directory.listed.key not in used:
                yield directory
