"""The image of a manifest in an OCI image layout, which is in a directory or a tar.

Format: OCI image specification 1.1, "Image Layout", "Image Manifest".  Docker's media types count as OCI's.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from fusefs.content.protocol import Bytes, Content, chunks
from fusefs.errors import InvalidImage, Unsupported
from fusefs.image.model import Document, Image, Layer
from fusefs.log import logger
from fusefs.oci import documents
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import Descriptor, ImageConfig, Manifest
from fusefs.oci.platform import Platform
from fusefs.oci.reference import tag_of
from fusefs.oci.transport import Source
from fusefs.sources.archive.blobs import Blobs, StoredBlobs, blob, document
from fusefs.sources.archive.candidates import Candidate, name_of, pick, top_entries
from fusefs.sources.archive.layout import Layout
from fusefs.tar.compression import FIRST_BYTES, Compression, compression_of, decompressed, is_unread
from fusefs.tar.header import BLOCK, is_header, is_zero
from fusefs.text import printable

log = logger(__name__)


def layout_image(blobs: Blobs, choice: str | int | None, platform: Platform | None, source: Source) -> Image:
    """Return the image of a layout that *choice*, a name, a digest or an index, and *platform* pick."""
    layout = Layout(blobs)
    entries = top_entries(layout)
    version = blobs.data("oci-layout")
    if version is not None:  # skopeo, crane and trivy read layouts without it
        documents.check_layout(version, f"{blobs.name}: oci-layout")
    chosen = pick(layout, entries, choice, platform, source.choosing)
    is_name = isinstance(choice, str) and choice not in (str(chosen.entry.digest), str(chosen.manifest.digest))
    return candidate_image(blobs, chosen, source, str(choice) if is_name else name_of(chosen.entry))


def candidate_image(blobs: StoredBlobs, candidate: Candidate, source: Source, ref: str) -> Image:
    """Return the image of a *candidate*, with its stored manifest."""
    if candidate.manifest.media_type in documents.SCHEMA_1:
        raise documents.schema_1(f"{blobs.name}: {candidate.shown}")
    if candidate.manifest.media_type not in documents.MANIFESTS:
        raise Unsupported(
            f"{blobs.name}: unsupported media type '{printable(candidate.manifest.media_type)}' of {candidate.shown}"
        )
    stored = document(blobs, candidate.manifest, "the manifest")
    manifest = documents.parse_manifest(stored.content.data, f"{blobs.name}: the manifest {candidate.manifest.digest}")
    config = document(blobs, manifest.config, "the image config")
    parsed = _image_config(blobs, candidate, manifest, config)
    artifact = parsed is None or parsed.diff_ids is None
    return Image(
        source=source,
        tag=tag_of(ref) or ref or "latest",
        platform=candidate.platform if parsed is None or artifact else parsed.platform,
        created_ns=0 if parsed is None or artifact else parsed.created_ns,
        config=config,
        manifest=stored,
        layers=tuple(_layers(blobs, manifest, parsed.diff_ids if parsed else None)),
        documents=stored_indexes(blobs, candidate),
        artifact=artifact,
    )


def stored_indexes(blobs: StoredBlobs, candidate: Candidate) -> tuple[Document, ...]:
    """Return the indexes on the way to a *candidate*."""
    return tuple(document(blobs, index, "the index") for index in candidate.way)


def _image_config(blobs: StoredBlobs, candidate: Candidate, manifest: Manifest, config: Document) -> ImageConfig | None:
    """Return the image config, None for the config of an artifact: the bytes decide, and then the media type."""
    stated = manifest.config.media_type in documents.IMAGE_CONFIGS
    try:
        parsed = documents.parse_image_config(config.content.data, f"{blobs.name}: {manifest.config.digest}")
        # Without any diffIDs, the layers are shown as blobs.
        if parsed.diff_ids and len(parsed.diff_ids) != len(manifest.layers):
            raise InvalidImage(
                f"{blobs.name}: the manifest {candidate.manifest.digest} lists {len(manifest.layers)} layers, "
                f"the config {len(parsed.diff_ids)}"
            )
    except InvalidImage:
        if stated:
            raise
        return None
    return parsed


def _layers(blobs: StoredBlobs, manifest: Manifest, diff_ids: Sequence[DiffID] | None) -> Iterator[Layer]:
    for number, descriptor in enumerate(manifest.layers):
        diff_id = diff_ids[number] if diff_ids else None
        where = f"{blobs.name}: layer {number}"
        content = blob(blobs, descriptor, f"layer {number}")
        compression, is_tar = None, True
        if content is None:  # a foreign layer, or one that was left out of a sparse layout
            kind = "a foreign layer and " if descriptor.urls else ""
            log.warning("%s %s is %snot stored", where, descriptor.digest, kind)
        elif diff_id is not None and blobs.lazy:
            compression, is_tar = _stated(descriptor, diff_id)
        elif diff_id is not None:
            compression, is_tar = _tar_in(content, descriptor.media_type, where)
            if is_tar:
                check_plain(diff_id, descriptor.digest, where, plain=compression is None)
        yield Layer(diff_id, descriptor, content, compression, f"{where} ({descriptor.digest})", is_tar)


def _stated(descriptor: Descriptor, diff_id: DiffID) -> tuple[Compression | None, bool]:
    """Return how a layer is compressed, and whether it is a tar, as far as the documents tell.

    A layer whose digest is its diffID is plain.  The bytes of any other one decide on its format at first access.
    """
    if descriptor.digest == diff_id:
        return None, descriptor.media_type in documents.LAYERS
    stated = re.search(r"[+.](gzip|zstd)$", descriptor.media_type)
    return Compression(stated[1]) if stated else Compression.UNKNOWN, descriptor.media_type in documents.LAYERS


def _tar_in(content: Content, media_type: str, where: str) -> tuple[Compression | None, bool]:
    """Return how a layer is compressed, and whether it is a tar.

    A media type of a tar is believed, so that damage is reported and not hidden.  Else the first bytes decide.
    """
    if media_type in documents.LAYERS:
        return layer_compression(content, where), True
    compression = compression_of(content.read_at(0, FIRST_BYTES))
    try:
        plain = chunks(content) if compression is None else decompressed(chunks(content), compression, where)
        first = b"".join(_beginning(plain))
    except InvalidImage:
        return None, False
    is_tar = not first or (len(first) == BLOCK and (is_zero(first) or is_header(first)))
    return (compression, True) if is_tar else (None, False)


def _beginning(stream: Iterable[Bytes]) -> Iterator[bytes]:
    """Yield the first block of *stream*."""
    left = BLOCK
    for data in stream:
        yield bytes(data[:left])
        left -= min(left, len(data))
        if not left:
            return


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
