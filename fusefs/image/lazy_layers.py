"""The layers of an image: plain tars and layer indexes, each made on first access."""

import os
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from fusefs.content.file import Extent, OpenFile
from fusefs.content.pieces import FetchFailed
from fusefs.content.protocol import Content, Literal
from fusefs.content.recent import RecentErrors
from fusefs.content.remote import RemoteBlob
from fusefs.content.spool import file_or_memory
from fusefs.errors import DigestMismatch, ImgfsError, InvalidImage, NoSpace
from fusefs.image.cached_files import add_index, cached_index, cached_name, headers_match
from fusefs.image.indexing import Indexing, NewIndex
from fusefs.image.model import Image, Layer, LayerCache
from fusefs.image.uncompressed import Follower, uncompressed_tar
from fusefs.layers.index import LayerIndex
from fusefs.layers.record import MAGIC as INDEX_FORMAT
from fusefs.layers.tree import LayerFiles
from fusefs.log import logger
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import OCI_LAYER, Descriptor
from fusefs.oci.transport import REGISTRY
from fusefs.tree.once import Once

if TYPE_CHECKING:
    from fusefs.chunked.pieces import PieceTar
    from fusefs.image.piecewise import Piecewise
    from fusefs.layers.topdown import TopDownRootfs

log = logger(__name__)

_INDEX_ROOM = 1 << 20
"""Bytes that must be free to cache a layer index.  Its size is not known in advance; most are smaller."""
_WORKERS = os.cpu_count() or 1
_FETCHES = 4
"""Layers that are fetched from a registry at the same time."""
_HEAD_START = 0.005
"""Seconds in which the request for a layer is sent; the next one has to wait for another connection anyway."""

_NO_CACHES: Mapping[Digest, LayerCache] = MappingProxyType({})
_Key = tuple[Digest, Digest | None]


def _key(layer: Layer) -> _Key:
    """Return the key of a layer.  It includes the diffID: a blob listed with two diffIDs is compared with both."""
    return layer.descriptor.digest, layer.diff_id


_NO_BYTES = Digest.of([])
_NONE = Layer(DiffID(_NO_BYTES), Descriptor(OCI_LAYER, 0, _NO_BYTES), Literal(b""), None, "no layer")
"""The empty layer that is the root file system of an image without layers."""


