"""Decompresses layers to plain tars."""

import hashlib
import threading
from collections.abc import Generator, Iterator
from itertools import chain
from queue import SimpleQueue
from typing import Protocol

from fusefs.content.file import Extent
from fusefs.content.protocol import Bytes, Content, FilePlace, chunks
from fusefs.content.remote import RemoteBlob
from fusefs.content.spool import Spool, free_space, megabytes
from fusefs.errors import DigestMismatch, ImgfsError, NoSpace, Unsupported
from fusefs.image.model import Layer, LayerCache
from fusefs.log import logger
from fusefs.oci.digest import Digest
from fusefs.tar.compression import FIRST_BYTES, compression_of, decompressed, is_unread

log = logger(__name__)


_AHEAD = 3
"""Pieces, of at most two MiB, that a thread may be ahead of the one that takes them."""


class Follower(Protocol):
    """Something that follows a plain tar while it is being written."""

    def written(self, place: FilePlace, total: int) -> None:
        """Take note that *total* bytes of the plain tar are at *place*."""

    def abandon(self) -> None:
        """Forget what was written: the plain tar is not completed, or another one is made in its place."""


def plain_chunks(layer: Layer) -> Iterator[bytes]:
    """Yield the plain tar of *layer*; DigestMismatch at its end if its digest differs from the diffID.

    Another thread decompresses meanwhile, bytes of a registry while they arrive.  Raises InvalidImage for a damaged
    stream, FetchFailed at the end at the latest if bytes of a registry are not those of their digest.
    """
    assert layer.content is not None
    assert layer.compression is not None
    assert layer.diff_id is not None
    hasher = hashlib.new(layer.diff_id.algorithm)
    for data in _ahead(_plain(layer, layer.content)):
        hasher.update(data)
        yield data
    actual = Digest(layer.diff_id.algorithm, hasher.hexdigest())
    if actual != layer.diff_id:
        raise DigestMismatch(f"{layer.where} decompresses to the digest {actual}, the image says {layer.diff_id}")


def _plain(layer: Layer, content: Content) -> Generator[bytes, None, None]:
    """Yield the plain bytes of *content*."""
    if not isinstance(content, RemoteBlob):
        yield from _decompressed(layer, chunks(content))
        return
    arriving = content.unverified_chunks()
    damage: ImgfsError | None = None
    try:
        yield from _decompressed(layer, arriving)
    except ImgfsError as error:
        damage = error
    for _ in arriving:  # their end raises the error of a wrong digest, which explains any damage
        pass
    if damage is not None:
        raise damage


def _decompressed(layer: Layer, stored: Iterator[Bytes]) -> Generator[bytes, None, None]:
    """Yield the plain bytes of *stored*: they decide on the format, not the documents of a registry."""
    begin = next(stored, b"")
    first = begin[:FIRST_BYTES]
    if is_unread(first):
        raise Unsupported(f"{layer.where} is compressed in an unsupported way; gzip, zstd, xz and bzip2 are read")
    found = compression_of(first)
    if found is None:
        yield from map(bytes, chain([begin], stored))
    else:
        yield from decompressed(chain([begin], stored), found, layer.where)


def uncompressed_tar(
    layer: Layer, tmpdir: str, cache: LayerCache | None = None, name: str = "", follower: Follower | None = None
) -> Content:
    """Decompress *layer*, compare it with its diffID, and return the plain tar.

    The tar is cached in *cache* as *name*, or spooled in *tmpdir* if the cache has no room for it.  *follower* is
    told how far it is written.
    Raises the exceptions of `plain_chunks`, and NoSpace if the plain tar exceeds the space that is free at the start.
    """
    if isinstance(layer.content, RemoteBlob) and not layer.content.is_here:
        try:
            return _uncompressed_tar(layer, tmpdir, cache, name, follower)
        except ImgfsError as error:  # perhaps of bytes that were damaged on the way: then the right ones are here now
            log.info("%s; looking at the verified bytes", error)
    return _uncompressed_tar(layer, tmpdir, cache, name, follower)


def _uncompressed_tar(
    layer: Layer, tmpdir: str, cache: LayerCache | None, name: str, follower: Follower | None
) -> Content:
    assert layer.content is not None
    room = 0 if cache is None else cache.room(layer.content.size)
    if cache is not None and room:
        try:
            with Spool(cache.path, layer.where, cache.new_file(), room) as spool:
                _decompress(layer, spool, room, follower)
        except NoSpace as error:
            log.info("%s: cannot cache its plain tar: %s", layer.where, error)
        else:
            cache.later(lambda: cache.add(name, spool.file.descriptor))
            return Extent(spool.file, 0, spool.written)
    free = free_space(tmpdir)
    with Spool(tmpdir, layer.where) as spool:
        _decompress(layer, spool, free, follower)
    return Extent(spool.file, 0, spool.written)


def _decompress(layer: Layer, spool: Spool, free: int, follower: Follower | None) -> None:
    assert layer.content is not None
    place = FilePlace(spool.file.descriptor, 0)
    try:
        for data in plain_chunks(layer):
            if spool.written + len(data) > free:
                raise NoSpace(
                    f"{layer.where} has {megabytes(layer.content.size)} and decompresses to more than the "
                    f"{megabytes(free)} that are free in {spool.directory}; choose another directory with --tmpdir"
                )
            spool.write(data, free)
            if follower is not None:
                follower.written(place, spool.written)
    except BaseException:
        if follower is not None:
            follower.abandon()
        raise


def _ahead(pieces: Generator[bytes, None, None]) -> Iterator[bytes]:
    """Yield *pieces*, none of them empty, which a thread of their own makes; without a free thread, this one does.

    Who takes no more does not wait for that thread: it may wait for another machine.
    """
    queue: SimpleQueue[bytes | BaseException] = SimpleQueue()
    places = threading.Semaphore(_AHEAD)
    stopped = threading.Event()

    def work() -> None:
        try:
            for piece in pieces:
                places.acquire()
                if stopped.is_set():
                    break
                queue.put(piece)
            pieces.close()
            queue.put(b"")
        except BaseException as error:  # noqa: BLE001 - raised below, in the other thread
            queue.put(error)

    try:
        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError:
            yield from pieces
            return
        while piece := queue.get():
            places.release()
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        stopped.set()
        places.release()
