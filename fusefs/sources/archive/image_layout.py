"""The image of a manifest in an OCI image layout, which is in a directory or a tar.

Format: OCI image specification 1.1, "Image Layout", "Image Manifest".  Docker's media types count as OCI's.
"""

import logging
from collections.abc import Iterable, Iterator

from fusefs.content.protocol import Content
from fusefs.errors import InvalidImage, Unsupported
from fusefs.image.model import Image, Layer
from fusefs.oci import documents
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import Manifest
from fusefs.oci.platform import Platform
from fusefs.oci.reference import tag_of
from fusefs.oci.transport import Source
from fusefs.sources.archive.blobs import Blobs, blob, document
from fusefs.sources.archive.candidates import Candidate, name_of, pick, top_entries
from fusefs.tar.compression import FIRST_BYTES, Compression, compression_of, is_unread
from fusefs.text import printable

log = logging.getLogger(__name__)


def layout_image(blobs: Blobs, choice: str | int | None, platform: Platform | None, source: Source) -> Image:
    """Return the image of a layout that *choice*, a name, a digest or an index, and *platform* pick."""
    entries = top_entries(blobs)
    version = blobs.data("oci-layout")
    if version is not None:  # skopeo, crane and trivy read layouts without it
        documents.check_layout(version, f"{blobs.name}: oci-layout")
    chosen = pick(blobs, entries, choice, platform)
    is_name = isinstance(choice, str) and choice not in (str(chosen.entry.digest), str(chosen.manifest.digest))
    return candidate_image(blobs, chosen, source, str(choice) if is_name else name_of(chosen.entry))


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
        if parsed.diff_ids and len(parsed.diff_ids) != len(manifest.layers):
            raise InvalidImage(
                f"{blobs.name}: the manifest {candidate.manifest.digest} lists {len(manifest.layers)} layers, "
                f"the config {len(parsed.diff_ids)}"
            )
        diff_ids, created_ns, platform = parsed.diff_ids or diff_ids, parsed.created_ns, parsed.platform
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
        if diff_id is not None and descriptor.media_type not in documents.LAYERS:
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
