"""The Python API: `fusefs.open_image`.  It mounts nothing and does not need FUSE.

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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Self

from fusefs.cache.writeback import Writeback
from fusefs.comparison.config import ConfigChange
from fusefs.comparison.images import Sides, side_of, sides_of_layer
from fusefs.content.fileobject import open_content
from fusefs.content.protocol import Content
from fusefs.copying.copied import Copied
from fusefs.copying.host import copy_to_host
from fusefs.errors import ImgfsError, UsageError
from fusefs.image.inspection import inspect
from fusefs.image.opened import Opened
from fusefs.image.search import Found, Where, all_of, search, size_of, types_of
from fusefs.layers.fates import End
from fusefs.layers.waste import waste
from fusefs.oci.config import Details, parse_details
from fusefs.oci.documents import Descriptor
from fusefs.packages.database import Package
from fusefs.packages.installed import PackageChange, installed
from fusefs.progress import Silent
from fusefs.results import Comparison, Difference, FoundFile, Waste, WastedFile, waste_of
from fusefs.sources import open_image as sourced
from fusefs.sources.caching import CacheOnDemand
from fusefs.sources.settings import Settings, absolute, platform_named, timeout_named, tmpdir_named
from fusefs.text import printable
from fusefs.tree.node import Tree
from fusefs.tree.path import ImagePath
from fusefs.tree.walk import PathNode, found_at

__all__ = [
    "Blob",
    "Comparison",
    "ConfigChange",
    "Copied",
    "Difference",
    "FoundFile",
    "ImageLayer",
    "ImagePath",
    "ImgfsError",
    "OpenedImage",
    "Package",
    "PackageChange",
    "Waste",
    "WastedFile",
    "open_image",
]


def open_image(  # noqa: PLR0913 - each is an option of the command, too
    image: str | os.PathLike[str],
    *,
    host: str | None = None,
    context: str | None = None,
    platform: str | None = None,
    timeout: float | None = None,
    tmpdir: str | None = None,
    shared_blob_dir: str | None = None,
    authfile: str | None = None,
    insecure: bool = False,
    strict: bool = False,
    verify: bool = False,
    offline: bool = False,
    cache: bool = True,
    cache_dir: str | None = None,
    cache_size: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> "OpenedImage":
    """Open an image in an engine, a registry, an archive or an image layout.

    *image*: a string is an IMAGE argument of the command line; a path object is a file or a directory.

    The other arguments are options of `imgfs mount`: the *host* or *context* of an engine, the *platform* (for
    example ``linux/arm64``), the *timeout* of servers in seconds, the directory *tmpdir* for spooled files, the
    directory *shared_blob_dir* of the blobs of an image layout, the *authfile* with credentials for registries, whether
    they may be *insecure*, whether to be *strict* with their layers, whether to *verify* all digests, whether to ask no
    registry (*offline*), and whether to use the *cache*, which is in *cache_dir* and has at most *cache_size* bytes.
    Files are added to the cache when the image is closed.
    *environment* replaces the environment of the process, whose variables configure the engine's address and the cache.

    Raises `ImgfsError` with a message for users.  Use the result in a ``with`` block, or `close` it.
    """
    environment = os.environ if environment is None else environment
    directory = tmpdir_named(tmpdir, environment)
    name = image if isinstance(image, str) else os.path.join(os.curdir, image)
    writeback = Writeback()
    caching = CacheOnDemand(cache_dir, cache_size, environment, writeback.later)
    settings = Settings(
        host=host,
        context=context,
        tmpdir=directory,
        shared_blobs=shared_blob_dir and absolute(shared_blob_dir),
        authfile=authfile and absolute(authfile),
        insecure=insecure,
        verify=verify,
        platform=platform_named(platform),
        environment=environment,
        progress=Silent(),
        timeout=timeout_named(timeout),
        offline=offline,
        cache=caching if cache else lambda: None,
    )

    with ExitStack() as closing:
        closing.callback(caching.close)
        closing.callback(writeback.finish)
        opened = Opened(sourced(name, settings), directory, settings.progress, strict=strict)
        closing.callback(opened.close_caches)
        closing.callback(opened.close)
        closing.callback(writeback.finish)  # before what it writes is closed
        return OpenedImage(opened, closing.pop_all())


@dataclass(frozen=True, slots=True)
class Blob:
    """Immutable bytes of an image: a JSON document or a layer.  Safe under concurrency.

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
    """In bytes."""
    _content: Content = field(repr=False)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* on, fewer only at the end; OSError once the image is closed."""
        return bytes(self._content.read_at(offset, size))

    def read_bytes(self) -> bytes:
        """Return all bytes."""
        return self.read_at(0, self.size)

    def open(self) -> io.BufferedReader:
        """Return a new file object with its own position."""
        return open_content(self._content, self.digest)

    def json(self) -> Any:
        """Return the parsed JSON document; ValueError if the bytes are not JSON."""
        return json.loads(self.read_bytes())


class ImageLayer:
    """One layer of an image."""

    def __init__(self, opened: Opened, number: int, created_by: str | None) -> None:
        self._opened = opened
        self._layer = opened.image.layers[number]
        self.number = number
        """0 is the base."""
        self.created_by = created_by
        """The command that made the layer, None if the history does not tell."""

    def __repr__(self) -> str:
        return f"<layer {self.number}: {self.diff_id or self.digest}, {self.size} bytes>"

    @property
    def digest(self) -> str:
        """The digest of the stored bytes, which may be compressed."""
        return str(self._layer.descriptor.digest)

    @property
    def diff_id(self) -> str | None:
        """The digest of the plain tar; None for an image without a file system (an artifact)."""
        return None if self._layer.diff_id is None else str(self._layer.diff_id)

    @property
    def media_type(self) -> str:
        """The media type in the manifest."""
        return self._layer.descriptor.media_type

    @property
    def size(self) -> int:
        """The stored size in bytes."""
        return self._layer.descriptor.size

    @property
    def blob(self) -> Blob | None:
        """The stored bytes, None for a foreign layer that is not stored."""
        content = self._layer.content
        return None if content is None else _blob(self._layer.descriptor, content)

    @property
    def tar(self) -> Blob:
        """The plain tar, decompressed on first access; Unavailable if the layer is not stored."""
        content = self._opened.tar(self.number)
        return Blob(self.diff_id or "", "application/vnd.oci.image.layer.v1.tar", content.size, content)

    @property
    def files(self) -> ImagePath:
        """The root of the layer's own files, with whiteouts (``.wh.…``) as files; indexed on first access."""
        return ImagePath(self._opened.layer(self.number))

    def diff(self, path: str | os.PathLike[str] = "/", *, times: bool = False) -> Comparison:
        """Compare the layers below this one with the same and this one, at *path*, as `imgfs diff --layer` does."""
        sides = sides_of_layer(self._opened, self.number, lambda tree: _found(self._opened, tree, path))
        return Comparison(sides, None, times=times)


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

    def __init__(self, opened: Opened, closing: ExitStack) -> None:
        """Show *opened*, which *closing* closes."""
        self._opened = opened
        self._closing = closing
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
        """Close all files; later reads of the image fail.  No other thread may read meanwhile."""
        self._closing.close()

    @property
    def name(self) -> str:
        """The IMAGE argument that names it."""
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
        """For example ``linux/amd64``; None for an image without a file system (an artifact)."""
        return None if self._image.platform is None else str(self._image.platform)

    @property
    def details(self) -> Details:
        """Details of the image config: environment, labels, history and more."""
        return parse_details(self._image.config.content.data)

    @property
    def manifest(self) -> Blob:
        """The image manifest: the stored one, or the one that `skopeo inspect --raw` shows for the same image."""
        return _blob(self._image.manifest.descriptor, self._image.manifest.content)

    @property
    def config(self) -> Blob:
        """The image config."""
        return _blob(self._image.config.descriptor, self._image.config.content)

    @property
    def blobs(self) -> Mapping[str, Blob]:
        """All stored or generated blobs by digest."""
        blobs: dict[str, Blob] = {}
        for descriptor, content in self._image.blobs():
            blobs.setdefault(str(descriptor.digest), _blob(descriptor, content))
        return MappingProxyType(blobs)

    @property
    def rootfs(self) -> ImagePath:
        """The root directory of a container: all layers merged; the first access indexes them in parallel.

        Raises Unavailable if a layer is not stored.
        """
        return ImagePath(self._opened.rootfs())

    def copy(
        self,
        path: str | os.PathLike[str],
        destination: str | os.PathLike[str],
        *,
        layer: int | None = None,
        follow_symlinks: bool = False,
    ) -> Copied:
        """Copy a file or directory of the root file system, or of one *layer*, to the host, as `imgfs cp` does.

        *path*: absolute; of ``/`` and ``DIR/.`` only what is in the directory.  *follow_symlinks*: a symbolic link
        that *path* itself names, too.  Returns the numbers of what was copied.
        """
        source = self._opened.source(os.fsencode(path), layer=layer, follow=follow_symlinks)
        return copy_to_host(source, destination, lambda count: None)  # noqa: ARG005

    def find(  # noqa: PLR0913 - each is an option of the command, too
        self,
        path: str | os.PathLike[str] = "/",
        *,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - as in find(1)
        size: str | None = None,
        layer: int | None = None,
        all_layers: bool = False,
        deleted: bool = False,
    ) -> Iterator[FoundFile]:
        """Yield the files at *path* and below that pass all tests, as `imgfs find` does.

        *name* is a pattern of the shell, *type* one or more of find(1)'s letters (``f,l``), *size* as in find(1)
        (``+1M``).  *layer*, *all_layers* and *deleted* find the files of layers, with the layers that hide them.
        """
        try:
            wanted = all_of(name, None if type is None else types_of(type), None if size is None else size_of(size))
        except ValueError as error:
            raise UsageError(str(error)) from None
        where = Where(layer, all_layers, deleted)
        return map(_found_file, search(self._opened, [os.fsencode(path)], where, wanted))

    def waste(self) -> Waste:
        """Return the bytes that no program sees, as `imgfs waste` does."""
        return waste_of(waste(self._opened.rootfs()))

    def packages(self) -> list[Package]:
        """Return the packages of dpkg, apk and rpm that are installed, sorted."""
        return installed(self._opened.rootfs())

    def diff(
        self,
        other: "OpenedImage",
        path: str | os.PathLike[str] = "/",
        other_path: str | os.PathLike[str] | None = None,
        *,
        times: bool = False,
    ) -> Comparison:
        """Compare this image with the *other* one, as `imgfs diff` does: what that adds, removes and changes.

        The files are those at *path* and below, in the other image at *other_path* if that is another one.  *times*:
        files that differ only in their time, too.
        """
        old, new = self._opened, other._opened  # noqa: SLF001 - of the same class
        places = (old, path), (new, path if other_path is None else other_path)
        trees = [opened.rootfs() for opened, _ in places]
        sides = (
            side_of(opened, tree, _found(opened, tree, where))
            for (opened, where), tree in zip(places, trees, strict=True)
        )
        return Comparison(Sides(*sides), (inspect(old.image), inspect(new.image)), times=times)


def _found(opened: Opened, tree: Tree, path: str | os.PathLike[str]) -> PathNode:
    return found_at(tree, os.fsencode(path), opened.image.name, follow=True)


def _found_file(found: Found) -> FoundFile:
    fate = found.fate
    path = ImagePath(found.tree, os.fsdecode(found.node.path))
    hidden = {} if fate is None else {"deleted_by" if fate.end is End.DELETED else "replaced_by": fate.layer}
    return FoundFile(path, found.layer, **hidden)


def _blob(descriptor: Descriptor, content: Content) -> Blob:
    return Blob(str(descriptor.digest), descriptor.media_type, descriptor.size, content)
