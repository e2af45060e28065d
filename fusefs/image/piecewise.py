"""Layers of registries that are read piece by piece, as long as they are not here whole."""

import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

from fusefs.chunked import annotations
from fusefs.chunked.annotations import Format
from fusefs.content.file import OwnFile
from fusefs.content.protocol import Content
from fusefs.content.remote import RemoteBlob
from fusefs.content.spool import unlinked_file
from fusefs.errors import ImgfsError, InvalidImage, NoSpace
from fusefs.image.model import Layer, LayerCache
from fusefs.log import logger

if TYPE_CHECKING:
    from fusefs.chunked.pieces import PieceTar

log = logger(__name__)


def open_pieces(layer: Layer, known: Format, tmpdir: str, cache: LayerCache | None, name: str) -> "PieceTar | None":
    """Return the tar of *layer*, read piece by piece; None if that is impossible, or the whole layer is here.

    Its documents are cached as *name*.  The plain bytes of pieces are in a file in *tmpdir*; what is cached of them are
    their bytes in the blob.  Raises NoSpace, and FetchFailed.
    """
    from fusefs.chunked.formats import open_tar  # noqa: PLC0415 - most layers need none of that
    from fusefs.chunked.remembered import RememberedRanges  # noqa: PLC0415
    from fusefs.chunked.toc import Unusable  # noqa: PLC0415

    blob = layer.content
    assert isinstance(blob, RemoteBlob)
    if blob.file_place() is not None:
        return None
    remembered = RememberedRanges(blob, b"" if cache is None else _cached(cache, name))
    file = OwnFile(unlinked_file(tmpdir), layer.where)
    try:
        tar = open_tar(known, layer.descriptor.annotations, remembered, file)
    except BaseException as error:
        file.close()
        if not isinstance(error, Unusable):
            raise
        blob.drop_range(0, blob.size)  # a part of it may be damaged
        log.info("%s is fetched whole, although it is annotated as %s: %s", layer.where, known.value, error)
        return None
    documents = remembered.packed()
    remembered.forget()
    if cache is not None and documents:
        cache.later(lambda: _add(cache, name, documents))
    return tar


def _cached(cache: LayerCache, name: str) -> bytes:
    """Return the bytes of the cached file *name*, none if it is not cached."""
    descriptor = cache.open_cached(name)
    if descriptor is None:
        return b""
    with open(descriptor, "rb") as file:
        return file.read()


def _add(cache: LayerCache, name: str, data: bytes) -> None:
    """Cache *data* as the file *name*, if there is room."""
    try:
        if cache.room(len(data)):
            with open(cache.new_file(), "wb") as file:
                file.write(data)
                file.flush()
                cache.add(name, file.fileno())
    except (NoSpace, OSError) as error:
        log.info("cannot cache the documents of a layer: %s", error)


class _Layer(NamedTuple):
    """What there is of a layer."""

    pieces: "PieceTar | None" = None
    tar: Content | None = None
    equal: bool = True
    """Whether the headers in the plain tar say the same, times included."""


_NOTHING = _Layer()


class Piecewise:
    """What is read of layers piece by piece, and whole.  Safe under concurrency: `_lock` guards `_layers`."""

    def __init__(self, *, strict: bool) -> None:
        """*strict*: read no layer piece by piece."""
        self._strict = strict
        self._layers: dict[Hashable, _Layer] = {}
        self._lock = threading.Lock()

    def format_of(self, layer: Layer) -> Format | None:
        """Return the format of *layer* if it can be read piece by piece, as far as its descriptor tells."""
        if self._strict or layer.compression is None or not isinstance(layer.content, RemoteBlob):
            return None
        return annotations.format_of(layer.descriptor.annotations)

    def add_pieces(self, key: Hashable, where: str, pieces: "PieceTar") -> None:
        """Take note of the tar of the layer *key*, read piece by piece."""
        self._meet(key, where, pieces=pieces)

    def add_whole(self, key: Hashable, where: str, tar: Content) -> bool:
        """Take note of the plain tar of the layer *key*, which was compared with its diffID.

        Returns whether the layer was read piece by piece before.
        """
        return self._meet(key, where, tar=tar).pieces is not None

    def fail(self, key: Hashable, error: ImgfsError) -> None:
        """Let reads of the pieces of the layer *key* fail: as a whole, it is damaged or another one."""
        with self._lock:
            pieces = self._layers.get(key, _NOTHING).pieces
        if pieces is not None:
            log.error("%s; what was read of it piece by piece is not shown any more", error)
            pieces.fail(error)

    def is_whole(self, key: Hashable) -> bool:
        """Return whether the plain tar of the layer is here."""
        return self._layers.get(key, _NOTHING).tar is not None

    def is_verified(self, key: Hashable) -> bool:
        """Return whether all that is shown of the layer is as in its plain tar, which is here."""
        layer = self._layers.get(key, _NOTHING)
        return layer.tar is not None and layer.equal

    def has_pieces(self, key: Hashable) -> bool:
        """Return whether the layer is read piece by piece, and its plain tar is not here."""
        layer = self._layers.get(key, _NOTHING)
        return layer.pieces is not None and layer.tar is None

    def _meet(
        self, key: Hashable, where: str, *, pieces: "PieceTar | None" = None, tar: Content | None = None
    ) -> _Layer:
        """Once both are there: compare them, and let reads of the pieces fail if they differ."""
        with self._lock:
            before = self._layers.get(key, _NOTHING)
            now = _Layer(pieces or before.pieces, tar or before.tar)
            if now.pieces is not None and now.tar is not None:
                now = now._replace(equal=_compared(now.pieces, now.tar, where))
            self._layers[key] = now
            return now

    def close(self) -> None:
        """Close the tars that are read piece by piece.  No other thread may read meanwhile."""
        for layer in self._layers.values():
            if layer.pieces is not None:
                layer.pieces.close()


def _compared(pieces: "PieceTar", tar: Content, where: str) -> bool:
    from fusefs.chunked.comparison import compare  # noqa: PLC0415 - most layers need none of that

    try:
        return compare(pieces, tar, where)
    except InvalidImage as error:
        log.error("%s; what was read of it piece by piece is not shown any more", error)  # noqa: TRY400 - not a bug
        pieces.fail(error)
        return False
