"""An OCI image layout, in a directory or a tar: from its index to one image.

Format: OCI image specification 1.1, "Image Layout", "Image Index", "Image Manifest".  Docker's media
types count as OCI's.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fusefs.content.protocol import Content
from fusefs.errors import ImgfsError, InvalidImage, Unavailable, Unsupported
from fusefs.image.model import Document, Image, Layer
from fusefs.oci import documents
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import Descriptor, Manifest
from fusefs.oci.platform import Platform, suitability
from fusefs.oci.reference import tag_of, tagged
from fusefs.oci.transport import Source
from fusefs.sources.archive.blobs import Blobs, blob, document, is_stored, stored_document
from fusefs.tar.compression import FIRST_BYTES, Compression, compression_of, is_unread
from fusefs.text import printable

log = logging.getLogger(__name__)

_MAX_NESTING = 8
"""Maximum number of indexes on the way to a manifest."""
_NO_MANIFEST = "vnd.docker.reference.type"
"""Annotation of a manifest that belongs to an image, for example an attestation."""
_LAYERS = frozenset(
    {
        f"application/vnd.{kind}{ending}"
        for kind in ("oci.image.layer.v1.tar", "oci.image.layer.nondistributable.v1.tar")
        for ending in ("", "+gzip", "+zstd")
    }
    | {
        f"application/vnd.docker.image.rootfs.{kind}{ending}"
        for kind in ("diff.tar", "foreign.diff.tar")
        for ending in ("", ".gzip", ".zstd")
    }
)


@dataclass(frozen=True, slots=True)
class Candidate:
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
    def shown(self) -> str:
        """Its name in a list of choices."""
        names = [name_of(self.entry) or str(self.manifest.digest), f"({self.platform})" if self.platform else ""]
        return printable(" ".join(filter(None, names)))


def name_of(entry: Descriptor) -> str:
    """Return the name of *entry*, a descriptor in ``index.json``; it may be empty."""
    # Engines write their full name here, and only the tag as the layout's name.
    return entry.annotations.get("io.containerd.image.name", "") or entry.ref_name


def is_called(entry: Descriptor, ref: str) -> bool:
    """Return whether *ref* is the name, the digest or another spelling of the name of *entry*."""
    name = name_of(entry)
    return ref in (entry.ref_name, name, str(entry.digest)) or tagged(ref) == tagged(name)


def layout_image(blobs: Blobs, ref: str | None, platform: Platform | None, source: Source) -> Image:
    """Return the image of a layout that *ref* and *platform* pick."""
    entries = top_entries(blobs)
    version = blobs.data("oci-layout")
    if version is not None:  # skopeo, crane and trivy read layouts without it
        documents.check_layout(version, f"{blobs.name}: oci-layout")
    if ref is not None:
        entries = [entry for entry in entries if is_called(entry, ref)]
    found = list(candidates(blobs, entries))
    if not found and ref is not None:
        everything = candidates(blobs, top_entries(blobs))
        raise Unavailable(f"{blobs.name} has no image {printable(ref)}; {_listed(everything)}")
    if (ref is None and len({name_of(candidate.entry) for candidate in found}) > 1) or _ambiguous(found):
        raise Unavailable(f"{blobs.name} holds several images; choose one with its name: {_listed(found)}")
    chosen = choose(found, platform, blobs.name)
    called = name_of(chosen.entry) if ref in (None, str(chosen.entry.digest)) else ref
    return candidate_image(blobs, chosen, source, called or "")


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
    return replace(found, media_type=documents.media_type_of(stored.content.data, f"{blobs.name}: {found.digest}"))


def entry_of(blobs: Blobs, digest: Digest) -> Descriptor | None:
    """Return a descriptor of the stored manifest or index with this *digest*, None without one."""
    data = blobs.data("blobs", digest.algorithm, digest.encoded)
    return (
        None
        if data is None
        else Descriptor(documents.media_type_of(data, f"{blobs.name}: {digest}"), len(data), digest)
    )


def candidates(blobs: Blobs, entries: Iterable[Descriptor]) -> Iterator[Candidate]:
    """Yield the manifests below *entries*, in order, without attestations.

    An index that is not stored yields nothing: a pull of one platform may leave out the others.
    """
    for entry in entries:
        yield from _below(blobs, entry, entry, (), set())


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
            stored = is_stored(blobs, found)
            yield Candidate(found, found.platform or _stored_platform(blobs, found), way, stored, entry)
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
            return documents.parse_image_config(document(blobs, manifest.config, "").content.data, "").platform
    except ImgfsError:  # reported if this manifest is chosen
        pass
    return None


def choose(found: Iterable[Candidate], wanted: Platform | None, where: str) -> Candidate:
    """Return the candidate that suits the *wanted* platform best; default: this machine's.

    A single candidate suits if no platform is asked for.  Unavailable lists the choices.
    """
    found = list(found)
    if not found:
        raise InvalidImage(f"{where} holds no image")
    if wanted is None:  # an engine may have pulled one platform only
        found = [candidate for candidate in found if candidate.stored] or found
    if len(found) == 1 and wanted is None:
        return found[0]
    target = wanted or Platform.of_host()
    ranked = []
    for number, candidate in enumerate(found):
        platform = candidate.platform
        rank = None if platform is None else suitability(platform, target, exact=wanted is not None)
        if rank is not None:
            ranked.append((rank, number))
    if not ranked:
        raise Unavailable(f"{where} has no image for {target}; {_listed(found)}")
    return found[min(ranked)[1]]


def candidate_image(blobs: Blobs, candidate: Candidate, source: Source, ref: str) -> Image:
    """Return the image of a *candidate*, with its stored manifest."""
    if candidate.manifest.media_type not in documents.MANIFESTS:
        raise Unsupported(
            f"{blobs.name}: unsupported media type '{printable(candidate.manifest.media_type)}' of {candidate.shown}"
        )
    stored = document(blobs, candidate.manifest, "the manifest")
    manifest = documents.parse_manifest(stored.content.data, f"{blobs.name}: the manifest {candidate.manifest.digest}")
    config = document(blobs, manifest.config, "the image config")
    diff_ids: tuple[DiffID | None, ...] = (None,) * len(manifest.layers)
    created_ns, platform = 0, candidate.platform
    if manifest.config.media_type in documents.IMAGE_CONFIGS:
        parsed = documents.parse_image_config(config.content.data, f"{blobs.name}: {manifest.config.digest}")
        if len(parsed.diff_ids) != len(manifest.layers):
            raise InvalidImage(
                f"{blobs.name}: the manifest {candidate.manifest.digest} lists {len(manifest.layers)} layers, "
                f"the config {len(parsed.diff_ids)}"
            )
        diff_ids, created_ns, platform = parsed.diff_ids, parsed.created_ns, parsed.platform
    return Image(
        source=source,
        tag=tag_of(ref) or ref or "latest",
        platform=platform,
        created_ns=created_ns,
        config=config,
        manifest=stored,
        layers=tuple(_layers(blobs, manifest, diff_ids)),
        documents=candidate.way,
    )


def _layers(blobs: Blobs, manifest: Manifest, diff_ids: Iterable[DiffID | None]) -> Iterator[Layer]:
    for number, (descriptor, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True)):
        where = f"{blobs.name}: layer {number}"
        if diff_id is not None and descriptor.media_type not in _LAYERS:
            raise Unsupported(f"{where} has the unsupported media type '{printable(descriptor.media_type)}'")
        content = blob(blobs, descriptor, f"layer {number}")
        compression = None
        if content is not None:
            compression = layer_compression(content, where) if diff_id is not None else None
            check_plain(diff_id, descriptor.digest, where, plain=compression is None)
        else:  # a foreign layer, or one that was left out of a sparse layout
            kind = "a foreign layer and " if descriptor.urls else ""
            log.warning("%s %s is %snot stored", where, descriptor.digest, kind)
        yield Layer(diff_id, descriptor, content, compression, f"{where} ({descriptor.digest})")


def layer_compression(content: Content, where: str) -> Compression | None:
    """Return how a layer is compressed, None for a plain one; Unsupported for a format that imgfs cannot read."""
    first = content.read_at(0, FIRST_BYTES)
    if is_unread(first):
        raise Unsupported(f"{where} is compressed in an unsupported way; gzip, zstd, xz and bzip2 are read")
    return compression_of(first)


def check_plain(diff_id: DiffID | None, digest: Digest, where: str, *, plain: bool) -> None:
    """Raise InvalidImage if the digest of a *plain* layer is not its diffID: both are the hash of the same bytes."""
    if plain and diff_id is not None and digest.algorithm == diff_id.algorithm and digest != diff_id:
        raise InvalidImage(f"{where} is not compressed, but its digest {digest} is not its diffID {diff_id}")


def _listed(found: Iterable[Candidate]) -> str:
    return "there are " + ("; ".join(candidate.shown for candidate in found) or "none")
