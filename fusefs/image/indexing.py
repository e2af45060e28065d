"""Indexes one layer: in a thread, or in a child process that does not slow down reads of the mount."""

import errno
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, NamedTuple

from fusefs.content.growing import report
from fusefs.content.protocol import Content, FilePlace
from fusefs.errors import NO_ROOM, InvalidImage, LimitReached, NoSpace
from fusefs.image.model import Layer
from fusefs.log import logger
from fusefs.tar.members import ContentSource

if TYPE_CHECKING:
    from subprocess import Popen

    from fusefs.layers.scan import Found, LayerScan

log = logger(__name__)

CHILD_SIZE = 16 << 20
"""Size of a tar in bytes from which on a child process indexes it: a scan in a thread slows down reads."""

_PACKAGES = os.fsencode(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_CODE = (
    f"import os, sys; sys.path.append(os.fsdecode({_PACKAGES!r})); "
    "from fusefs.layers.child import main; os._exit(main())"
)
INDEXER = (sys.executable, "-I", "-X", "utf8", "-S", "-c", _CODE)
"""The command without its arguments: a faster ``python -m fusefs.layers.child``, which skips the module `site`.

Neither the current directory, nor variables such as ``PYTHONPATH`` and ``PYTHONVERBOSE``, nor the locale change it.
It ends at once: Python's own end takes 3 ms.
"""
_NOT_INHERITED = ("PYTHON", "LANG", "LC_", "MALLOC_", "GLIBC_")
"""Beginnings of the names of variables that the child does not get: they change the interpreter or its library."""
_MAX_OUTPUT = 1 << 16
"""Bytes of the child's output that are kept, the last ones."""


class NewIndex(NamedTuple):
    """An empty file for a layer index."""

    descriptor: int
    directory: str
    """The directory of the file, for messages."""


class Indexing:
    """Writes the index of one layer into a new file; may begin while the plain tar of the layer is being written.

    For use by one thread at a time.
    """

    def __init__(self, index: NewIndex, layer: Layer, created_ns: int) -> None:
        """Implicit directories get the time *created_ns*, nanoseconds since 1970."""
        self._index = index
        self._layer = layer
        self._created_ns = created_ns
        self._child: Popen[bytes] | None = None
        self._tried = False

    def written(self, place: FilePlace, total: int) -> None:
        """Take note that *total* bytes of the plain tar are at *place*; a child follows once they are many."""
        if not self._tried and total >= CHILD_SIZE:
            self._tried = True
            self._child = _child(self._index, self._layer, place, self._created_ns)
        if self._child is not None:
            _report(self._child, total, complete=False)

    def abandon(self) -> None:
        """Forget what was written: the plain tar is not completed, or another one is made in its place."""
        child, self._child, self._tried = self._child, None, False
        if child is not None:
            with child:  # closes its standard input, which ends it
                pass
            os.ftruncate(self._index.descriptor, 0)
            os.lseek(self._index.descriptor, 0, os.SEEK_SET)

    def finish(self, tar: Content, scanned: int = CHILD_SIZE) -> None:
        """Complete the index: *tar* is the plain tar, all of it, of which *scanned* bytes matter.

        Raises InvalidImage, NoSpace, MemoryError, or OSError if the tar cannot be read.
        """
        place = tar.file_place()
        if place is not None and scanned >= CHILD_SIZE:  # a child process can read only a local file
            self.written(place, tar.size)
        child, self._child = self._child, None
        if child is None:
            from fusefs.layers.scan import LayerScan  # noqa: PLC0415 - a mount starts faster without it

            self.finish_by(LayerScan(ContentSource(tar, self._layer.where)))
        else:
            _report(child, tar.size, complete=True)
            _receive(child, self._index, self._layer)

    def finish_by(self, scan: "LayerScan | Found") -> None:
        """Complete the index in this thread, by a *scan* of the plain tar.  Raises as `finish`."""
        _index_here(self._index, self._layer, scan, self._created_ns)


def _index_here(index: NewIndex, layer: Layer, scan: "LayerScan | Found", created_ns: int) -> None:
    from fusefs.layers.indexer import index_scanned  # noqa: PLC0415 - a mount starts faster without it

    try:
        with open(index.descriptor, "wb", closefd=False) as file:
            _log(index_scanned(scan, created_ns, file))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _no_room(layer, index.directory, error.strerror) from None


def _child(index: NewIndex, layer: Layer, tar: FilePlace, created_ns: int) -> "Popen[bytes] | None":
    """Start the child; return None if that is impossible: without a free process or file descriptor, for example."""
    import subprocess  # noqa: PLC0415 - a mount starts faster without it

    numbers = (tar.descriptor, tar.offset, index.descriptor, created_ns)
    command: list[str | bytes] = [*INDEXER, *map(str, numbers), layer.where.encode("utf-8", "surrogateescape")]
    # The child ends when its standard input closes, which this process holds open while it lives.  Both its outputs
    # are one pipe: this process cannot wait for one of them while the child waits for a reader of the other.
    with suppress(OSError):
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(tar.descriptor, index.descriptor),
            cwd="/",
            env={name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)},
        )
    return None


def _report(child: "Popen[bytes]", written: int, *, complete: bool) -> None:
    """Tell *child* how much of the tar is *written*.  Only the report of the *complete* tar waits for the child."""
    assert child.stdin is not None
    reports = child.stdin.fileno()
    os.set_blocking(reports, complete)
    with suppress(BlockingIOError, BrokenPipeError):  # it has many reports to read, or it has ended
        os.write(reports, report(written, complete=complete))


def _receive(child: "Popen[bytes]", index: NewIndex, layer: Layer) -> None:
    """Wait for *child*, log its warnings and raise its error."""
    with child:
        assert child.stdout is not None
        said = _last_output(child.stdout).decode("utf-8", "replace").split("\n")
    # The last line is the status: the kernel gives none to a program that ignores SIGCHLD (wait(2)).
    status = int(said.pop()) if said[-1].isdecimal() else child.returncode or 1
    if status == 0:
        _log(said)
        return
    error = said[-1] if said else ""
    if status == InvalidImage.exit_code:
        raise InvalidImage(error)
    if status == NoSpace.exit_code:
        raise _no_room(layer, index.directory, error)
    if status == LimitReached.exit_code:
        raise MemoryError(f"the indexer of {layer.where}: {error}")
    # Killed, or a read error: the image may be valid, so the next access tries again.
    raise OSError(errno.EIO, f"the indexer of {layer.where} failed with status {status}: {error}")


def _last_output(pipe: IO[bytes]) -> bytes:
    """Read *pipe* to its end; return the last `_MAX_OUTPUT` bytes, without the last newline."""
    output = b""
    while piece := pipe.read(_MAX_OUTPUT):
        output = (output + piece)[-_MAX_OUTPUT:]
    return output.removesuffix(b"\n")


def _no_room(layer: Layer, directory: str, why: str | None) -> NoSpace:
    return NoSpace(f"cannot index {layer.where} in {directory}: {why}; choose another directory with --tmpdir")


def _log(warnings: Iterable[str]) -> None:
    for warning in warnings:
        log.warning("%s", warning)
