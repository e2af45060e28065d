"""The images of one provider: their names, and what is open."""

import time
from collections.abc import Iterator

from fusefs.mount.catalog.directory import ImageDirectory
from fusefs.mount.catalog.images import Images
from fusefs.mount.catalog.provider import Listed, Provider
from fusefs.mount.catalog.tree import CatalogTree
from fusefs.mount.view import ViewOptions
from fusefs.tree.node import Attributes

_MAX_IN_USE = 16_000
"""Bytes of the attribute that names the directories in use; `imgfs list` reads no more."""


class Catalog:
    """The images of a provider as directories.  Used by the event loop's thread alone."""

    def __init__(self, provider: Provider, options: ViewOptions, idle: float) -> None:
        """*idle*: seconds after which an image that nobody uses is let go."""
        self.provider = provider
        self._options = options._replace(xattrs=())
        self._images = Images(provider)
        self.idle = idle
        self._directories: dict[int, ImageDirectory] = {}
        """The image directories that somebody has looked into and the kernel has not forgotten."""
        xattrs = (*options.xattrs, (b"user.imgfs.in_use", self._in_use))
        attributes = Attributes(0o555, options.uid, options.gid, time.time_ns())
        self.tree = CatalogTree(attributes, xattrs, self._image_directory, provider)

    def _in_use(self) -> bytes:
        """Return the paths of directories whose image is open, each with a zero byte behind it."""
        value = bytearray()
        for path in sorted(b"/".join(one.listed.path) for one in self._directories.values() if one.image.is_open):
            if len(value) + len(path) >= _MAX_IN_USE:
                break
            value += path + b"\0"
        return bytes(value)

    def _image_directory(self, listed: Listed) -> ImageDirectory:
        return ImageDirectory(listed, self._images, self._options)

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
