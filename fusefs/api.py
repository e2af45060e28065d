"""imgfs for Python programs: `fusefs.open_image`.  Nothing is mounted, and nothing of FUSE is needed.

>>> import fusefs
>>> with fusefs.open_image("./hello.tar") as image:
...     print(image.name, image.platform)
...     print(image.config.json()["os"], len(image.layers))
...     print((image.rootfs / "etc" / "motd").read_text(), end="")
...     print([path.name for path in image.rootfs.iterdir()])
./hello.tar linux/arm64
linux 2
hello
['bin', 'etc']
"""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Self

from fusefs.content.fileobject import open_content
from fusefs.content.protocol import Content
from fusefs.errors import ImgfsError
from fusefs.image.opened import Opened
from fusefs.oci.config import Details, parse_details
from fusefs.oci.documents import Descriptor
from fusefs.progress import Silent
from fusefs.sources import open_image as sourced
from fusefs.sources.settings import Settings, platform_named, timeout_named, tmpdir_named
from fusefs.text import printable
from fusefs.tree.path import ImagePath

__all__ = ["Blob", "ImageLayer", "ImagePath", "ImgfsError", "OpenedImage", "open_image"]


def open_image(  # noqa: PLR0913 - each a choice that the command has as well
    image: str | os.PathLike[str],
    *,
    host: str | None = None,
    context: str | None = None,
    platform: str | None = None,
    timeout: float | None = None,
    tmpdir: str | None = None,
    verify: bool = False,
    environment: Mapping[str, str] | None = None,
) -> "OpenedImage":
    """Return the image that *image* names, as on the command line: in an engine, an archive or a layout.

    A string is an IMAGE argument, a path object a file or a directory.

    The other arguments are the options of `imgfs mount`: an engine's *host* or *context*, a *platform* as
    ``linux/arm64``, for how many seconds to wait for the engine (*timeout*), where to write what must be
    written (*tmpdir*), whether to *verify* a file's digests.  *environment* stands in for that of the process,
    which says where Docker is.

    Raises an `ImgfsError`, whose message is a sentence for people.  Use the result in a ``with`` block, or
    `close` it.
    """
    environment = os.environ if environment is None else environment
    directory = tmpdir_named(tmpdir, environment)
    name = image if isinstance(image, str) else os.path.join(os.curdir, image)
    settings = Settings(
        host=host,
        context=context,
        tmpdir=directory,
        verify=verify,
        platform=platform_named(platform),
        environment=environment,
        progress=Silent(),
        timeout=timeout_named(timeout),
    )
    return OpenedImage(Opened(sourced(name, settings), directory, settings.progress))


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes of an image that never change: a JSON document, or a layer.  Any thread may read.

    >>> import fusefs
    >>> with fusefs.open_image("./hello.tar") as image:
    ...     blob = image.layers[0].tar
    ...     print(blob.size, blob.read_at(0, 4), blob.read_at(257, 5))
    ...     with blob.open() as file:
    ...         print(file.seek(-1024, 2), file.read() == bytes(1024))
    2560 b'bin/' b'ustar'
    1536 True
    """

    digest: str
    """``sha256:…``"""
    media_type: str
    size: int
    """Bytes."""
    _content: Content = field(repr=False)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* on, fewer only at the end; OSError once the image is closed."""
        return bytes(self._content.read_at(offset, size))

    def read_bytes(self) -> bytes:
        """Return all bytes."""
        return self.read_at(0, self.size)

    def open(self) -> io.BufferedReader:
        """Return a file object, with a position of its own."""
        return open_content(self._content, self.digest)

    def json(self) -> Any:
        """Return what the bytes are as JSON; ValueError if they are none."""
        return json.loads(self.read_bytes())


