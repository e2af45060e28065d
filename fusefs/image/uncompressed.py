"""Decompresses layers to plain tars."""

import hashlib
import logging
from collections.abc import Iterator

from fusefs.content.file import Extent
from fusefs.content.protocol import Content, chunks
from fusefs.content.spool import Spool, free_space, megabytes
from fusefs.errors import DigestMismatch, NoSpace
from fusefs.image.model import Layer, LayerCache
from fusefs.oci.digest import Digest
from fusefs.tar.compression import decompressed

log = logging.getLogger(__name__)


def plain_chunks(layer: Layer) -> Iterator[bytes]:
    """Yield the plain tar of *layer*; DigestMismatch at its end if its digest differs from the diffID.

    Raises InvalidImage for a damaged stream.
    """
    assert layer.content is not None
    assert layer.compression is not None
    assert layer.diff_id is not None
    hasher = hashlib.new(layer.diff_id.algorithm)
    for data in decompressed(chunks(layer.content), layer.compression, layer.where):
        hasher.update(data)
        yield data
    actual = Digest(layer.diff_id.algorithm, hasher.hexdigest())
    if actual != layer.diff_id:
        raise DigestMismatch(f"{layer.where} decompresses to the digest {actual}, the image says {layer.diff_id}")


def uncompressed_tar(layer: Layer, tmpdir: str, cache: LayerCache | None = None, name: str = "") -> Content:
    """Decompress *layer*, compare it with its diffID, and return the plain tar.

    The tar is cached in *cache* as *name*, or spooled in *tmpdir* if the cache has no room for it.
    Raises the exceptions of `plain_chunks`, and NoSpace if the plain tar exceeds the space that is free at the start.
    """
    assert layer.content is not None
    room = 0 if cache is None else cache.room(layer.content.size)
    if cache is not None and room:
        try:
            with Spool(cache.path, layer.where, cache.new_file(), room) as spool:
                _decompress(layer, spool, room)
        except NoSpace as error:
            log.info("%s: cannot cache its plain tar: %s", layer.where, error)
        else:
            cache.later(lambda: cache.add(name, spool.file.descriptor))
            return Extent(spool.file, 0, spool.written)
    free = free_space(tmpdir)
    with Spool(tmpdir, layer.where) as spool:
        _decompress(layer, spool, free)
    return Extent(spool.file, 0, spool.written)


def _decompress(layer: Layer, spool: Spool, free: int) -> None:
    assert layer.content is not None
    for data in plain_chunks(layer):
        if spool.written + len(data) > free:
            raise NoSpace(
                f"{layer.where} has {megabytes(layer.content.size)} and decompresses to more than the "
                f"{megabytes(free)} that are free in {spool.directory}; choose another directory with --tmpdir"
            )
        spool.write(data, free)
