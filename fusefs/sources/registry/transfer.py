"""Transfers from the places of a repository: mirrors first, attempts within the timeout, every digest checked."""

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TypeVar

from fusefs.content.file import OpenFile
from fusefs.content.spool import Spool, megabytes
from fusefs.errors import DigestMismatch, InvalidImage, RegistryError, Unavailable
from fusefs.oci.digest import Digest
from fusefs.sources.registry.connections import ConnectionFailed
from fusefs.sources.registry.repository import Found, Repository
from fusefs.sources.registry.retries import Retries, Transient

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_AT_ONCE = 4
"""Blobs that are fetched at the same time."""
_OF_PLACE = (RegistryError, Unavailable, InvalidImage, DigestMismatch)
"""Errors after which another place may have the same image."""


class Transfers:
    """The requests to all places of one repository.  Safe under concurrency."""

    def __init__(self, repositories: Sequence[Repository], timeout: float | None) -> None:
        """Give up after *timeout* seconds without progress, None: see `Retries`."""
        self._repositories = repositories
        self._timeout = timeout
        self._blobs = threading.BoundedSemaphore(_AT_ONCE)

    def manifest(self, reference: str, digest: Digest | None) -> Found:
        """Return the manifest or index *reference*, which has the *digest*, if that is known.

        Raises Unavailable, RegistryError, InvalidImage or DigestMismatch, as all methods do.
        """

        def attempt(repository: Repository) -> Found:
            found = _tried(repository, Retries(self._timeout), lambda retries: repository.manifest(reference, retries))
            stated = digest or found.digest
            if stated is not None:
                _check(repository, f"the manifest {reference}", Digest.of([found.data], stated.algorithm), stated)
            return found

        return self._from_places(attempt)

    def digest_of(self, tag: str) -> Digest | None:
        """Return the digest that *tag* has now, None if no registry states it."""
        return self.ask(lambda repository, retries: repository.digest_of(tag, retries))

    def ask(self, request: Callable[[Repository, Retries], _T]) -> _T:
        """Return the result of *request* at the first place that gives one."""
        return self._from_places(
            lambda repository: _tried(repository, Retries(self._timeout), lambda retries: request(repository, retries))
        )

    def blob(self, digest: Digest, size: int, new_spool: Callable[[], Spool]) -> OpenFile:
        """Return a file with the blob, whose digest was checked.  Raises NoSpace, too."""

        def attempt(repository: Repository) -> OpenFile:
            with new_spool() as spool:
                blob = _Blob(repository, digest, size, spool)
                _tried(repository, Retries(self._timeout), blob.continue_)
                _check(repository, f"the blob {digest}", blob.digest, digest)
                return spool.file

        with self._blobs:
            return self._from_places(attempt)

    def _from_places(self, attempt: Callable[[Repository], _T]) -> _T:
        *mirrors, registry = self._repositories
        for mirror in mirrors:
            try:
                return attempt(mirror)
            except _OF_PLACE as error:
                log.info("%s; asking the next place", error)
        try:
            return attempt(registry)
        except DigestMismatch as error:  # damaged on the way, perhaps
            log.info("%s; asking once more", error)
        return attempt(registry)


def _tried(repository: Repository, retries: Retries, request: Callable[[Retries], _T]) -> _T:
    """Return the result of *request*, attempted as long as *retries* allow; a host that just failed is not asked."""
    repository.check()
    while True:
        try:
            return request(retries)
        except Transient as failure:
            try:
                retries.wait(failure)
            except RegistryError as error:
                repository.failed(error)
                raise


def _check(repository: Repository, what: str, actual: Digest, stated: Digest) -> None:
    if actual != stated:
        raise DigestMismatch(
            f"{repository.place.shown}: {what} of {repository.place.repository} has the digest {actual}, not {stated}"
        )


class _Blob:
    """A blob that arrives in a spool, in one answer or, after a broken one, in several."""

    def __init__(self, repository: Repository, digest: Digest, size: int, spool: Spool) -> None:
        self._repository = repository
        self._digest = digest
        self._size = size
        self._spool = spool
        self._hasher = hashlib.new(digest.algorithm)
        self._was_repeated = False

    @property
    def digest(self) -> Digest:
        """The digest of the bytes so far."""
        return Digest(self._digest.algorithm, self._hasher.hexdigest())

    def continue_(self, retries: Retries) -> None:
        """Receive the bytes that are missing; Transient if not all of them arrive."""
        spool, size = self._spool, self._size
        if spool.written == size:
            return
        answer, begins = self._repository.blob(self._digest, size, spool.written, retries)
        skip = spool.written - begins
        with closing(answer):
            if skip and self._was_repeated:  # else the traffic would grow with the square of the size
                raise RegistryError(f"{self._shown} breaks off, and the registry ignores Range")
            self._was_repeated = self._was_repeated or skip > 0
            try:
                for piece in answer.pieces():
                    retries.progressed()
                    self._receive(piece[skip:])
                    skip = max(0, skip - len(piece))
            except ConnectionFailed as error:
                raise self._repository.broken(error) from None
        if spool.written < size:
            raise Transient(f"{self._shown} breaks off after {megabytes(spool.written)} of {megabytes(size)}")

    def _receive(self, piece: bytes) -> None:
        if self._spool.written + len(piece) > self._size:
            raise InvalidImage(f"{self._shown} has more than the {self._size} bytes that the manifest states")
        self._hasher.update(piece)
        self._spool.write(piece, self._size)

    @property
    def _shown(self) -> str:
        return f"{self._repository.place.shown}: the blob {self._digest}"
