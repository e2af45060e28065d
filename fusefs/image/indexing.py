"""Indexes one layer: in a thread, or in a child process that does not slow down reads of the mount."""

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import NamedTuple

from fusefs.content.protocol import Content, FilePlace
from fusefs.errors import NO_ROOM, InvalidImage, NoSpace
from fusefs.image.model import Layer
from fusefs.tar.members import ContentSource

log = logging.getLogger(__name__)

CHILD_SIZE = 16 << 20
"""Size of a tar in bytes from which on a child process indexes it: a scan in a thread slows down reads."""

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_CODE = f"import sys; sys.path.append({_PACKAGES!r}); from fusefs.layers.indexer import main; sys.exit(main())"
INDEXER = (sys.executable, "-P", "-S", "-c", _CODE)
"""The command without its arguments: a faster ``python -m fusefs.layers.indexer``, which skips the module `site`.

It imports nothing from the current directory.
"""


class NewIndex(NamedTuple):
    """An empty file for a layer index."""

    descriptor: int
    directory: str
    """The directory of the file, for messages."""


def index_into(index: NewIndex, layer: Layer, tar: Content, created_ns: int) -> None:
    """Write the index of *layer*, whose plain tar is *tar*, into the new file *index*.

    Implicit directories get the time *created_ns*, nanoseconds since 1970.  Raises InvalidImage,
    NoSpace, or OSError if the tar cannot be read.
    """
    place = tar.file_place()
    if place is None or tar.size < CHILD_SIZE:  # a child process can read only a local file
        _index_here(index, layer, tar, created_ns)
    else:
        _index_in_child(index, layer, place, tar.size, created_ns)


def _index_here(index: NewIndex, layer: Layer, tar: Content, created_ns: int) -> None:
    from fusefs.layers.indexer import index_layer  # noqa: PLC0415 - a mount starts faster without it

    try:
        with open(index.descriptor, "wb", closefd=False) as file:
            _log(index_layer(ContentSource(tar, layer.where), created_ns, file))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _no_room(layer, index.directory, error.strerror) from None


def _index_in_child(index: NewIndex, layer: Layer, place: FilePlace, size: int, created_ns: int) -> None:
    command = [*INDEXER, *map(str, (*place, size, index.descriptor, created_ns)), layer.where]
    # The child ends when its standard input closes, which this process holds open while it lives.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(place.descriptor, index.descriptor),
        cwd="/",
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        warnings = child.stdout.read().decode("utf-8", "replace").splitlines()
        error = child.stderr.read().decode("utf-8", "replace").strip()
        status = child.wait()
    if status:
        if status == InvalidImage.exit_code:
            raise InvalidImage(error)
        if status == NoSpace.exit_code:
            raise _no_room(layer, index.directory, error)
        # Killed, or a read error: the image may be valid, so the next access tries again.
        raise OSError(errno.EIO, f"the indexer of {layer.where} failed with status {status}: {error}")
    _log(warnings)


def _no_room(layer: Layer, directory: str, why: str | None) -> NoSpace:
    return NoSpace(f"cannot index {layer.where} in {directory}: {why}; choose another directory with --tmpdir")


def _log(warnings: Iterable[str]) -> None:
    for warning in warnings:
        log.warning("%s", warning)
