"""The attestations that BuildKit puts beside an image into its index."""

from collections.abc import Iterator

from fusefs.image.model import Image, Referrer
from fusefs.oci import documents

MAX_TYPE = 255
"""Characters of the type of a referrer that are shown; RFC 6838 has the same bound."""
_SUBJECT, _KIND = "vnd.docker.reference.digest", "vnd.docker.reference.type"
"""Annotations that bind an attestation to an image in the same index."""


def attestations(image: Image) -> Iterator[Referrer]:
    """Yield the attestations of *image* in the indexes on the way to it."""
    for document in image.documents:
        if document.descriptor.media_type in documents.INDEXES:
            for found in documents.parse_index(document.content.data, image.name).manifests:
                if found.annotations.get(_SUBJECT) == str(image.manifest.descriptor.digest):
                    kind = found.artifact_type or found.annotations.get(_KIND, found.media_type)
                    yield Referrer(found.digest, kind[:MAX_TYPE], found.size, image.manifest.descriptor.digest)
