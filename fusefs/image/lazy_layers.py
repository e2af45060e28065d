"""The layers of an image: plain tars and layer indexes, each made on first access."""

import hashlib
import os
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from fusefs.content.file import Extent, OpenFile
from fusefs.content.protocol import Content, Literal
from fusefs.content.spool import file_or_memory
from fusefs.errors import NoSpace
from fusefs.image.indexing import Indexing, NewIndex
from fusefs.image.model import Image, Layer, LayerCache
from fusefs.image.uncompressed import Follower, uncompressed_tar
from fusefs.layers.index import BrokenIndex, LayerIndex
from fusefs.layers.record import MAGIC as INDEX_FORMAT
from fusefs.layers.tree import LayerFiles
from fusefs.log import logger
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import OCI_LAYER, Descriptor
from fusefs.tree.once import Once

log = logger(__name__)

_INDEX_ROOM = 1 << 20
"""Bytes that must be free to cache a layer index.  Its size is not known in advance; most are smaller."""
_WORKERS = os.cpu_count() or 1
_FETCHES = 4
"""Layers that are fetched from a registry at the same time."""

_comparing = threading.Lock()
"""Only one thread compares headers: two threads contend for the interpreter and take twice as long."""

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
    ) -> None:
        """Cache layer indexes and plain tars in *cache*, or spool them in *tmpdir*.

        *layer_caches*: caches of layers that have one of their own, by digest.
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

    def tars_cached(self) -> bool:
        """Return whether all compressed layers have cached plain tars, so that `tar` decompresses nothing."""
        return all(map(self._has_cached_tar, filter(self.readable, self.stack)))

    def _has_cached_tar(self, layer: Layer) -> bool:
        cache = self._cache_of(layer)
        if layer.compression is None:
            return True
        descriptor = None if cache is None else cache.open_cached(f"{_cached_name(layer)}.tar")
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None

    def files(self, layer: Layer) -> LayerFiles:
        """Return the files of *layer*; the first access indexes it."""
        return self._files[_key(layer)].get()

    def cached_names(self) -> list[str]:
        """Return the names under which the layers' indexes are cached; they depend on all that the indexes do."""
        return [self._index_name(layer) for layer in self.stack if self.readable(layer)]

    def _index_name(self, layer: Layer) -> str:
        # Implicit directories get the time of the image, and one archive may hold several images.
        return f"{_cached_name(layer, INDEX_FORMAT)}-{self._image.created_ns}.layer"

    def bytes_key(self, layer: Layer) -> Hashable:
        """Return a key of the plain tar of *layer*: tars with equal keys, also of other images, have the same bytes.

        A digest is a key only if imgfs compared it with the bytes: the diffID when it decompressed the layer, the
        descriptor's digest in a verified image.  Otherwise the key is the place of the bytes in an unchanged file.
        """
        if layer.compression is not None:
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

    def all_files(self, indexed: Callable[[Layer], None] = lambda _: None) -> Sequence[LayerFiles]:
        """Return the files of all readable layers, the base first; indexes several layers in parallel.

        Calls *indexed* with each layer when it is indexed.
        """
        layers = tuple(filter(self.readable, self.stack))
        waiting = iter(layers)
        failed: list[Exception] = []

        def work() -> None:
            for layer in waiting:  # threads share the iterator: each layer goes to one thread
                try:
                    self.files(layer)
                    indexed(layer)
                except Exception as error:  # noqa: BLE001 - raised below, in the calling thread
                    failed.append(error)
                    return

        # Daemon threads, unlike those of an executor: a mount that ends does not wait for them.
        workers = []
        with suppress(RuntimeError):  # as many threads as this process may have
            for _ in range(max(_WORKERS, _FETCHES)):
                worker = threading.Thread(target=work, daemon=True)
                worker.start()
                workers.append(worker)
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

    def close(self) -> None:
        """Close the plain tars that were decompressed.  No other thread may read meanwhile."""
        for tar in self._made:
            tar.close()

    def _cache_of(self, layer: Layer) -> LayerCache | None:
        return self._layer_caches.get(layer.descriptor.digest, self._cache)

    def _tar_maker(self, layer: Layer) -> Callable[[], Content]:
        def make() -> Content:
            assert layer.content is not None
            if layer.compression is None:
                layer.content.fetch()
                return layer.content
            cache, name = self._cache_of(layer), f"{_cached_name(layer)}.tar"
            cached = None if cache is None else cache.open_cached(name)
            if cached is not None:
                file = OpenFile(cached, layer.where)
                tar: Content = Extent(file, 0, file.length())
            else:
                layer.content.fetch()  # before the limit of decompressions, which wait for no network
                follower = self._followers.pop(_key(layer), None)
                with self._decompressing:
                    tar = uncompressed_tar(layer, self._tmpdir, cache, name, follower)
            self._made.append(tar)
            return tar

        return make

    def _files_maker(self, layer: Layer) -> Callable[[], LayerFiles]:
        def make() -> LayerFiles:
            name = self._index_name(layer)
            cache = self._cache_of(layer)
            if cache is not None:
                index = _cached_index(cache, name)
                if index is not None:
                    tar = self.tar(layer)
                    # The headers in a plain tar of the user, who may have changed it.
                    if not cache.of_user or layer.compression or _headers_match(cache, name, index, tar):
                        return LayerFiles(index, tar)
                new = self._new_cached(layer, cache)
                if new is not None:
                    try:
                        return self._indexed(layer, new, lambda made: cache.later(lambda: _add(cache, name, made)))
                    except _IndexNoSpace as error:
                        log.info("%s: cannot cache its layer index: %s", layer.where, error)
            return self._indexed(layer, NewIndex(*file_or_memory(self._tmpdir)), os.close)

        return make

    def _new_cached(self, layer: Layer, cache: LayerCache) -> NewIndex | None:
        """Return a new file in *cache* for the index of *layer*, None if there is no room."""
        try:
            return NewIndex(cache.new_file(), cache.path) if cache.room(_INDEX_ROOM) else None
        except NoSpace as error:
            log.info("%s: cannot cache its layer index: %s", layer.where, error)
            return None

    def _indexed(self, layer: Layer, new: NewIndex, made: Callable[[int], None]) -> LayerFiles:
        """Index *layer* into the file *new*, if possible while it is decompressed; *made* gets and closes the file."""
        indexing = Indexing(new, layer, self._image.created_ns)
        try:
            tar = self._followed(layer, indexing)
            try:
                with self._indexing:
                    indexing.finish(tar)
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


