"""The images of an engine as directories: ``nginx@1.27``, ``ghcr.io/team/app@v1``, ``by-id/<12 hex>``."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from fusefs.cli.catalogs.saves import Saves, close_when_unused
from fusefs.image.opened import Opened
from fusefs.mount.catalog.provider import Listed, Path
from fusefs.oci.reference import tagged
from fusefs.oci.transport import DOCKER_DAEMON
from fusefs.sources import open_image
from fusefs.sources.engine.endpoint import find_endpoint
from fusefs.sources.engine.listing import ListedImage, list_images
from fusefs.sources.settings import Settings

_BY_ID = b"by-id"
_SHORT = 12
"""Characters of an image ID that are shown, as in docker."""
_LEAST = 4
"""Characters of an ID's beginning that are looked for."""
_HEX = re.compile(rb"[0-9a-f]{%d,64}" % _LEAST)


class EngineProvider:
    """The images of an engine.  Safe under concurrency: nothing changes."""

    def __init__(self, settings: Settings, pattern: str | None, saves: Saves) -> None:
        """Take the images with a name like *pattern*, a glob; None: all."""
        self._settings = settings
        self._pattern = pattern
        self._saves = saves
        self._endpoint = find_endpoint(settings.host, settings.context, settings.environment)

    @property
    def place(self) -> str:
        """The address of the engine."""
        return self._endpoint.host

    def listing(self) -> "EngineListing":
        """Return the images that the engine has now."""
        return EngineListing(list_images(self._endpoint, self._settings.timeout), self._pattern)

    def close(self, opened: Opened) -> None:
        """Close an image as soon as nobody reads from it any more."""
        close_when_unused(opened)

    def open(self, listed: Listed) -> Opened:
        """Return an image, from the cache or saved."""
        with self._saves.opening() as progress:
            settings = self._settings._replace(progress=progress)
            return Opened(open_image(f"{DOCKER_DAEMON.prefix}{listed.key}", settings), settings.tmpdir, progress)


class EngineListing:
    """The images of an engine at one moment."""

    def __init__(self, images: Sequence[ListedImage], pattern: str | None) -> None:
        """Arrange *images*, of those with names only the ones like *pattern*."""
        self.images: list[Listed] = []
        self._ids: dict[bytes, Path] = {}
        """Directories by full ID."""
        self._names: dict[str, Path] = {}
        """Directories by the full form of a reference."""
        self._folders: dict[Path, str] = {(): ""}
        """The beginning of the references in each directory."""
        for image in images:
            self._add(image, pattern)

    def _add(self, image: ListedImage, pattern: str | None) -> None:
        tags = [tag for tag in image.tags if _is_like(tag, pattern)]
        if pattern is not None and not tags:
            return
        key, encoded = str(image.image_id), image.image_id.encoded.encode()
        by_id = (_BY_ID, encoded[:_SHORT])
        name = next(iter((*tags, *image.tags)), key)
        self._ids[encoded] = by_id
        self.images.append(Listed(by_id, key, name, image.created_ns))
        for digest in image.repo_digests:
            self._names.setdefault(tagged(digest), by_id)
        for tag in tags:
            path = _path(tag)
            self._names[tagged(tag)] = path
            parts = tag.split("/")
            for depth in range(1, len(parts)):
                self._folders[path[:depth]] = "/".join(parts[:depth]) + "/"
            self.images.append(Listed(path, key, tag, image.created_ns))

    def link(self, folder: Path, name: bytes) -> bytes | None:
        """Return where the unlisted *name* leads: a reference as users write it, an ID or its beginning, a digest."""
        target = self._by_name(folder, name) or self._by_id(folder, name)
        return None if target is None else b"../" * len(folder) + b"/".join(target)

    def _by_name(self, folder: Path, name: bytes) -> Path | None:
        try:
            text = name.decode("ascii")
        except UnicodeDecodeError:
            return None
        registry = name.replace(b":", b"@")
        if (*folder, registry) in self._folders:  # localhost:5000
            return (*folder, registry)
        beginning = self._folders.get(folder)
        if beginning is None:
            return None
        spellings = [text]
        if "@" in text and ":" not in text:
            spellings.append(text.replace("@", ":"))  # as listed directories are spelled, without their registry
        for spelling in spellings:
            for reference in (f"{beginning}{spelling}", f"localhost/{beginning}{spelling}"):
                path = self._names.get(tagged(reference))
                if path is not None:
                    return path
        return None

    def _by_id(self, folder: Path, name: bytes) -> Path | None:
        name = name.removeprefix(b"sha256:")
        if folder not in ((), (_BY_ID,)) or not _HEX.fullmatch(name):
            return None
        found = {path for encoded, path in self._ids.items() if encoded.startswith(name)}
        return found.pop() if len(found) == 1 else None


def _path(tag: str) -> Path:
    return tuple(part.replace(":", "@").encode() for part in tag.split("/"))


def _is_like(tag: str, pattern: str | None) -> bool:
    return pattern is None or fnmatchcase(tag, pattern) or fnmatchcase(tag.rpartition(":")[0], pattern)
