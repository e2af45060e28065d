"""The archives and image layouts in a folder as directories, by their file names."""

import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase

from fusefs.cli.catalogs.saves import Saves, close, close_when_unused
from fusefs.errors import Unavailable
from fusefs.image.opened import Opened
from fusefs.mount.catalog.provider import Listed, Path
from fusefs.sources.archive.file import file_image
from fusefs.sources.argument import ARCHIVE_ENDINGS, FileImage
from fusefs.sources.settings import Settings, absolute
from fusefs.text import printable

_DOCUMENTS = ("index.json", "manifest.json")
"""Files that an image layout, or an unpacked Docker archive, has."""
_MAX_NAME = 255
_MAX_PATH = 1024
"""Characters of a name in a file of several; a longer one makes no directories beyond."""


class FolderProvider:
    """The images in a folder.  Safe under concurrency: of `_several` only whole values are set.

    Whether a file holds several images is known when it is opened for the first time.  From then on it is a directory
    of directories.
    """

    def __init__(self, path: str, settings: Settings, pattern: str | None, saves: Saves) -> None:
        """Take files and layouts with a name like *pattern*, a glob; None: all."""
        self.place = absolute(path)
        self._settings = settings
        self._pattern = pattern
        self._saves = saves
        self._several: dict[str, tuple[str | int, ...]] = {}
        """The images in a file, by its key."""
        self._places: dict[str, tuple[str, str | int | None]] = {}
        """Path and choice by key, of the last listing."""

    def listing(self) -> "FolderListing":
        """Return what is in the folder now; an OSError as Unavailable."""
        try:
            found = [(name, key) for name in os.listdir(self.place) for key in self._key(name)]
        except OSError as error:
            raise Unavailable(f"cannot list {printable(self.place)}: {error.strerror}") from None
        keys = {key for _, key in found}
        self._several = {key: choices for key, choices in self._several.items() if key in keys}
        images, places = [], {}
        for name, key in found:
            path = (os.fsencode(name),)
            created_ns = int(key.rpartition(" ")[2])
            choices: tuple[str | int | None, ...] = self._several.get(key, (None,))
            for choice in choices:
                shown, below = f"{key} {choice}", () if choice is None else _path(choice)
                places[shown] = os.path.join(self.place, name), choice
                images.append(Listed((*path, *below), shown, name, created_ns))
        self._places = places
        return FolderListing(images)

    def _key(self, name: str) -> Iterator[str]:
        """Yield what changes with each write to the image *name*; nothing for another file."""
        if name.startswith(".") or (self._pattern is not None and not fnmatchcase(name, self._pattern)):
            return
        path = os.path.join(self.place, name)
        for place in (path, *(os.path.join(path, document) for document in _DOCUMENTS)):
            try:
                about = os.stat(place)
            except OSError:
                continue
            if not stat.S_ISREG(about.st_mode) or (place == path and not name.lower().endswith(ARCHIVE_ENDINGS)):
                continue
            numbers = about.st_dev, about.st_ino, about.st_size, about.st_ctime_ns, about.st_mtime_ns
            yield f"{name}/{' '.join(map(str, numbers))}"
            return

    def close(self, opened: Opened) -> None:
        """Close an image as soon as nobody reads from it any more."""
        close_when_unused(opened)

    def open(self, listed: Listed) -> Opened:
        """Return an image."""
        path, choice = self._places.get(listed.key, ("", None))
        if not path:
            raise Unavailable(f"{printable(listed.name)} is not there any more")
        with self._saves.opening() as progress:
            settings = self._settings._replace(progress=progress)
            try:
                image = file_image(FileImage(None, path, choice), path, settings)
            except Unavailable as error:
                if error.choices:
                    self._several = {**self._several, listed.key.removesuffix(" None"): error.choices}
                raise
            opened = Opened(image, settings.tmpdir, progress)
            # Inode numbers and attributes of the image that was listed are in use: another one must not take its place.
            if not any(listed.key == f"{key} {choice}" for key in self._key(os.path.basename(path))):
                close(opened)
                raise Unavailable(f"{printable(listed.name)} was replaced or written to")
            return opened


class FolderListing:
    """What is in a folder at one moment."""

    def __init__(self, images: list[Listed]) -> None:
        self.images = images
        self._names = {listed.path for listed in images}

    def link(self, folder: Path, name: bytes) -> bytes | None:
        """Return the directory of an image in a file of several, if *name* is its reference: ``nginx:1.27``."""
        spelled = name.replace(b":", b"@")
        return spelled if folder and (*folder, spelled) in self._names else None


def _path(choice: str | int) -> Path:
    """Return names for an image in a file of several."""
    if isinstance(choice, int):
        return (b"@%d" % choice,)
    parts = choice[:_MAX_PATH].replace(":", "@").replace("\0", "_").split("/")
    return tuple(os.fsencode(part)[:_MAX_NAME] if part not in ("", ".", "..") else b"_" for part in parts)
