"""The artifacts that refer to an image: signatures, SBOMs and attestations, as a registry lists them.

OCI distribution specification 1.1, "Listing Referrers", with its fallback tag for registries without such lists, and
the tags of cosign 1 and 2.  Nothing is trusted, and nothing is decided: the registry may list anything.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice

from fusefs.image.model import Image, Referrer
from fusefs.log import logger
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.sources.registry.repository import Missing
from fusefs.sources.registry.transfer import Transfers

log = logger(__name__)

_MAX_PAGES = 16
MAX_LISTED = 1000
"""Referrers that are listed, of one image."""
_COSIGN = ("sig", "att", "sbom")
"""Endings of cosign's tags."""
_MAX_TYPE = 255
"""Characters of a type that are shown; RFC 6838 has the same bound."""
_AT_ONCE = 4
_SUBJECT, _KIND = "vnd.docker.reference.digest", "vnd.docker.reference.type"
"""Annotations with which BuildKit binds an attestation in an index to the image beside it."""


def referrers_of(image: Image, transfers: Transfers) -> tuple[Referrer, ...]:
    """Return what refers to *image*: to its manifest, or to the first index on the way to it, which has the tag.

    For each of these there are four requests at the same time, one more for the fallback tag, and one a further page.
    Raises RegistryError, Unavailable or InvalidImage.
    """
    manifest = image.manifest.descriptor.digest
    subjects = dict.fromkeys([document.descriptor.digest for document in image.documents[:1]] + [manifest])
    requests = [partial(_listed, subject, transfers) for subject in subjects]
    requests += [
        partial(_tagged, f"{_tag(subject)}.{end}", subject, transfers) for subject in subjects for end in _COSIGN
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = chain(_embedded(image), *pool.map(lambda request: request(), requests))
    by_digest = {referrer.digest: referrer for referrer in reversed([*found])}
    listed = [*reversed(by_digest.values())]
    if len(listed) > MAX_LISTED:
        log.warning("%d artifacts refer to it; the first %d are listed", len(listed), MAX_LISTED)
    return tuple(listed[:MAX_LISTED])


def _embedded(image: Image) -> Iterator[Referrer]:
    """Yield the attestations that BuildKit put beside the image into its index."""
    for document in image.documents:
        if document.descriptor.media_type in documents.INDEXES:
            for found in documents.parse_index(document.content.data, image.name).manifests:
                if found.annotations.get(_SUBJECT) == str(image.manifest.descriptor.digest):
                    kind = found.artifact_type or found.annotations.get(_KIND, found.media_type)
                    yield Referrer(found.digest, kind[:_MAX_TYPE], found.size, image.manifest.descriptor.digest)


def _listed(subject: Digest, transfers: Transfers) -> list[Referrer]:
    """Return the registry's list, or that of the fallback tag if the registry has none."""
    try:
        return [*islice(_pages(subject, transfers), MAX_LISTED + 1)]
    except Missing:
        pass
    try:
        tag = _tag(subject)
        return [*islice(_in_index(transfers.manifest(tag, None).data, tag, subject), MAX_LISTED + 1)]
    except Missing:
        return []


def _pages(subject: Digest, transfers: Transfers) -> Iterator[Referrer]:
    query = ""
    for _ in range(_MAX_PAGES):
        data, query = transfers.ask(
            lambda repository, retries, query=query: repository.referrers(subject, query, retries)  # type: ignore[misc]
        )
        yield from _in_index(data, f"referrers of {subject}", subject)
        if not query:
            return
    log.warning("the registry's list of referrers has more than %d pages; the others are left out", _MAX_PAGES)


def _in_index(data: bytes, where: str, subject: Digest) -> Iterator[Referrer]:
    for found in documents.parse_index(data, where).manifests:
        yield Referrer(found.digest, (found.artifact_type or found.media_type)[:_MAX_TYPE], found.size, subject)


def _tag(subject: Digest) -> str:
    """Return the fallback tag, with which also cosign's begin."""
    return f"{subject.algorithm[:32]}-{subject.encoded[:64]}"


def _tagged(tag: str, subject: Digest, transfers: Transfers) -> list[Referrer]:
    """Return the artifact under a tag of cosign, an empty list without one."""
    try:
        found = transfers.manifest(tag, None)
    except Missing:
        return []
    digest = found.digest or Digest.of([found.data])
    return [Referrer(digest, _type_of(found.data, tag)[:_MAX_TYPE], len(found.data), subject)]


def _type_of(data: bytes, where: str) -> str:
    """Return the type of the artifact with the manifest *data*: cosign's have an image config, but typed layers."""
    stated = documents.media_type_of(data, where)
    if stated not in documents.MANIFESTS:
        return stated
    manifest = documents.parse_manifest(data, where)
    types = [manifest.artifact_type, manifest.config.media_type, *(layer.media_type for layer in manifest.layers)]
    return next((found for found in types if found and found not in documents.IMAGE_CONFIGS), stated)
