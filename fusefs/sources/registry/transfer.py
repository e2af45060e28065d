"""Transfers from the places of a repository: mirrors first, attempts within the timeout, every digest checked."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TypeVar

from fusefs.content import patience
from fusefs.content.pieces import Take
from fusefs.content.spool import megabytes
from fusefs.errors import BlobError, DigestMismatch, ImgfsError, InvalidImage, RegistryError, Unavailable, UsageError
from fusefs.log import logger
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.oci.untrusted_json import has_field, parse_object
from fusefs.ranges import Range
from fusefs.sources.registry.lanes import Lane, lanes_of
from fusefs.sources.registry.repository import Found, Repository
from fusefs.sources.servers.connections import ConnectionFailed
from fusefs.sources.servers.retries import Retries, Transient
from fusefs.text import printable

log = logger(__name__)

_T = TypeVar("_T")

_LEAST_TIME = 1.0
"""Seconds for a request of a read that has waited for others."""
_MAX_BODIES = 2
"""How often a registry that ignores ranges may send a blob in one transfer."""
_TINY, _MAX_TINY = 4096, 64
"""How many answers of fewer bytes a transfer may take."""
_PAGE = "text/html"
"""A media type that no manifest has, whoever sends it."""
_FIELDS = ("schemaVersion", "mediaType", "manifests", "layers")
"""Fields of which each manifest and index has at least one."""
_MAX_TYPE = 100
"""Characters of a media type in a message."""
_OF_PLACE = (RegistryError, Unavailable, InvalidImage, DigestMismatch)
"""Errors after which another place may have the same image."""


class Transfers:
    """The requests to all places of one repository.  Safe under concurrency."""

    def __init__(self, repositories: Sequence[Repository], timeout: float | None, *, insists: bool = True) -> None:
        """Give up after *timeout* seconds without progress, None and *insists*: see `Retries`."""
        self._repositories = repositories
        self._timeout = timeout
        self._insists = insists
        self._lanes = lanes_of(repositories[-1].place.host)
        self.waiting = 0
        """How many threads wait for a part of a blob, guarded by `_counting`."""
        self._counting = threading.Lock()

    @property
    def failing(self) -> str:
        """Why the last attempt at the registry failed, empty if it did not: attempts may go on for a long time."""
        return self._repositories[-1].availability.failing

    def to_registry(self, seconds: float) -> "Transfers":
        """Return the requests to the registry alone, for what is not vital: each in *seconds*, with few attempts."""
        timeout = seconds if self._timeout is None else min(seconds, self._timeout)
        return Transfers(self._repositories[-1:], timeout, insists=False)

    def manifest(self, reference: str, digest: Digest | None) -> Found:
        """Return the manifest or index *reference*, which has the *digest*, if that is known.

        Raises Unavailable, RegistryError, InvalidImage or DigestMismatch, as all methods do.
        """
        return self._found(lambda repository, retries: repository.manifest(reference, retries), reference, digest)

    def current(self, reference: str, *, trusts_head: bool = False) -> Found:
        """Return what *reference* is now, if possible by HEAD: then without the data.  See `Repository.current`."""
        return self._found(
            lambda repository, retries: repository.current(reference, retries, trusts_head=trusts_head), reference, None
        )

    def _found(self, request: Callable[[Repository, Retries], Found], reference: str, digest: Digest | None) -> Found:
        def attempt(repository: Repository, retries: Retries) -> Found:
            found = request(repository, retries)
            stated = digest or found.digest
            if found.data:
                if found.media_type == _PAGE:
                    _check_form(repository, found, reference)
                if stated is not None:
                    _check(repository, f"the manifest {reference}", Digest.of([found.data], stated.algorithm), stated)
                if digest is None:  # after its digest: it may be damaged
                    _check_form(repository, found, reference)
            return found

        return self._asked(attempt)

    def ask(self, request: Callable[[Repository, Retries], _T]) -> _T:
        """Return the result of *request* at the first place that gives one."""
        return self._asked(request)

    def blob(self, blob: Descriptor, wanted: Range, take: Take, *, again: int = 0) -> RegistryError | None:
        """Give the bytes *wanted* of a blob to *take* as they arrive; their digest is not checked.

        All bytes of the blob from 0 on, if the registry ignores ranges.  *again*: how often they proved wrong.  Then
        the registry is asked first, the second time alone.  Returns its error if a mirror sent them instead.
        Raises the exceptions of *take*, too.
        """
        *mirrors, registry = self._repositories
        receive, spent = _Part(blob, wanted, take).receive, self._spent()
        with (
            self._counted(),
            self._lanes.lane(self._timeout, wanted[1] - wanted[0], whole=wanted == (0, blob.size)) as lane,
        ):
            retries = self._retries(lane, spent)
            patience.progressed(time.monotonic() - lane.silence - spent)  # the host worked, for others
            if not (mirrors and again):
                _from_places(self._repositories, retries, receive, blob.digest)
                return None
            retries.begin_place(is_last=again > 1, is_best=True)
            try:
                _tried(registry, retries, receive, blob.digest)
            except (*_OF_PLACE, UsageError) as error:
                if again > 1:
                    raise
                _pass_over(registry, error)
                _from_places(mirrors, retries, receive, blob.digest)
                return RegistryError(str(error)) if isinstance(error, (RegistryError, UsageError)) else None
            return None

    def check(self, blob: Digest) -> None:
        """Raise RegistryError if no place would be asked for *blob* now: the registry and all mirrors just failed."""
        *mirrors, registry = self._repositories
        for number, mirror in enumerate(mirrors, 1):
            with suppress(RegistryError):
                mirror.availability.check(blob, instead=[place.availability for place in self._repositories[number:]])
                return
        registry.availability.check(blob)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._counting:
            self.waiting += 1
        try:
            yield
        finally:
            with self._counting:
                self.waiting -= 1

    def _asked(self, request: Callable[[Repository, Retries], _T]) -> _T:
        with self._lanes.lane(self._timeout) as lane:
            return _from_places(self._repositories, self._retries(lane), request)

    def _retries(self, lane: Lane, spent: float = 0.0) -> Retries:
        """Return the attempts of one transfer, for a read that has *spent* so many seconds before."""
        return Retries(
            self._timeout,
            sleep=lane.sleep,
            waited=lane.silence + spent,
            heard=self._lanes.progressed,
            insists=self._insists,
        )

    def _spent(self) -> float:
        """Return what a read has spent of the timeout before this transfer, for which some is left in any case."""
        return 0.0 if self._timeout is None else max(0.0, min(patience.waited(), self._timeout - _LEAST_TIME))


def _from_places(
    places: Sequence[Repository],
    retries: Retries,
    request: Callable[[Repository, Retries], _T],
    blob: Digest | None = None,
) -> _T:
    """Return the result of *request*, which is for a *blob* if it is given, at the first place that gives one."""
    *others, last = places
    for number, place in enumerate(others, 1):
        retries.begin_place(is_last=False)
        try:
            return _tried(place, retries, request, blob, instead=places[number:])
        except (*_OF_PLACE, UsageError) as error:
            _pass_over(place, error)
    retries.begin_place(is_last=True)
    try:
        return _tried(last, retries, request, blob)
    except DigestMismatch as error:  # damaged on the way, perhaps
        log.info("%s; asking once more", error)
    return _tried(last, retries, request, blob)


def _pass_over(place: Repository, error: ImgfsError) -> None:
    """Take note that the next place is asked, since *place* failed with *error*."""
    if isinstance(error, UsageError):  # the next place needs neither the helper nor the certificates of this one
        log.warning("the registry %s: %s; asking the next place", place.place.shown, error)
        place.availability.failed(RegistryError(str(error)))  # else each request warns
    else:
        log.info("%s; asking the next place", error)


def _tried(
    repository: Repository,
    retries: Retries,
    request: Callable[[Repository, Retries], _T],
    blob: Digest | None,
    *,
    instead: Sequence[Repository] = (),
) -> _T:
    """Return the result of *request*, attempted as long as *retries* allow; a host that just failed is not asked.

    *instead* are the places that are asked after this one.
    """
    availability = repository.availability
    availability.check(blob, instead=[place.availability for place in instead])
    while True:
        try:
            result = request(repository, retries)
        except Transient as failure:
            repository.attempt_failed(str(failure))
            try:
                retries.wait(failure)
            except Unavailable:
                availability.answered()
                availability.refused()
                raise
            except RegistryError as error:
                if failure.once:
                    availability.answered()
                    availability.refused()
                    raise BlobError(str(error)) from None
                if not retries.starved:
                    availability.failed(error, blob)
                raise
        except (Unavailable, InvalidImage, DigestMismatch):
            availability.answered()
            availability.refused()
            raise
        except RegistryError as error:  # another attempt would not help; the host may answer requests for others
            availability.refused()
            raise BlobError(str(error)) from None
        else:
            availability.succeeded(blob)
            return result


def _check_form(repository: Repository, found: Found, reference: str) -> None:
    """Raise RegistryError if *found* cannot be a manifest or an index: a proxy or a portal may send its own page."""
    with suppress(InvalidImage):
        document = parse_object(found.data, reference, "a manifest")
        if any(has_field(document, name) for name in _FIELDS):
            return
    is_stated = not found.media_type or found.media_type in documents.MANIFESTS | documents.INDEXES
    sent = "other data" if is_stated else printable(found.media_type[:_MAX_TYPE])
    place = repository.place
    colon = "@" if ":" in reference else ":"
    named = printable(f"{place.repository}{colon}{reference}")
    raise RegistryError(f"the registry {place.shown} sends {sent}, not a manifest, for {named}")


def _check(repository: Repository, what: str, actual: Digest, stated: Digest) -> None:
    if actual != stated:
        raise DigestMismatch(
            f"{repository.place.shown}: {what} of {repository.place.repository} has the digest {actual}, not {stated}"
        )


class _Part:
    """A part of a blob that arrives in one answer or, after a broken one, in several."""

    def __init__(self, blob: Descriptor, wanted: Range, take: Take) -> None:
        self._blob = blob
        self._position, self._end = wanted
        self._take = take
        self._place: Repository | None = None
        """The place whose answers are counted."""
        self._bodies = 0
        """Answers that began at 0, with bytes or although others were asked for."""
        self._tiny = 0
        """Answers that ended after a few bytes."""

    def receive(self, repository: Repository, retries: Retries) -> None:
        """Receive the bytes that are missing; Transient if not all of them arrive."""
        if self._position >= self._end:
            return
        if self._place is not repository:
            self._place, self._bodies, self._tiny = repository, 0, 0
        shown = f"{repository.place.shown}: the blob {self._blob.digest}"
        if self._tiny > _MAX_TINY:
            raise RegistryError(f"{shown} breaks off, again and again after a few bytes")
        answer, offset = repository.blob(self._blob, (self._position, self._end), retries)
        began, ignores_range = offset, offset < self._position
        with closing(answer):
            self._bodies += ignores_range
            if self._bodies > _MAX_BODIES:  # the traffic would grow with the square of the size
                raise RegistryError(f"{shown} breaks off, and the registry ignores Range")
            ends = self._end if offset else self._blob.size
            try:
                for piece in answer.pieces():
                    retries.progressed()
                    repository.availability.answered()
                    self._bodies += offset == 0 and not ignores_range
                    if offset + len(piece) > ends:
                        raise InvalidImage(
                            f"{shown} has more than the {self._blob.size} bytes that the manifest states"
                        )
                    self._take(offset, piece)
                    offset += len(piece)
                    self._position = max(self._position, offset)
            except ConnectionFailed as error:
                raise repository.broken(error) from None
            finally:
                self._tiny += 0 < offset - began < _TINY
        if self._position < self._end:
            raise Transient(f"{shown} breaks off after {megabytes(self._position)} of {megabytes(self._end)}")
