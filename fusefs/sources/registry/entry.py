"""Cache entries of registries: one for each blob, shared by all images, tags and registries; one for each tag."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable

from fusefs.cache.entry import BLOB, CacheEntry
from fusefs.cache.part import OthersPart, Part, others_part, own_part
from fusefs.cache.sealed_file import Facts
from fusefs.cache.store import BLOBS, TAGS, Cache
from fusefs.errors import NoSpace
from fusefs.log import logger
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.sources.registry.copies import Copies
from fusefs.text import printable

log = logger(__name__)


class HeldEntry:
    """A cache entry that nobody removes: it is in use, although nobody reads it any more.  Safe under concurrency."""

    def __init__(self, cache: Cache, kind: str, key: str) -> None:
        self._cache = cache
        self._names = kind, key
        self._lock = threading.Lock()
        self._entry: CacheEntry | None = None
        self._closed = False

    def hold(self) -> "HeldEntry":
        """Use the entry from now on, if it is complete, and unless `close` was called; errors are logged."""
        with self._lock:
            if self._entry is None and not self._closed:
                try:
                    found = self._cache.complete(*self._names)
                    self._entry = None if found is None else found[0]
                except OSError as error:
                    log.info("cannot keep a cached document: %s", error.strerror)
        return self

    def close(self) -> None:
        """Stop using the entry for good."""
        with self._lock:
            self._closed = True
            if self._entry is not None:
                self._entry.close()
            self._entry = None

    def __del__(self) -> None:
        """Stop using the entry: nobody can need it any more."""
        self.close()


class BlobEntry:
    """The cache entry of a blob, in use from its first access on: its bytes, and a layer's index and plain tar."""

    of_user = False

    def __init__(self, cache: Cache, descriptor: Descriptor, name: str) -> None:
        """Use the entry of *descriptor*, a blob of the repository *name*."""
        self._cache = cache
        self._digest = descriptor.digest
        self._size = descriptor.size
        self._about: Facts = {
            "names": [name],
            "id": str(self._digest),
            "mediaType": printable(descriptor.media_type),
            "blobSize": descriptor.size,
        }
        self._key = f"{self._digest.algorithm}-{self._digest.encoded}"
        self._lock, self._completing = threading.Lock(), threading.Lock()
        self._entry: CacheEntry | None = None
        self._complete = False

    def held(self) -> HeldEntry:
        """Return the same entry for others to hold."""
        return HeldEntry(self._cache, BLOBS, self._key)

    @property
    def path(self) -> str:
        """The directory of the files."""
        entry = self._opened()
        return self._cache.path if entry is None else entry.path

    def room(self, need: int, total: int = 0) -> int:
        """Make room for *need* bytes, the first of *total*; return how many more may be cached, 0 if these may not."""
        entry = self._opened()
        return 0 if entry is None else entry.room(need, total)

    def later(self, work: Callable[[], None]) -> None:
        """Do *work* in the background."""
        entry = self._opened()
        if entry is not None:
            entry.later(work)

    def new_file(self) -> int:
        """Return the descriptor of a new file without a name; NoSpace if it cannot be created."""
        entry = self._opened()
        if entry is None:
            raise NoSpace(f"cannot write in {printable(self._cache.path)}")
        return entry.new_file()

    def add(self, name: str, descriptor: int) -> None:
        """Cache the file *descriptor* as *name*; errors are logged."""
        self._add(name, descriptor, of_parts=False)

    def _add(self, name: str, descriptor: int, *, of_parts: bool) -> None:
        entry = self._opened()
        if entry is not None:
            entry.add(name, descriptor, of_parts=of_parts)
            self.complete()

    def complete(self) -> None:
        """Mark the entry as complete: one that is not may be removed with all that is in it; errors are logged."""
        with self._completing:  # who comes second waits: this process may end as soon as it thinks that all is cached
            entry = None if self._complete else self._opened()
            if entry is not None and not self._complete:
                entry.complete({"about": self._about | {"created_ns": time.time_ns()}})
                self._complete = True

    def open_cached(self, name: str) -> int | None:
        """Return the descriptor of the cached file *name*, None if there is none; the caller closes it."""
        entry = self._opened()
        return None if entry is None else entry.open_cached(name)

    def name_of(self, descriptor: int) -> str | None:
        """Return the name of the cached file that is open as *descriptor*, None if the entry does not have it."""
        entry = self._opened()
        return None if entry is None else entry.name_of(descriptor)

    def drop(self, name: str, why: str) -> None:
        """Remove the cached file *name*."""
        entry = self._opened()
        if entry is not None:
            entry.drop(name, why)

    def open_blob(self) -> int | None:
        """Return the descriptor of the cached blob, None if it is not cached; the caller closes it."""
        return self.open_cached(BLOB)

    def add_blob(self, descriptor: int) -> None:
        """Cache the file *descriptor* as the blob."""
        self.add(BLOB, descriptor)

    def own_part(self) -> Part | None:
        """Return a file in which the blob arrives; None if there are too many, or the whole blob.  Raises OSError."""
        entry = self._opened()
        return None if entry is None else own_part(entry, self._size)

    def copies(self, own: int) -> Copies:
        """Return what other mounts have of the blob; *own* is the descriptor of the file of this one."""
        return Copies(self._opened, own)

    def add_part(self, descriptor: int) -> None:
        """Cache the file of `own_part`, or one of this process alone, as the blob: it is complete and verified."""
        self._add(BLOB, descriptor, of_parts=True)

    def others_part(self) -> OthersPart | None:
        """Return the file in which somebody else receives the whole blob; None if nobody does.  Raises OSError."""
        entry = self._opened()
        return None if entry is None else others_part(entry)

    def document(self) -> bytes | None:
        """Return the cached blob, a document whose digest is right, None if it is not cached."""
        descriptor = self.open_blob()
        if descriptor is None:
            return None
        with open(descriptor, "rb") as file:
            data = file.read(documents.DOCUMENT_LIMIT + 1)
        if Digest.of([data], self._digest.algorithm) == self._digest:
            return data
        self.drop(BLOB, "its digest is wrong")
        return None

    def add_document(self, data: bytes) -> None:
        """Cache *data* as the blob, and stop using the entry; errors are logged."""
        with contextlib.suppress(NoSpace, OSError):
            if self.room(len(data)):
                descriptor = self.new_file()
                try:
                    with open(descriptor, "wb", closefd=False) as file:
                        file.write(data)
                    self.add_blob(descriptor)
                finally:
                    os.close(descriptor)
        self.close()

    def close(self) -> None:
        """Stop using the entry; the next access opens it again."""
        with self._lock:
            if self._entry is not None:
                self._entry.close()
            self._entry = None

    def __del__(self) -> None:
        """Stop using the entry: nobody refers to its files any more."""
        self.close()

    def _opened(self) -> CacheEntry | None:
        with self._lock:
            if self._entry is None:
                try:
                    self._entry, facts = self._cache.shared(BLOBS, self._key)
                    self._complete = facts is not None
                except OSError as error:
                    log.warning("cannot cache the blob %s: %s", self._digest, error.strerror)
            return self._entry


class TagMemo:
    """The digest that a tag had when it was last asked for."""

    def __init__(self, cache: Cache, name: str) -> None:
        """*name* is the name of the image with its tag."""
        self._cache = cache
        self._name = name
        self._key = hashlib.sha256(name.encode()).hexdigest()
        self.held = HeldEntry(cache, TAGS, self._key)

    def digest(self) -> Digest | None:
        """Return the digest, None if the tag was never asked for."""
        entry, facts = self._entry()
        if entry is not None:
            entry.close()
        return None if facts is None else Digest.parse(facts["about"]["id"])

    def remember(self, digest: Digest) -> None:
        """Remember *digest*; errors are logged."""
        entry, _ = self._entry()
        if entry is not None:
            entry.replace({"about": {"names": [self._name], "id": str(digest), "created_ns": time.time_ns()}})
            entry.close()

    def _entry(self) -> tuple[CacheEntry | None, Facts | None]:
        try:
            return self._cache.shared(TAGS, self._key)
        except OSError as error:
            log.warning("cannot cache %s: %s", printable(self._name), error.strerror)
            return None, None
