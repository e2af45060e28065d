"""The plain tar of a layer that is stored compressed."""

import hashlib
from collections.abc import Iterator

from fusefs.compression import decompressed
from fusefs.content import Content, Extent, chunks
from fusefs.digest import Digest
from fusefs.errors import DigestMismatch, NoSpace
from fusefs.image import Layer
from fusefs.spool import Spool, free_space, megabytes


def plain_chunks(layer: Layer) -> Iterator[bytes]:
    """Yield the plain tar of *layer*, and raise DigestMismatch at its end if its digest is not the diffID.

    Raises InvalidImage for a stream that is damaged.
    """
    assert layer.content is not None
    assert layer.compression is not None
    assert layer.diff_id is not None
    hasher = hashlib.new(layer.diff_id.algorithm)
    for data in decompressed(chunks(layer.content), layer.compression, layer.where):
        hasher.update(data)
        yield data
    found = Digest(layer.diff_id.algorithm, hasher.hexdigest())
    if found != layer.diff_id:
        msg = f"{layer.where} decompresses to the digest {found}, the image says {layer.diff_id}"
        raise DigestMismatch(msg)


def uncompressed_tar(layer: Layer, tmpdir: str) -> Content:
    """Decompress *layer* into a spool file in *tmpdir* and return it, compared with the diffID.

    Raises what `plain_chunks` raises, and NoSpace when the plain tar is larger than what is free when
    it begins.
    """
    assert layer.content is not None
    free = free_space(tmpdir)
    with Spool(tmpdir, layer.where) as spool:
        for data in plain_chunks(layer):
            if spool.written + len(data) > free:
                msg = (
                    f"{layer.where} has {megabytes(layer.content.size)} and decompresses to more than the "
                    f"{megabytes(free)} that are free in {tmpdir}; choose another directory with --tmpdir"
                )
                raise NoSpace(msg)
            spool.write(data, free)
        return Extent(spool.file, 0, spool.written)
