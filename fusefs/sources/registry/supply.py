"""Where the bytes of a layer come from, the cache or a registry, and where they are stored."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fusefs.content.file import OpenFile
from fusefs.content.pieces import Take
from fusefs.content.protocol import Bytes
from fusefs.content.remote import Room
from fusefs.content.spool import unlinked_file
from fusefs.errors import DigestMismatch, NoSpace, Unavailable
from fusefs.log import logger
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.sources.registry.entry import BlobEntry
from fusefs.text import printable
from fusefs.tree.once import Once

if TYPE_CHECKING:
    from fusefs.sources.registry.transfer import Transfers

log = logger(__name__)


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
        if cached is None:
            return None
        if os.fstat(cached).st_size == self._descriptor.size:
            return OpenFile(cached, self._name)
        os.close(cached)
        return None

    def room(self, *, cached: bool) -> Room | None:
        """Return a file for the bytes, in the cache or in the temporary directory."""
        entry, size = self._entry, self._descriptor.size
        if not cached:
            return Room(OpenFile(unlinked_file(self._tmpdir), self._name), self._tmpdir)
        room = 0 if entry is None or self._transfers is None else entry.room(size)
        if entry is None or not room:
            return None
        try:
            file = OpenFile(entry.new_file(), self._name)
        except NoSpace as error:
            log.info("cannot cache the blob %s: %s", self._descriptor.digest, error)
            return None
        return Room(file, entry.path, room, lambda: entry.later(lambda: entry.add_blob(file.descriptor)))

    def receive(self, start: int, end: int, take: Take, *, again: bool) -> None:
        """Receive bytes from a mirror or the registry, *again* from the registry alone."""
        if self._transfers is None:
            raise not_cached(f"the blob {self._descriptor.digest}")
        self._transfers.get().blob(self._descriptor, (start, end), take, from_registry=again)

    def verify(self, data: Iterable[Bytes]) -> None:
        """Compare the digest."""
        stated = self._descriptor.digest
        actual = Digest.of(data, stated.algorithm)
        if actual != stated:
            raise DigestMismatch(f"{self._name} has the digest {actual} in the registry")
