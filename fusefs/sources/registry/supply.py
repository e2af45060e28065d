"""Where the bytes of a layer come from, the cache or a registry, and where they are stored."""

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fusefs.cache.part import Fetching, Part
from fusefs.content.file import OpenFile, OwnFile
from fusefs.content.pieces import Room, Take
from fusefs.content.protocol import Bytes
from fusefs.content.spool import unlinked_file
from fusefs.errors import DigestMismatch, NoSpace, RegistryError, Unavailable
from fusefs.log import logger
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.ranges import Ranges
from fusefs.sources.registry.entry import BlobEntry
from fusefs.text import printable
from fusefs.tree.once import Once

if TYPE_CHECKING:
    from fusefs.sources.registry.transfer import Transfers

log = logger(__name__)

_FIRST = 1 << 17
"""Bytes that a layer may store at first; it asks for more when it has more."""
_POLL = 0.02
"""Seconds between two looks at how another process gets on."""
_PATIENCE = 1.0
"""Seconds without another byte after which that process is not waited for."""


def not_cached(what: str) -> Unavailable:
    """Return the error that *what* would have to be asked for, although the user forbids it."""
    return Unavailable(f"{printable(what)} is not in the cache, and --offline asks no registry")


class BlobSupply:
    """The supply of a `RemoteBlob`.  Safe under concurrency: no attribute changes."""

    def __init__(
        self,
        descriptor: Descriptor,
        name: str,
        transfers: "Once[Transfers] | None",
        entry: BlobEntry | None,
        tmpdir: str,
    ) -> None:
        """*name* is that of the image in messages; without *transfers*, only a cached blob is there.

        Cache the blob in *entry*; without it, or without room, use a file in *tmpdir*.
        """
        self._descriptor = descriptor
        self._name = f"{name}: {descriptor.digest}"
        self._transfers = transfers
        self._entry = entry
        self._tmpdir = tmpdir

    def stored(self) -> OpenFile | None:
        """Return the cached blob."""
        cached = None if self._entry is None else self._entry.open_blob()
        return None if cached is None else self._of_right_size(cached)

    def _of_right_size(self, cached: int) -> OpenFile | None:
        """Return the file *cached*; None, and close it, if another image states another size of the same digest."""
        if os.fstat(cached).st_size == self._descriptor.size:
            return OwnFile(cached, self._name)
        os.close(cached)
        return None

    def awaited(self) -> OpenFile | None:
        """Wait while another process receives the blob; return it, None if no other process gets on with it."""
        entry, written_ns, deadline = self._entry, None, 0.0
        while entry is not None:
            try:
                part = entry.others_part()
            except OSError as error:
                log.warning("cannot share the blob %s: %s", self._descriptor.digest, error.strerror)
                return None
            if part is None:
                return self.stored()
            if part.descriptor is not None:
                return self._of_right_size(part.descriptor)
            if part.written_ns != written_ns:
                written_ns, deadline = part.written_ns, time.monotonic() + _PATIENCE
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL)
        return None

    def room(self, *, cached: bool) -> Room | None:
        """Return a file for the bytes, in the cache or in the temporary directory."""
        entry = self._entry
        if not cached:
            file = OwnFile(unlinked_file(self._tmpdir), self._name)
            return Room(file, self._tmpdir, copies=None if entry is None else entry.copies(file.descriptor))
        first = min(self._descriptor.size, _FIRST)
        if entry is None or not entry.room(first, self._descriptor.size):
            return None
        try:
            return self._cached_room(entry, first)
        except (NoSpace, OSError) as error:
            log.info("cannot cache the blob %s: %s", self._descriptor.digest, error)
            return None

    def _cached_room(self, entry: BlobEntry, first: int) -> Room:
        part = entry.own_part()
        if part is None:  # too many others receive the blob, or one has just received it
            file = OwnFile(entry.new_file(), self._name)
            present, notes = Ranges(), None
        else:
            file = _PartFile(part, self._name)
            present, notes = part.present, _Notes(entry, part)

        def keep() -> None:
            if notes is not None:
                notes.tell(Fetching.VERIFIED)
            entry.later(lambda: _cache(entry, file))

        return Room(
            file,
            entry.path,
            os.fstat(file.descriptor).st_blocks * 512 + first,
            lambda more: entry.room(more) > 0,
            keep,
            present,
            notes,
            entry.copies(file.descriptor),
        )

    def receive(self, start: int, end: int, take: Take, *, again: int) -> RegistryError | None:
        """Receive bytes from a mirror or the registry."""
        if self._transfers is None:
            raise not_cached(f"the blob {self._descriptor.digest}")
        return self._transfers.get().blob(self._descriptor, (start, end), take, again=again)

    def check(self) -> None:
        """Raise RegistryError if all places have failed at the blob a moment ago."""
        if self._transfers is not None:
            self._transfers.get().check(self._descriptor.digest)

    def is_busy(self) -> bool:
        """Return whether any bytes of the image are being received."""
        return self._transfers is not None and self._transfers.get().waiting > 0

    def verify(self, data: Iterable[Bytes]) -> None:
        """Compare the digest."""
        stated = self._descriptor.digest
        actual = Digest.of(data, stated.algorithm)
        if actual != stated:
            raise DigestMismatch(f"{self._name} has the digest {actual} in the registry")


class _PartFile(OwnFile):
    """The file of a part, whose notes are closed with it."""

    def __init__(self, part: Part, name: str) -> None:
        super().__init__(part.descriptor, name)
        self._part = part

    def close(self) -> None:
        """Close both."""
        self._part.close()
        super().close()


class _Notes:
    """The notes of a part.  After an error, which is logged, nothing more is noted.  Safe under concurrency."""

    def __init__(self, entry: BlobEntry, part: Part) -> None:
        self._entry = entry
        self._part = part

    def add(self, start: int, end: int) -> None:
        """Note that bytes are there."""
        self._entry.complete()
        self._note(lambda: self._part.add(start, end))

    def remove(self, start: int, end: int) -> None:
        """Note that bytes were wrong."""
        self._note(lambda: self._part.remove(start, end))

    def fetching(self, *, everything: bool) -> None:
        """Note whether all missing bytes are being fetched."""
        self.tell(Fetching.EVERYTHING if everything else Fetching.PIECES)

    def tell(self, fetching: Fetching) -> None:
        """Note what this mount does."""
        self._note(lambda: self._part.tell(fetching))

    def _note(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._part.close()
            log.warning("cannot note what is there of %s: %s", self._entry.path, error.strerror)


def _cache(entry: BlobEntry, file: OpenFile) -> None:
    """Cache *file*, unless it was closed meanwhile: another one may have its number."""
    if file.descriptor >= 0:
        entry.add_part(file.descriptor)
