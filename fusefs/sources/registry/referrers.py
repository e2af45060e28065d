"""The artifacts that refer to an image: signatures, SBOMs and attestations, as a registry lists them.

OCI distribution specification 1.1, "Listing Referrers", with its fallback tag for registries without such lists, and
the tags of cosign 1 and 2.  Nothing is trusted, and nothing is decided: the registry may list anything.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice

from fusefs.errors import ImgfsError, RegistryError
from fusefs.image.attestations import MAX_TYPE, attestations
from fusefs.image.model import Image, Referrer, Referrers
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.sources.registry.repository import Missing
from fusefs.sources.registry.transfer import Transfers

_MAX_PAGES = 16
MAX_LISTED = 1000
"""Referrers that are listed, of one image."""
_TOO_MANY = f"there are more than {MAX_LISTED}"
_TOO_SLOW = "the registry takes more than {:g} s to list them"
_COSIGN = ("sig", "att", "sbom")
"""Endings of cosign's tags."""
_AT_ONCE = 6
"""Requests at the same time: as many as a host gets.  So a fallback tag is asked for without waiting for the others."""
_PATIENCE = 5.0
"""Seconds that each request may take, and after which no further one is begun: nobody has asked for the list alone."""


def referrers_of(image: Image, transfers: Transfers) -> Referrers:
    """Return what refers to *image*: to its manifest, or to the first index on the way to it, which has the tag.

    For each of these there are four requests, the lists first, one more for the fallback tag, and one a further page.
    Without further pages, that is two requests one after the other.  What fails, or takes 10 s, is a flaw.  Mirrors
    are not asked: only the registry knows that there are no others.
    """
    asking = _Asking(transfers)
    manifest = image.manifest.descriptor.digest
    subjects = dict.fromkeys([document.descriptor.digest for document in image.documents[:1]] + [manifest])
    requests = [partial(asking.listed, subject) for subject in subjects]
    requests += [partial(asking.tagged, f"{_tag(subject)}.{end}", subject) for subject in subjects for end in _COSIGN]
    answers = _within(2 * _PATIENCE, requests)
    by_digest: dict[Digest, Referrer] = {}
    for referrer in chain(attestations(image), *(answer.found for answer in answers)):
        by_digest.setdefault(referrer.digest, referrer)
    flaws = [answer.flaw for answer in answers if answer.flaw]
    flaws += [_TOO_SLOW.format(2 * _PATIENCE)] if len(answers) < len(requests) else []
    flaws += [_TOO_MANY] if len(by_digest) > MAX_LISTED else []
    return Referrers((*by_digest.values(),)[:MAX_LISTED], flaws[0] if flaws else "")


def _within(seconds: float, requests: Sequence[Callable[[], Referrers]]) -> list[Referrers]:
    """Return the results of *requests*, begun in this order, six at the same time, that are there within *seconds*.

    This thread does none, unless there can be no other: each request has a time of its own.
    """
    waiting = deque(enumerate(requests))
    ended = queue.SimpleQueue[tuple[int, Referrers | Exception]]()

    def work() -> None:
        with suppress(IndexError):
            while True:
                number, request = waiting.popleft()
                try:
                    ended.put((number, request()))
                except Exception as error:  # noqa: BLE001 - raised below
                    ended.put((number, error))

    threads = []
    with suppress(RuntimeError):  # as many threads as this user may have: then slower
        for _ in range(_AT_ONCE):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            threads.append(thread)
    if not threads:
        work()
    deadline = time.monotonic() + seconds
    results: dict[int, Referrers] = {}
    with suppress(queue.Empty):
        for _ in requests:
            number, result = ended.get(timeout=max(0.0, deadline - time.monotonic()))
            if isinstance(result, Exception):
                raise result
            results[number] = result
    return [results[number] for number in sorted(results)]


class _Asking:
    """The requests for one image.  Safe under concurrency: no attribute changes."""

    def __init__(self, transfers: Transfers) -> None:
        """Ask by *transfers*."""
        self._transfers = transfers.to_registry(_PATIENCE)
        self._deadline = time.monotonic() + _PATIENCE

    def listed(self, subject: Digest) -> Referrers:
        """Return the registry's list, or that of the fallback tag if the registry has none."""
        found: list[Referrer] = []
        try:
            self._read_list(subject, found)
        except ImgfsError as error:
            return Referrers((*found,), str(error))
        return Referrers((*found,))

    def tagged(self, tag: str, subject: Digest) -> Referrers:
        """Return the artifact under a tag of cosign, nothing without one."""
        try:
            data, digest = self._manifest(tag)
            return Referrers((Referrer(digest, _type_of(data, tag)[:MAX_TYPE], len(data), subject),))
        except Missing:
            return Referrers(())
        except ImgfsError as error:
            return Referrers((), str(error))

    def _read_list(self, subject: Digest, found: list[Referrer]) -> None:
        """Add what the list has to *found*.  After an error there may be more."""
        pages = self._pages(subject)
        try:
            first = next(pages)
        except Missing:
            with suppress(Missing):
                _add_listed(found, self._manifest(_tag(subject))[0], _tag(subject), subject)
            return  # `referrers_of` says if these are too many
        fault: ImgfsError | None = None
        for data in chain([first], pages):
            try:
                _add_listed(found, data, f"referrers of {subject}", subject)
            except ImgfsError as error:
                fault = fault or error
            if len(found) > MAX_LISTED:
                raise RegistryError(_TOO_MANY)
        if fault is not None:
            raise fault

    def _pages(self, subject: Digest) -> Iterator[bytes]:
        query, asked = "", set[str]()
        while query not in asked and len(asked) < _MAX_PAGES:
            asked.add(query)
            self._check_time()
            data, following = self._transfers.ask(
                lambda repository, retries, query=query: repository.referrers(subject, query, retries)  # type: ignore[misc]
            )
            yield data
            if following is None:
                raise RegistryError("the registry's list continues at another place")
            if not following:
                return
            query = following
        raise RegistryError(f"the registry's list has more than {_MAX_PAGES} pages")

    def _manifest(self, tag: str) -> tuple[bytes, Digest]:
        self._check_time()
        found = self._transfers.manifest(tag, None)
        return found.data, found.digest or Digest.of([found.data])

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise RegistryError(_TOO_SLOW.format(_PATIENCE))


def _add_listed(listed: list[Referrer], data: bytes, where: str, subject: Digest) -> None:
    """Add the manifests of an index to *listed*; InvalidImage if one has a fault, once the others are there."""
    for found in islice(documents.readable_manifests(data, where), MAX_LISTED + 1):
        kind = (found.artifact_type or found.media_type)[:MAX_TYPE]
        listed.append(Referrer(found.digest, kind, found.size, subject))


def _tag(subject: Digest) -> str:
    """Return the fallback tag, with which also cosign's begin."""
    return f"{subject.algorithm[:32]}-{subject.encoded[:64]}"


def _type_of(data: bytes, where: str) -> str:
    """Return the type of the artifact with the manifest *data*: cosign's have an image config, but typed layers."""
    stated = documents.media_type_of(data, where)
    if stated not in documents.MANIFESTS:
        return stated
    manifest = documents.parse_manifest(data, where)
    types = [manifest.artifact_type, manifest.config.media_type, *(layer.media_type for layer in manifest.layers)]
    untold = {"", documents.OCI_EMPTY, *documents.IMAGE_CONFIGS}
    return next((found for found in types if found not in untold), stated)