class Layers:
    """The layers of an image.  Safe under concurrency; a repeated layer is made once."""

    def __init__(
        self,
        image: Image,
        tmpdir: str,
        cache: LayerCache | None = None,
        layer_caches: Mapping[Digest, LayerCache] = _NO_CACHES,
        *,
        strict: bool = False,
    ) -> None:
        """Cache layer indexes and plain tars in *cache*, or spool them in *tmpdir*.

        *layer_caches*: caches of layers that have one of their own, by digest.  *strict*: no layer is read piece by
        piece.
        """
        self._image = image
        self._cache = cache
        self._layer_caches = layer_caches
        self._tmpdir = tmpdir
        # Separate limits, so that a long decompression does not delay the indexing of plain layers.
        self._indexing = threading.Semaphore(_WORKERS)
        self._decompressing = threading.Semaphore(_WORKERS)
        self._tars: dict[_Key, Once[Content]] = {}
        self._files: dict[_Key, Once[LayerFiles]] = {}
        self._made: list[Content] = []
        self._piecewise: Piecewise | None = None
        if image.source.transport is REGISTRY:
            from fusefs.image import piecewise  # noqa: PLC0415 - local images do not need it

            self._piecewise = piecewise.Piecewise(strict=strict)
        self._pieces_opened = False
        self._followers: dict[_Key, Follower] = {}
        self.stack = image.layers or (_NONE,)
        """The layers that the root file system is merged of, the base first."""
        for layer in self.stack:
            if layer.readable and _key(layer) not in self._tars:
                self._tars[_key(layer)] = Once(self._tar_maker(layer))
                self._files[_key(layer)] = Once(self._files_maker(layer))

    def readable(self, layer: Layer) -> bool:
        """Return whether *layer* is stored and part of a file system."""
        return _key(layer) in self._tars

    def tar(self, layer: Layer) -> Content:
        """Return the plain tar of *layer*; the first access decompresses it."""
        return self._tars[_key(layer)].get()

    def compare(self, layer: Layer) -> None:
        """Compare *layer*, which is here whole, with what was read of it piece by piece, if anything was.

        Raises as `tar` does; what was read is not shown any more if it differs.
        """
        if self._has_pieces(layer):
            self.tar(layer)

    def tars_cached(self) -> bool:
        """Return whether all compressed layers have cached plain tars, so that `tar` decompresses nothing."""
        return all(map(self._has_cached_tar, filter(self.readable, self.stack)))

    def _has_cached_tar(self, layer: Layer) -> bool:
        cache = self._cache_of(layer)
        if layer.compression is None:
            return True
        descriptor = None if cache is None else cache.open_cached(f"{cached_name(layer)}.tar")
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None

    def files(self, layer: Layer) -> LayerFiles:
        """Return the files of *layer*; the first access indexes it, and so does the first one after it was fetched."""
        key = _key(layer)
        if self._has_pieces(layer) and _is_here(layer):
            self.tar(layer)
        return self._files[key].get()

    def cached_names(self) -> list[str]:
        """Return the names under which the layers' indexes are cached; they depend on all that the indexes do."""
        return [self._index_name(layer) for layer in self.stack if self.readable(layer)]

    def _index_name(self, layer: Layer) -> str:
        # Implicit directories get the time of the image, and one archive may hold several images.
        return f"{cached_name(layer, INDEX_FORMAT)}-{self._image.created_ns}.layer"

    def bytes_key(self, layer: Layer) -> Hashable:
        """Return a key of the plain tar of *layer*: tars with equal keys, also of other images, have the same bytes.

        A digest is a key only if imgfs compared it with the bytes: the diffID when it decompressed the layer, the
        descriptor's digest in a verified image, or if the layer is read piece by piece, with the digest of its table of
        contents in the annotations.  Otherwise the key is the place of the bytes in an unchanged file.
        """
        if layer.compression is not None:
            if self._has_pieces(layer):
                return layer.descriptor.digest, *sorted(layer.descriptor.annotations.items())
            return layer.diff_id
        if self._image.verified:
            return layer.descriptor.digest
        tar = self.tar(layer)
        place = tar.file_place()
        if place is None:
            return object()
        status = os.fstat(place.descriptor)
        tar.check()
        state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        return *state, place.offset, tar.size

    def all_files(
        self, indexed: Callable[[Layer], None] = lambda _: None, count: int | None = None
    ) -> Sequence[LayerFiles]:
        """Return the files of all readable layers, the base first; indexes several layers in parallel.

        Calls *indexed* with each layer when it is indexed.  *count*: only of so many layers of the stack.
        """
        layers = tuple(filter(self.readable, self.stack[:count]))
        # The largest one takes longest: it gets the first thread and, in a registry, the connection that is open.
        waiting = iter(sorted(layers, key=lambda layer: -layer.descriptor.size))
        failed: list[Exception] = []
        is_enough = threading.Event()  # set once a thread finds no more layers, or has failed: nobody else should begin

        def work() -> None:
            try:
                for layer in waiting:  # threads share the iterator: each layer goes to one thread
                    self.files(layer)
                    indexed(layer)
            except Exception as error:  # noqa: BLE001 - raised below, in the calling thread
                failed.append(error)
            is_enough.set()

        # Daemon threads, unlike those of an executor: a mount that ends does not wait for them.
        workers = []
        with suppress(RuntimeError):  # as many threads as this process may have
            for _ in range(max(_WORKERS, _FETCHES)):
                worker = threading.Thread(target=work, daemon=True)
                worker.start()
                workers.append(worker)
                if is_enough.wait(_HEAD_START if self.must_be_fetched() else 0):
                    break
        if not workers:
            work()
        for worker in workers:
            worker.join()
        if failed:
            raise failed[0]
        return [self.files(layer) for layer in layers]

    def made(self) -> Sequence[Content]:
        """Return the plain tars that were decompressed, or opened in the cache."""
        return tuple(self._made)

    def must_be_fetched(self) -> bool:
        """Return whether there are layers on another machine only: one that is not needed should stay there."""
        return any(map(_is_elsewhere, self.stack))

    def top_down(self, complete: Callable[[], None], *, transform_symlinks: bool) -> "TopDownRootfs":
        """Return the layers merged, each fetched when a lookup needs it; *complete* is called when all are known."""
        from fusefs.layers.topdown import FetchedStack, TopDownRootfs  # noqa: PLC0415 - local images do not need it

        layers = tuple(filter(self.readable, self.stack))
        files = [partial(self.files, layer) for layer in layers]
        stack = FetchedStack(files, self.all_files, self.open_pieces, complete)
        return TopDownRootfs(stack, self._image.created_ns, transform_symlinks=transform_symlinks)

    def open_pieces(self) -> None:
        """Begin to index all layers that can be read piece by piece: that takes one request for each."""
        if self._pieces_opened:
            return
        self._pieces_opened = True
        layers = [layer for layer in self.stack if self.readable(layer) and self.verified_by(layer)]
        waiting = iter(layers)

        def work() -> None:
            for layer in waiting:  # threads share the iterator
                with suppress(ImgfsError, OSError):  # who needs the layer gets the error
                    self.files(layer)

        with suppress(RuntimeError):  # as many threads as this process may have
            for _ in layers[:_FETCHES]:
                threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """Close the plain tars that were decompressed.  No other thread may read meanwhile."""
        for tar in self._made:
            tar.close()
        if self._piecewise is not None:
            self._piecewise.close()

    def _cache_of(self, layer: Layer) -> LayerCache | None:
        return self._layer_caches.get(layer.descriptor.digest, self._cache)

    def _tar_maker(self, layer: Layer) -> Callable[[], Content]:
        def make() -> Content:
            assert layer.content is not None
            if layer.compression is None:
                layer.content.fetch()
                return layer.content
            cache, name = self._cache_of(layer), f"{cached_name(layer)}.tar"
            cached = None if cache is None else cache.open_cached(name)
            if cached is not None:
                file = OpenFile(cached, layer.where)
                tar: Content = Extent(file, 0, file.length())
            else:
                follower = self._followers.pop(_key(layer), None)
                # Decompressions that wait for a network have no limit but that of the fetches.
                waits = isinstance(layer.content, RemoteBlob) and layer.content.file_place() is None
                try:
                    with nullcontext() if waits else self._decompressing:
                        tar = uncompressed_tar(layer, self._tmpdir, cache, name, follower)
                except (InvalidImage, DigestMismatch) as error:
                    if self._piecewise is not None:
                        self._piecewise.fail(_key(layer), error)
                    raise
            try:
                was_in_pieces = self._piecewise is not None and self._piecewise.add_whole(_key(layer), layer.where, tar)
            except BaseException:
                tar.close()  # the next access opens it again
                raise
            self._made.append(tar)
            if was_in_pieces:
                self._files[_key(layer)] = Once(self._files_maker(layer))
            return tar

        return make

    def verified_by(self, layer: Layer) -> str:
        """Return what verifies the names and attributes of *layer*: ``toc``, ``tar``, or nothing if that is clear."""
        known = None if self._piecewise is None else self._piecewise.format_of(layer)
        if self._piecewise is None or known is None:
            return ""
        return "tar" if known.has_headers or self._piecewise.is_verified(_key(layer)) else "toc"

    def _has_pieces(self, layer: Layer) -> bool:
        return self._piecewise is not None and self._piecewise.has_pieces(_key(layer))

    def _files_of_pieces(self, layer: Layer) -> LayerFiles | None:
        """Return the files of *layer* if it is read piece by piece, else None."""
        if self._piecewise is None or self._piecewise.is_whole(_key(layer)):
            return None
        known = self._piecewise.format_of(layer)
        if known is None or self._has_cached_tar(layer):
            return None
        from fusefs.image.piecewise import open_pieces  # noqa: PLC0415 - local images do not need it

        cache = self._cache_of(layer)
        # Not the names of what is made of the plain tar: nothing is compared with the diffID yet.
        annotations = sorted(layer.descriptor.annotations.items())
        pieces = open_pieces(layer, known, self._tmpdir, cache, f"{cached_name(layer, annotations)}.toc")
        if pieces is None:
            return None
        name = f"{cached_name(layer, INDEX_FORMAT, annotations)}-{self._image.created_ns}.layer"
        index = None if cache is None else cached_index(cache, name)
        try:
            files = LayerFiles(index, pieces) if index else self._made_files(layer, name, cache, pieces)
            pieces.take_scan()  # nobody needs it any more
        except BaseException:
            pieces.close()
            raise
        self._piecewise.add_pieces(_key(layer), layer.where, pieces)
        return files

    def _files_maker(self, layer: Layer) -> Callable[[], LayerFiles]:
        recent = RecentErrors()

        def make() -> LayerFiles:
            recent.check()
            try:
                return self._new_files(layer)
            except FetchFailed as failure:
                if isinstance(layer.content, RemoteBlob):  # servers of archives remember errors themselves
                    recent.add(failure)
                raise

        return make

    def _new_files(self, layer: Layer) -> LayerFiles:
        files = self._files_of_pieces(layer)
        if files is not None:
            return files
        name = self._index_name(layer)
        cache = self._cache_of(layer)
        index = None if cache is None else cached_index(cache, name)
        if cache is not None and index is not None:
            tar = self.tar(layer)
            # The headers in a plain tar of the user, who may have changed it.
            if not cache.of_user or layer.compression or headers_match(cache, name, index, tar):
                return LayerFiles(index, tar)
        self._check_supply(layer)
        return self._made_files(layer, name, cache, None)

    def _check_supply(self, layer: Layer) -> None:
        """Raise the error of a registry that has just failed, before a thread or file is made.

        The kernel passes on the lookups in a directory one by one: all that wait must get it while it is spared.
        """
        content = layer.content
        if not isinstance(content, RemoteBlob) or _is_here(layer):
            return
        if layer.compression is None or not self._has_cached_tar(layer):
            content.check_supply()

    def _made_files(self, layer: Layer, name: str, cache: LayerCache | None, pieces: "PieceTar | None") -> LayerFiles:
        """Index *layer*, cache the index as *name* if possible, and return its files.

        *pieces*: the tar if it is read piece by piece, None for the plain tar.
        """
        new = None if cache is None else self._new_cached(layer, cache)
        if cache is not None and new is not None:
            try:
                return self._indexed(layer, new, lambda made: cache.later(lambda: add_index(cache, name, made)), pieces)
            except _IndexNoSpace as error:
                log.info("%s: cannot cache its layer index: %s", layer.where, error)
        return self._indexed(layer, NewIndex(*file_or_memory(self._tmpdir)), os.close, pieces)

    def _new_cached(self, layer: Layer, cache: LayerCache) -> NewIndex | None:
        """Return a new file in *cache* for the index of *layer*, None if there is no room."""
        try:
            return NewIndex(cache.new_file(), cache.path) if cache.room(_INDEX_ROOM) else None
        except NoSpace as error:
            log.info("%s: cannot cache its layer index: %s", layer.where, error)
            return None

    def _indexed(
        self, layer: Layer, new: NewIndex, made: Callable[[int], None], pieces: "PieceTar | None"
    ) -> LayerFiles:
        """Index *layer* into the file *new*, if possible while it is decompressed; *made* gets and closes the file."""
        indexing = Indexing(new, layer, self._image.created_ns)
        try:
            tar: Content = self._followed(layer, indexing) if pieces is None else pieces
            try:
                with self._indexing:
                    if pieces is None:
                        indexing.finish(tar)
                    elif (scan := pieces.take_scan()) is not None:
                        indexing.finish_by(scan)
                    else:
                        indexing.finish(pieces.headers, pieces.scanned)
            except NoSpace as error:
                raise _IndexNoSpace(str(error)) from None
            tar.check()  # an index of changed bytes is neither used nor cached
            files = LayerFiles(LayerIndex(new.descriptor), tar)
        except BaseException:
            indexing.abandon()
            os.close(new.descriptor)
            raise
        made(new.descriptor)
        return files

    def _followed(self, layer: Layer, follower: Follower) -> Content:
        """Return the plain tar of *layer*; if it is decompressed now, *follower* follows."""
        self._followers[_key(layer)] = follower
        try:
            return self.tar(layer)
        finally:
            self._followers.pop(_key(layer), None)


class _IndexNoSpace(NoSpace):
    """There is no space for a layer index, but there may be for its tar."""


def _is_here(layer: Layer) -> bool:
    return layer.content is not None and layer.content.file_place() is not None


def _is_elsewhere(layer: Layer) -> bool:
    """Return whether a read of *layer*, in a registry or in an archive at a URL, has to fetch it."""
    if isinstance(layer.content, Extent):
        return not layer.content.is_here
    return isinstance(layer.content, RemoteBlob) and not _is_here(layer)
