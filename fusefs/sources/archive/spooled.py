"""A tar that arrives as a stream: spooled, indexed and hashed in one pass."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from fusefs.content.protocol import Buffer, Bytes, Content, chunks
from fusefs.content.spool import Spool
from fusefs.errors import InvalidImage
from fusefs.log import logger
from fusefs.oci.digest import Digest
from fusefs.sources.archive.blobs import TarBlobs
from fusefs.tar.header import Kind
from fusefs.tar.members import Member, MemberTable, scan

log = logger(__name__)

_CHUNK = 1 << 20
_AFTER_THE_END = 1 << 20
"""Bytes that are still read past the end of the tar: an engine may have put an error message there."""


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


def spool_tar(stream: Iterable[Buffer], spool: Spool, needed: int) -> SpooledTar:
    """Write *stream*, about *needed* bytes, into *spool* and return the tar.

    This thread receives and writes; another one follows it, and indexes and hashes.  Raises the error of *stream*,
    NoSpace, or InvalidImage for a damaged tar, in this order.
    """
    with ThreadPoolExecutor(1, "follow") as pool:
        spare = _AFTER_THE_END
        try:  # whatever happens from here on, the follower must learn of the end
            following = pool.submit(_follow, spool)
            for chunk in stream:
                spool.write(chunk, needed)
                if following.done():  # at an error, or well past the end of the archive
                    spare -= len(chunk)
                    if spare < 0:
                        break
        except InvalidImage as error:
            spool.finish()
            inside = following.exception() if spool.written else None  # names the damaged member
            if not isinstance(inside, InvalidImage):
                raise
            raise InvalidImage(f"{error}; {str(inside).removeprefix(f'{spool.name}: ')}") from None
        finally:
            spool.finish()
        return following.result()


def _follow(spool: Spool) -> SpooledTar:
    digests: dict[int, Digest] = {}
    warnings: list[str] = []

    def hashed() -> Iterator[Member]:
        for member in scan(spool, warnings.append):
            if member.kind is Kind.REGULAR:
                digests[member.offset] = Digest.of(_data(spool, member))
            yield member

    index = MemberTable.of(spool.name, hashed())
    return SpooledTar(TarBlobs(spool.file, index), digests, warnings)


def _data(spool: Spool, member: Member) -> Iterator[Bytes]:
    end = member.offset + member.size
    for offset in range(member.offset, end, _CHUNK):
        data = spool.read_at(offset, min(_CHUNK, end - offset))
        if not data:  # truncated, which the scan reports
            return
        yield data
