"""A tar that arrived as a stream, in a spool file, with the digests of its members."""

from typing import NamedTuple

from fusefs.content.protocol import Content, chunks
from fusefs.log import logger
from fusefs.oci.digest import Digest
from fusefs.sources.archive.blobs import TarBlobs

log = logger(__name__)


class SpooledTar(NamedTuple):
    """A tar in a spool file."""

    blobs: TarBlobs
    digests: dict[int, Digest]
    """The sha256 of every regular member, by the offset of its data."""
    warnings: list[str]
    """Oddities of the tar, for the log."""

    def log_warnings(self) -> None:
        """Log the oddities of the tar."""
        for warning in self.warnings:
            log.warning("%s", warning)

    def digest_of(self, content: Content, algorithm: str) -> Digest:
        """Return the digest of *content*; that of a whole member is known."""
        place = content.file_place()
        if algorithm == "sha256" and place is not None and place.offset in self.digests:
            return self.digests[place.offset]
        return Digest.of(chunks(content), algorithm)
