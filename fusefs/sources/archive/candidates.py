"""The manifests of an OCI image layout that an image can be made of, and the choice of one of them.

Format: OCI image specification 1.1, "Image Layout", "Image Index".  Docker's media types count as OCI's.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fusefs.errors import ImgfsError, InvalidImage, Unavailable
from fusefs.log import logger
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.oci.platform import Platform, suitability
from fusefs.oci.reference import same_image, tagged
from fusefs.sources.archive.blobs import Blobs, StoredBlobs
from fusefs.sources.archive.layout import Layout
from fusefs.text import listing, printable

log = logger(__name__)

_MAX_NESTING = 8
"""Maximum number of indexes on the way to a manifest."""
MAX_LISTED = 1 << 16
"""Maximum number of descriptors that are looked at, of all indexes."""
_NO_MANIFEST = "vnd.docker.reference.type"
"""Annotation of a manifest that belongs to an image, for example an attestation."""


class Candidate(NamedTuple):
    """A manifest of an image."""

    manifest: Descriptor
    platform: Platform | None
    """From its descriptor or its config; None if neither states it."""
    way: tuple[Descriptor, ...]
    """The indexes on the way to it."""
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


def pick(
    layout: Layout[Blobs],
    entries: Sequence[Descriptor],
    choice: str | int | None,
    platform: Platform | None,
    choosing: str = "",
) -> Candidate:
    """Return the manifest below *entries* of ``index.json`` that *choice* and *platform* pick.

    *choice* is a name, a digest or an index into *entries*.  Unavailable lists the choices.
    *choosing*: how to name one.
    """
    found = _chosen(layout, entries, choice)
    if not found and choice is not None:
        asked = f"@{choice}" if isinstance(choice, int) else printable(choice)
        raise Unavailable(f"{layout.name} has no image {asked}; {_listed(candidates(layout, entries))}")
    if _entries(found) > 1:
        found = _without_companions(layout, found)
    if _entries(found) > 1:
        names = {candidate.name for candidate in found}
        # Of several under one name the first counts (OCI, "Image Layout", on index.json); under none nothing decides.
        if (choice is None and len(names) > 1) or ((len(names) > 1 or not found[0].name) and _ambiguous(found)):
            choices = dict.fromkeys(candidate.name or str(candidate.manifest.digest) for candidate in found)
            how = f"{printable(choosing)};" if choosing else "its name:"
            why = f"{layout.name} holds several images; choose one with {how} {_listed(found)}"
            raise Unavailable(why).among(choices)
    return choose(layout, found, platform)


def _chosen(layout: Layout[Blobs], entries: Sequence[Descriptor], choice: str | int | None) -> list[Candidate]:
    """Return the candidates that *choice* leaves, all for None."""
    match choice:
        case None:
            return list(candidates(layout, entries))
        case int():
            return list(candidates(layout, entries[choice : choice + 1], everything=True))
    named = [entry for entry in entries if choice in (entry.ref_name, name_of(entry), str(entry.digest))]
    named = named or [entry for entry in entries if tagged(choice) == tagged(name_of(entry))]
    named = named or [entry for entry in entries if same_image(choice, name_of(entry))]
    if named:
        return list(candidates(layout, named, everything=choice in map(str, (entry.digest for entry in named))))
    try:
        below = entry_of(layout, Digest.parse(choice))
    except (ValueError, ImgfsError):  # not a digest; or that of a blob that is no manifest
        return []
    return list(candidates(layout, [below], everything=True)) if below else []


def _without_companions(layout: Layout[StoredBlobs], found: list[Candidate]) -> list[Candidate]:
    """Return *found* without nameless artifacts, as SBOMs and signatures, if there is an image among them."""
    images = [candidate for candidate in found if candidate.name or _runs(layout, candidate)]
    return images if any(_runs(layout, candidate) for candidate in images) else found


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


def top_entries(layout: Layout[Blobs]) -> list[Descriptor]:
    """Return the descriptors in ``index.json``."""
    data = layout.blobs.data("index.json")
    if data is None:
        raise InvalidImage(f"{layout.name}: not an OCI image layout: index.json is missing")
    return [layout.typed(entry) for entry in documents.parse_index(data, f"{layout.name}: index.json").manifests]


def entry_of(layout: Layout[Blobs], digest: Digest) -> Descriptor | None:
    """Return a descriptor of the stored manifest or index with this *digest*, None without one."""
    data = layout.blobs.data("blobs", digest.algorithm, digest.encoded)
    media_type = data and documents.media_type_of(data, f"{layout.name}: {digest}")
    return Descriptor(media_type, len(data), digest) if data and media_type else None


def candidates(
    layout: Layout[StoredBlobs], entries: Iterable[Descriptor], *, everything: bool = False
) -> Iterator[Candidate]:
    """Yield the manifests below *entries*, in order, without attestations unless *everything* is asked for.

    An index that is not stored yields nothing: a pull of one platform may leave out the others.  InvalidImage if more
    than `MAX_LISTED` descriptors are listed on the way: indexes that list each other make millions of a few.
    """
    walk = _Walk(layout)
    for entry in entries:
        yield from walk.below(entry, everything=everything)


class _Walk:
    """A walk down from entries of ``index.json``."""

    def __init__(self, layout: Layout[StoredBlobs]) -> None:
        self._layout = layout
        self._count = 0
        """Descriptors, each as often as it was listed."""
        self._seen: set[tuple[Digest, str]] = set()

    def below(self, entry: Descriptor, *, everything: bool) -> Iterator[Candidate]:
        """Yield the manifests below *entry*."""
        self._seen.clear()
        if everything and entry.media_type not in documents.INDEXES:
            self._up()
            yield self._candidate(entry, entry, ())
        else:
            yield from self._below(entry, entry, ())

    def _up(self) -> None:
        self._count += 1
        if self._count > MAX_LISTED:
            raise InvalidImage(f"{self._layout.name}: its indexes list more than {MAX_LISTED} manifests")

    def _candidate(self, found: Descriptor, entry: Descriptor, way: tuple[Descriptor, ...]) -> Candidate:
        layout = self._layout
        return Candidate(found, found.platform or layout.platform(found), way, layout.is_stored(found), entry)

    def _below(self, found: Descriptor, entry: Descriptor, way: tuple[Descriptor, ...]) -> Iterator[Candidate]:
        self._up()
        if _NO_MANIFEST in found.annotations or (found.platform is not None and not found.platform.known):
            return
        if (found.digest, str(found.platform)) in self._seen:  # each index is walked once
            return
        self._seen.add((found.digest, str(found.platform)))
        if found.media_type in documents.INDEXES:
            for listed in self._listed(found, way):
                yield from self._below(self._layout.typed(listed), entry, (*way, found))
        # An unknown media type in a nested index is to be ignored; in index.json it is an error with its name.
        elif not way or found.media_type in documents.MANIFESTS:
            yield self._candidate(found, entry, way)

    def _listed(self, index: Descriptor, way: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
        name = self._layout.name
        if len(way) >= _MAX_NESTING:
            raise InvalidImage(f"{name}: the index {index.digest} is nested more than {_MAX_NESTING} deep")
        listed = self._layout.index(index)
        if listed is None:
            log.warning("%s: the index %s is not stored", name, index.digest)
            return ()
        return listed


def choose(layout: Layout[StoredBlobs], found: Iterable[Candidate], wanted: Platform | None) -> Candidate:
    """Return the candidate that suits the *wanted* platform best; default: this machine's.

    A single candidate suits if no platform is asked for.  One that no machine runs, as an artifact, is only returned
    if no other suits.  Unavailable lists the choices.
    """
    found = list(found)
    if not found:
        raise InvalidImage(f"{layout.name} holds no image")
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
            ranked.append((rank, number))
    if not ranked:
        raise Unavailable(f"{layout.name} has no image for {target}; {_listed(found)}")
    suitable = [found[number] for _, number in sorted(ranked)]
    # The best one that runs is read, and the others are not: in a registry each costs a request.
    return next((candidate for candidate in suitable if _runs(layout, candidate)), suitable[0])


def _runs(layout: Layout[StoredBlobs], candidate: Candidate) -> bool:
    """Return whether a manifest is of an image that a machine can run; one that is not stored may be.

    Not so artifacts as SBOMs and SOCI indexes, and images that need a feature, as those of nydus.
    """
    needs = candidate.platform is not None and candidate.platform.os == "linux" and candidate.platform.os_features
    if needs or candidate.manifest.artifact_type:
        return False
    manifest = layout.manifest(candidate.manifest)
    return manifest is None or manifest.of_image


def _listed(found: Iterable[Candidate]) -> str:
    found = list(found)
    count = Counter(candidate.shown for candidate in found)
    texts = (candidate.shown_with_digest if count[candidate.shown] > 1 else candidate.shown for candidate in found)
    return "there are " + (listing(list(dict.fromkeys(texts))) or "none")