class ImageLayer:
    """One layer of an image."""

    def __init__(self, opened: Opened, number: int, created_by: str | None) -> None:
        self._opened = opened
        self._layer = opened.image.layers[number]
        self.number = number
        """0 is the base."""
        self.created_by = created_by
        """The command that made it, None where the history does not say."""

    def __repr__(self) -> str:
        return f"<layer {self.number}: {self.diff_id or self.digest}, {self.size} bytes>"

    @property
    def digest(self) -> str:
        """The digest of the stored bytes, which may be compressed."""
        return str(self._layer.descriptor.digest)

    @property
    def diff_id(self) -> str | None:
        """The digest of the plain tar; None in what is no file system image."""
        return None if self._layer.diff_id is None else str(self._layer.diff_id)

    @property
    def media_type(self) -> str:
        """What the manifest says that it is."""
        return self._layer.descriptor.media_type

    @property
    def size(self) -> int:
        """Bytes as stored."""
        return self._layer.descriptor.size

    @property
    def blob(self) -> Blob | None:
        """The stored bytes, None for a foreign layer that is not stored."""
        content = self._layer.content
        return None if content is None else _blob(self._layer.descriptor, content)

    @property
    def tar(self) -> Blob:
        """The plain tar, decompressed at the first access; Unavailable if it is not stored."""
        content = self._opened.tar(self.number)
        return Blob(self.diff_id or "", "application/vnd.oci.image.layer.v1.tar", content.size, content)

    @property
    def files(self) -> ImagePath:
        """The root of the layer's own files, whiteouts (``.wh.…``) as they are; indexed at the first access."""
        return ImagePath(self._opened.layer(self.number))


class OpenedImage:
    """An image that can be read until it is closed.

    >>> import fusefs
    >>> with fusefs.open_image("./hello.tar") as image:
    ...     for layer in image.layers:
    ...         print(layer.number, layer.size, layer.created_by)
    ...     manifest = image.manifest.json()
    ...     config = image.blobs[manifest["config"]["digest"]]
    ...     print(config.read_bytes() == image.config.read_bytes())
    0 2560 ADD bin /bin
    1 2048 RUN echo hello > /etc/motd
    True
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._image = opened.image
        self.layers = tuple(
            ImageLayer(opened, number, step.created_by if step else None)
            for number, step in enumerate(self.details.steps(len(self._image.layers)))
        )
        """The layers, the base first."""

    def __repr__(self) -> str:
        return f"<image {printable(self.name)}: {self.id}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; what was opened from the image fails from now on.  No other thread may read meanwhile."""
        self._opened.close()

    @property
    def name(self) -> str:
        """What it was asked for by."""
        return self._image.name

    @property
    def id(self) -> str:
        """The digest of the image config."""
        return self.config.digest

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return self.manifest.digest

    @property
    def platform(self) -> str | None:
        """As in ``linux/amd64``; None for what is no file system image."""
        return None if self._image.platform is None else str(self._image.platform)

    @property
    def details(self) -> Details:
        """How the image is run and how it was made: environment, labels, history."""
        return parse_details(self._image.config.content.data)

    @property
    def manifest(self) -> Blob:
        """The image manifest: stored, or what `skopeo inspect --raw` shows of the same image."""
        return _blob(self._image.manifest.descriptor, self._image.manifest.content)

    @property
    def config(self) -> Blob:
        """The image config."""
        return _blob(self._image.config.descriptor, self._image.config.content)

    @property
    def blobs(self) -> Mapping[str, Blob]:
        """Everything that is stored, by digest."""
        found: dict[str, Blob] = {}
        for descriptor, content in self._image.blobs():
            found.setdefault(str(descriptor.digest), _blob(descriptor, content))
        return MappingProxyType(found)

    @property
    def rootfs(self) -> ImagePath:
        """The root of what a container would see; the first access indexes all layers.

        Unavailable if a layer is not stored.
        """
        return ImagePath(self._opened.rootfs())


def _blob(descriptor: Descriptor, content: Content) -> Blob:
    return Blob(str(descriptor.digest), descriptor.media_type, descriptor.size, content)
