"""The manifests of an OCI image layout that an image can be made of, and the choice of one of them.

Format: OCI image specification 1.1, "Image Layout", "Image Index".  Docker's media types count as OCI's.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fusefs.errors import ImgfsError, InvalidImage, Unavailable
from fusefs.image.model import Document
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor, Manifest
from fusefs.oci.platform import Platform, suitability
from fusefs.oci.reference import same_image, tagged
from fusefs.sources.archive.blobs import Blobs, document, is_stored, stored_document
from fusefs.text import printable

log = logging.getLogger(__name__)

_MAX_NESTING = 8
"""Maximum number of indexes on the way to a manifest."""
_NO_MANIFEST = "vnd.docker.reference.type"
"""Annotation of a manifest that belongs to an image, for example an attestation."""


class Candidate(NamedTuple):
    """A manifest of an image, and the indexes on the way to it."""

    manifest: Descriptor
    platform: Platform | None
    """From its descriptor or its config; None if neither states it."""
    way: tuple[Document, ...]
    stored: bool
    """Its manifest is stored."""
    entry: Descriptor
    """The descriptor in ``index.json`` through which it was found."""

    @property
    def name(self) -> str:
        """Its name; it may be empty."""
        return name_of(self.entry)

    @property
    def shown(self) -> str:
        """Its name, or its digest, with its platform, for messages."""
        return printable(f"{self.name or self.manifest.digest}{self._on}")

    @property
    def shown_with_digest(self) -> str:
        """The same with its digest in any case, if its name does not tell it from others."""
        return printable(" ".join(filter(None, (self.name, str(self.manifest.digest)))) + self._on)

    @property
    def _on(self) -> str:
        return f" ({self.platform})" if self.platform else ""


def name_of(entry: Descriptor) -> str:
    """Return the name of *entry*, a descriptor in ``index.json``; it may be empty."""
    # Engines write their full name here, and only the tag as the layout's name.
    return entry.annotations.get("io.containerd.image.name", "") or entry.ref_name


def pick(blobs: Blobs, entries: Sequence[Descriptor], choice: str | int | None, platform: Platform | None) -> Candidate:
    """Return the manifest below *entries* of ``index.json`` that *choice* and *platform* pick.

    *choice* is a name, a digest or an index into *entries*.  Unavailable lists the choices.
    """
    found = _chosen(blobs, entries, choice)
    if not found and choice is not None:
        asked = f"@{choice}" if isinstance(choice, int) else printable(choice)
        raise Unavailable(f"{blobs.name} has no image {asked}; {_listed(candidates(blobs, entries))}")
    if _entries(found) > 1:
        found = _without_companions(blobs, found)
    if _entries(found) > 1:
        names = {candidate.name for candidate in found}
        # Of several under one name the first counts (OCI, "Image Layout", on index.json); under none nothing decides.
        if (choice is None and len(names) > 1) or ((len(names) > 1 or not found[0].name) and _ambiguous(found)):
            raise Unavailable(f"{blobs.name} holds several images; choose one with its name: {_listed(found)}")
    return choose(blobs, found, platform)


def _chosen(blobs: Blobs, entries: Sequence[Descriptor], choice: str | int | None) -> list[Candidate]:
    """Return the candidates that *choice* leaves, all for None."""
    match choice:
        case None:
            return list(candidates(blobs, entries))
        case int():
            return list(candidates(blobs, entries[choice : choice + 1], everything=True))
    named = [entry for entry in entries if choice in (entry.ref_name, name_of(entry), str(entry.digest))]
    named = named or [entry for entry in entries if tagged(choice) == tagged(name_of(entry))]
    named = named or [entry for entry in entries if same_image(choice, name_of(entry))]
    if named:
        return list(candidates(blobs, named, everything=choice in map(str, (entry.digest for entry in named))))
    try:
        below = entry_of(blobs, Digest.parse(choice))
    except (ValueError, ImgfsError):  # not a digest; or that of a blob that is no manifest
        return []
    return list(candidates(blobs, [below], everything=True)) if below else []


def _without_companions(blobs: Blobs, found: list[Candidate]) -> list[Candidate]:
    """Return *found* without nameless artifacts, as SBOMs and signatures, if there is an image among them."""
    images = [candidate for candidate in found if candidate.name or _runs(blobs, candidate)]
    return images if any(_runs(blobs, candidate) for candidate in images) else found


def _entries(found: Iterable[Candidate]) -> int:
    """Return the number of different entries of ``index.json``: one image under two names counts once."""
    return len({candidate.entry.digest for candidate in found})


def _ambiguous(found: Iterable[Candidate]) -> bool:
    """Return whether different descriptors in ``index.json`` are for one platform."""
    entries: dict[Platform | None, Digest] = {}
    for candidate in found:
        platform = candidate.platform and candidate.platform.normalized
        if entries.setdefault(platform, candidate.entry.digest) != candidate.entry.digest:
            return True
    return False


def top_entries(blobs: Blobs) -> list[Descriptor]:
    """Return the descriptors in ``index.json``."""
    data = blobs.data("index.json")
    if data is None:
        raise InvalidImage(f"{blobs.name}: not an OCI image layout: index.json is missing")
    return [_typed(blobs, entry) for entry in documents.parse_index(data, f"{blobs.name}: index.json").manifests]


def _typed(blobs: Blobs, found: Descriptor) -> Descriptor:
    """Return *found* with a media type: without one, the stored manifest or index states what it is."""
    stored = None if found.media_type else stored_document(blobs, found, "the manifest")
    if stored is None:
        return found
    return found._replace(media_type=documents.media_type_of(stored.content.data, f"{blobs.name}: {found.digest}"))


def entry_of(blobs: Blobs, digest: Digest) -> Descriptor | None:
    """Return a descriptor of the stored manifest or index with this *digest*, None without one."""
    data = blobs.data("blobs", digest.algorithm, digest.encoded)
    media_type = data and documents.media_type_of(data, f"{blobs.name}: {digest}")
    return Descriptor(media_type, len(data), digest) if data and media_type else None


def candidates(blobs: Blobs, entries: Iterable[Descriptor], *, everything: bool = False) -> Iterator[Candidate]:
    """Yield the manifests below *entries*, in order, without attestations unless *everything* is asked for.

    An index that is not stored yields nothing: a pull of one platform may leave out the others.
    """
    for entry in entries:
        if everything and entry.media_type not in documents.INDEXES:
            yield _candidate(blobs, entry, entry, ())
        else:
            yield from _below(blobs, entry, entry, (), set())


def _candidate(blobs: Blobs, found: Descriptor, entry: Descriptor, way: tuple[Document, ...]) -> Candidate:
    return Candidate(found, found.platform or _stored_platform(blobs, found), way, is_stored(blobs, found), entry)


def _below(
    blobs: Blobs, found: Descriptor, entry: Descriptor, way: tuple[Document, ...], seen: set[tuple[Digest, str]]
) -> Iterator[Candidate]:
    if _NO_MANIFEST in found.annotations or (found.platform is not None and not found.platform.known):
        return
    if (found.digest, str(found.platform)) in seen:  # each index is walked once
        return
    seen.add((found.digest, str(found.platform)))
    if found.media_type not in documents.INDEXES:
        # An unknown media type in a nested index is to be ignored; in index.json it is an error with its name.
        if not way or found.media_type in documents.MANIFESTS:
            yield _candidate(blobs, found, entry, way)
        return
    if len(way) >= _MAX_NESTING:
        raise InvalidImage(f"{blobs.name}: the index {found.digest} is nested more than {_MAX_NESTING} deep")
    index = stored_document(blobs, found, "the index")
    if index is None:
        log.warning("%s: the index %s is not stored", blobs.name, found.digest)
        return
    for below in documents.parse_index(index.content.data, f"{blobs.name}: the index {found.digest}").manifests:
        yield from _below(blobs, _typed(blobs, below), entry, (*way, index), seen)


def _stored_platform(blobs: Blobs, found: Descriptor) -> Platform | None:
    """Return the platform that the config of a manifest states, None if it cannot be read."""
    try:
        manifest = documents.parse_manifest(document(blobs, found, "").content.data, "")
        if manifest.config.media_type in documents.IMAGE_CONFIGS:
            stated = documents.parse_image_config(document(blobs, manifest.config, "").content.data, "").platform
            return stated if str(stated) else None
    except ImgfsError:  # reported if this manifest is chosen
        pass
    return None


def choose(blobs: Blobs, found: Iterable[Candidate], wanted: Platform | None) -> Candidate:
    """Return the candidate that suits the *wanted* platform best; default: this machine's.

    A single candidate suits if no platform is asked for.  One that no machine runs, as an artifact, is only returned
    if no other suits.  Unavailable lists the choices.
    """
    found = list(found)
    if not found:
        raise InvalidImage(f"{blobs.name} holds no image")
    if wanted is None:  # an engine may have pulled one platform only
        found = [candidate for candidate in found if candidate.stored] or found
    if len({candidate.manifest.digest for candidate in found}) == 1 and wanted is None:
        return found[0]
    target = wanted or Platform.of_host()
    ranked = []
    for number, candidate in enumerate(found):
        platform = candidate.platform
        rank = None if platform is None else suitability(platform, target, exact=wanted is not None)
        if rank is not None:
            ranked.append((not _runs(blobs, candidate), rank, number))
    if not ranked:
        raise Unavailable(f"{blobs.name} has no image for {target}; {_listed(found)}")
    return found[min(ranked)[-1]]


def _runs(blobs: Blobs, candidate: Candidate) -> bool:
    """Return whether a manifest is of an image that a machine can run; one that is not stored may be.

    Not so artifacts as SBOMs and SOCI indexes, and images that need a feature, as those of nydus.
    """
    needs = candidate.platform is not None and candidate.platform.os == "linux" and candidate.platform.os_features
    if needs or candidate.manifest.artifact_type:
        return False
    try:
        manifest = _manifest(blobs, candidate.manifest)
    except ImgfsError:  # reported if this manifest is chosen
        return True
    if manifest is None:
        return True
    is_image = manifest.config.media_type in documents.IMAGE_CONFIGS and not manifest.artifact_type
    return is_image and all(layer.media_type in documents.LAYERS for layer in manifest.layers)


def _manifest(blobs: Blobs, descriptor: Descriptor) -> Manifest | None:
    stored = stored_document(blobs, descriptor, "the manifest")
    return None if stored is None else documents.parse_manifest(stored.content.data, blobs.name)


def _listed(found: Iterable[Candidate]) -> str:
    found = list(found)
    shown = [candidate.shown for candidate in found]
    texts = [
        candidate.shown_with_digest if shown.count(text) > 1 else text
        for candidate, text in zip(found, shown, strict=True)
    ]
    return "there are " + ("; ".join(dict.fromkeys(texts)) or "none")
