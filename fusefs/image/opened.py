"""An opened image and the trees of its layers, for one-shot commands and the Python API."""

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from fusefs.content.file import Extent, OpenFile, OwnFile, Sparse
from fusefs.content.pieces import FetchFailed
from fusefs.content.protocol import Content
from fusefs.copying.source import Source, source_at
from fusefs.errors import Unavailable
from fusefs.image.lazy_layers import Layers
from fusefs.image.model import SourcedImage
from fusefs.layers.needed import Need, NeededLayers, Question
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles, LayerTree
from fusefs.progress import Progress
from fusefs.text import printable
from fusefs.tree.once import Once


@contextmanager
def _fetching() -> Iterator[None]:
    """Raise the error for users if a layer cannot be fetched."""
    try:
        yield
    except FetchFailed as error:
        raise error.error from None


def open_files(contents: Iterable[Content]) -> Iterator[OpenFile]:
    """Yield the files that *contents* read from."""
    for content in contents:
        match content:
            case Extent():
                yield content.file
            case Sparse():
                yield from open_files(run for _, run in content.runs())


class Opened:
    """An image and its layers, readable until it is closed.  Safe under concurrency.

    `rootfs`, `layer` and `tar` raise Unavailable for layers that are not stored or not part of a file system, and the
    error of a registry that does not send one.
    """

    def __init__(self, sourced: SourcedImage, tmpdir: str, progress: Progress, *, strict: bool = False) -> None:
        """Spool files that cannot be cached in *tmpdir*; report indexing to *progress*.

        *strict*: read no layer piece by piece.
        """
        self.image = sourced.image
        self.cache = sourced.cache
        """The cache for files that are made of its layers, None if there is none."""
        caches = sourced.cache, *sourced.layer_caches.values(), *sourced.documents
        self._caches = [cache for cache in caches if cache is not None]
        self.referrers = sourced.referrers
        """Asks for the artifacts that refer to it, and raises no error; None if the source knows of none."""
        self.traffic = sourced.traffic
        """What was received from another machine, None for an image that is here."""
        self.layers = Layers(sourced.image, tmpdir, sourced.cache, sourced.layer_caches, strict=strict)
        self.progress = progress
        """Where the command reports its progress."""
        self._rootfs = Once(self._merged)

    @property
    def shown(self) -> str:
        """The image's name for messages."""
        return printable(self.image.name)

    def rootfs(self) -> RootfsTree:
        """Return all layers merged; the first access indexes them, several in parallel."""
        with _fetching():
            return self._rootfs.get()

    def _merged(self) -> RootfsTree:
        self._check_rootfs()
        return RootfsTree(self._index(), transform_symlinks=False)

    def _check_rootfs(self) -> None:
        if why := self.image.why_no_rootfs:
            raise Unavailable(f"{self.shown} has no root file system: {why}")

    def rootfs_for(self, *questions: Question) -> RootfsTree:
        """Return a tree that answers *questions* as `rootfs` does; layers that cannot matter are not indexed."""
        self._check_rootfs()
        needed, files = NeededLayers(questions), []
        with _fetching(), self.progress.transfer(f"indexing {self.shown}", None):
            for layer in reversed(self.layers.stack):
                files.append(self.layers.files(layer))
                need = needed.add(files[-1].index)
                if need is not Need.NEXT:
                    break
                self.layers.open_pieces()
        return self.rootfs() if need is Need.ALL else RootfsTree(files[::-1], transform_symlinks=False)

    def index(self) -> Sequence[LayerFiles]:
        """Index all readable layers, several in parallel, and return their files, the base first."""
        with _fetching():
            return self._index()

    def fetch(self) -> None:
        """Wait until all stored bytes are on this machine."""
        with _fetching():
            for _, content in self.image.blobs():
                content.fetch()

    def rootfs_up_to(self, number: int) -> RootfsTree:
        """Return the layer *number* and those below it merged."""
        self._check_number(number)
        self._check_rootfs()
        with _fetching():
            return RootfsTree(self._index(number + 1), transform_symlinks=False)

    def _index(self, count: int | None = None) -> Sequence[LayerFiles]:
        total = sum(layer.descriptor.size for layer in self.image.layers[:count])
        with self.progress.transfer(f"indexing {self.shown}", total) as advance:
            return self.layers.all_files(lambda layer: advance(layer.descriptor.size), count)

    def layer(self, number: int) -> LayerTree:
        """Return the tree of one layer, with whiteouts as files; the first access indexes it."""
        self._check_readable(number)
        with _fetching():
            return LayerTree(self.layers.files(self.image.layers[number]), transform_symlinks=False)

    def source(self, path: bytes, *, layer: int | None = None, follow: bool = False) -> Source:
        """Return what *path* names for a copy, in the root file system or in one *layer*; Unavailable if nothing."""
        if layer is not None:
            return source_at(self.layer(layer), path, self.image.name, follow=follow)
        source = source_at(self.rootfs_for(Question(path, follow)), path, self.image.name, follow=follow)
        if not source.is_directory:
            return source
        return source_at(self.rootfs(), path, self.image.name, follow=follow)

    def tar(self, number: int) -> Content:
        """Return the plain tar of one layer; the first access decompresses it."""
        self._check_readable(number)
        with _fetching():
            return self.layers.tar(self.image.layers[number])

    def _check_number(self, number: int) -> None:
        count = len(self.image.layers)
        if not 0 <= number < count:
            raise Unavailable(f"{self.shown} has {count} layers, numbered from 0; there is no layer {number}")

    def _check_readable(self, number: int) -> None:
        self._check_number(number)
        if not self.layers.readable(self.image.layers[number]):
            raise Unavailable(f"{self.shown}: layer {number} is not stored or not part of a file system")

    def close_when_unused(self) -> None:
        """Close each file as soon as nobody refers to it any more.

        For images that are let go while they may be read.  Call it when nobody opens more: just before `Opened` is
        dropped.
        """
        contents = [content for _, content in self.image.blobs()]
        for file in {id(file): file for file in open_files([*contents, *self.layers.made()])}.values():
            if not isinstance(file, OwnFile):
                weakref.finalize(file, os.close, file.descriptor).atexit = False

    def close(self) -> None:
        """Close all files; later reads of the image fail.  No other thread may read meanwhile."""
        self.layers.close()
        for _, content in self.image.blobs():
            content.close()

    def close_caches(self) -> None:
        """Stop using the cache entries of the image, which is closed."""
        for cache in self._caches:
            cache.close()