def _add(cache: LayerCache, name: str, descriptor: int) -> None:
    """Cache the file *descriptor* as *name*, and close it."""
    try:
        cache.add(name, descriptor)
    finally:
        os.close(descriptor)


def _cached_name(layer: Layer, *more: object) -> str:
    """Return the first part of the name of a cached file: a hash of what identifies the bytes of *layer*, and *more*.

    *more* is the format of layer indexes, so that versions of imgfs with different ones do not drop each other's.
    """
    assert layer.content is not None
    identity = layer.content.identity
    parts = (layer.descriptor.digest, layer.diff_id, identity, layer.descriptor.size, layer.compression, *more)
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()


def _cached_index(cache: LayerCache, name: str) -> LayerIndex | None:
    """Return the layer index cached as *name*, None if there is no valid one."""
    descriptor = cache.open_cached(name)
    if descriptor is None:
        return None
    try:
        return LayerIndex(descriptor)
    except BrokenIndex as error:
        cache.drop(name, str(error))
    except OSError as error:
        cache.drop(name, f"cannot read it: {error.strerror}")
    finally:
        os.close(descriptor)
    return None


def _headers_match(cache: LayerCache, name: str, index: LayerIndex, tar: Content) -> bool:
    """Return whether *index*, cached as *name*, has the headers in *tar*; otherwise it is dropped."""
    with _comparing:
        matches = index.headers_match(tar)
    if not matches:
        cache.drop(name, "the headers of the layer differ")
    return matches
