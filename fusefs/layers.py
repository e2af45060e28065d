"""An image's layers as files: plain tars and their indexes, each made at the first need of it."""

import errno
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence

from fusefs.content import Content, Extent
from fusefs.digest import Digest
from fusefs.errors import InvalidImage, NoSpace
from fusefs.image import Image, Layer
from fusefs.indexer import NO_ROOM, PROGRAM, index_layer
from fusefs.layerindex import LayerIndex
from fusefs.layertree import LayerFiles
from fusefs.once import Once
from fusefs.spool import unlinked_file
from fusefs.tarindex import ContentSource
from fusefs.uncompressed import uncompressed_tar

log = logging.getLogger(__name__)

_CHILD_SIZE = 16 << 20
"""Bytes of tar from which on a child process indexes: in a thread, a scan holds up the readers."""

_WORKERS = os.cpu_count() or 1

_Key = tuple[Digest, Digest | None]


def _key(layer: Layer) -> _Key:
    """Return what makes a layer another one: one blob listed for two diffIDs is compared with each."""
    return layer.descriptor.digest, layer.diff_id


class Layers:
    """The layers of an image.  Any number of threads may ask; a repeated layer is made once."""

    def __init__(self, image: Image, tmpdir: str) -> None:
        """Write what must be written into *tmpdir*."""
        self._image = image
        self._tmpdir = tmpdir
        # Their own limits, so that a decompression of minutes keeps no plain layer waiting.
        self._indexing = threading.Semaphore(_WORKERS)
        self._decompressing = threading.Semaphore(_WORKERS)
        self._tars: dict[_Key, Once[Content]] = {}
        self._files: dict[_Key, Once[LayerFiles]] = {}
        for layer in image.layers:
            if layer.content is not None and layer.diff_id is not None and _key(layer) not in self._tars:
                self._tars[_key(layer)] = Once(self._tar_maker(layer))
                self._files[_key(layer)] = Once(self._files_maker(layer))

    def readable(self, layer: Layer) -> bool:
        """Return whether *layer* is stored, and a file system's."""
        return _key(layer) in self._tars

    def tar(self, layer: Layer) -> Content:
        """Return the plain tar of *layer*; decompresses it the first time."""
        return self._tars[_key(layer)].get()

    def files(self, layer: Layer) -> LayerFiles:
        """Return the files of *layer*; indexes it the first time."""
        return self._files[_key(layer)].get()

    def all_files(self, indexed: Callable[[Layer], None] = lambda _: None) -> Sequence[LayerFiles]:
        """Return the files of all readable layers, the base first; several are indexed side by side.

        *indexed* is told of each that is done.
        """
        layers = tuple(filter(self.readable, self._image.layers))
        waiting = iter(layers)
        failed: list[Exception] = []

        def work() -> None:
            for layer in waiting:  # a tuple's iterator, which hands out each item once
                try:
                    self.files(layer)
                    indexed(layer)
                except Exception as error:  # noqa: BLE001 - raised below, where someone hears it
                    failed.append(error)
                    return

        # Daemons, unlike an executor's threads: a mount that is to end does not wait for them.
        workers = [threading.Thread(target=work, daemon=True) for _ in range(_WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if failed:
            raise failed[0]
        return [self.files(layer) for layer in layers]

    def _tar_maker(self, layer: Layer) -> Callable[[], Content]:
        def make() -> Content:
            assert layer.content is not None
            if layer.compression is None:
                return layer.content
            with self._decompressing:
                return uncompressed_tar(layer, self._tmpdir)

        return make

    def _files_maker(self, layer: Layer) -> Callable[[], LayerFiles]:
        def make() -> LayerFiles:
            tar = self.tar(layer)
            assert isinstance(tar, Extent)
            descriptor = unlinked_file(self._tmpdir)
            try:
                with self._indexing:
                    if tar.size < _CHILD_SIZE:
                        self._index_here(layer, tar, descriptor)
                    else:
                        self._index_in_child(layer, tar, descriptor)
                return LayerFiles(LayerIndex(descriptor), tar)
            finally:
                os.close(descriptor)

        return make

    def _index_here(self, layer: Layer, tar: Extent, descriptor: int) -> None:
        try:
            with open(descriptor, "wb", closefd=False) as file:
                _log(index_layer(ContentSource(tar, layer.where), self._image.created_ns, file))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise self._no_room(layer, error.strerror) from None

    def _no_room(self, layer: Layer, why: str | None) -> NoSpace:
        return NoSpace(f"cannot index {layer.where} in {self._tmpdir}: {why}")

    def _index_in_child(self, layer: Layer, tar: Extent, descriptor: int) -> None:
        place = [tar.file.descriptor, tar.offset, tar.size, descriptor, self._image.created_ns]
        command = [*PROGRAM, *map(str, place), layer.where]
        # The pipe to its stdin stays open while this process lives: its end is the child's.
        with (
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(tar.file.descriptor, descriptor),
                cwd="/",
            ) as child,
        ):
            assert child.stdout is not None
            assert child.stderr is not None
            warnings = child.stdout.read().decode("utf-8", "replace").splitlines()
            error = child.stderr.read().decode("utf-8", "replace").strip()
            status = child.wait()
        if status:
            if status == InvalidImage.exit_code:
                raise InvalidImage(error)
            if status == NoSpace.exit_code:
                raise self._no_room(layer, error)
            # Killed, or a read error: not the image's fault, so the next look tries anew.
            raise OSError(errno.EIO, f"the indexer of {layer.where} ended with {status}: {error}")
        _log(warnings)


def _log(warnings: Iterable[str]) -> None:
    for warning in warnings:
        log.warning("%s", warning)
