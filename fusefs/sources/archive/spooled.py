"""A tar that has to be written down: spooled, indexed and hashed in one pass."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fusefs.content.file import Extent
from fusefs.content.protocol import Buffer, Bytes, Content, chunks
from fusefs.content.spool import Spool
from fusefs.errors import InvalidImage
from fusefs.oci.digest import Digest
from fusefs.sources.archive.blobs import TarBlobs
from fusefs.tar.header import Kind
from fusefs.tar.members import Member, MemberTable, scan

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_AFTER_THE_END = 1 << 20
"""Bytes that are still taken after what can be understood: an error message may be among them."""


@dataclass(frozen=True, slots=True)
class SavedTar:
    """A tar in a spool file."""

    blobs: TarBlobs
    digests: dict[int, Digest]
    """The sha256 of every regular member, by the offset of its data."""
    warnings: list[str]
    """What is odd about the tar, for the log."""

    def log_warnings(self) -> None:
        """Log what is odd about the tar."""
        for warning in self.warnings:
            log.warning("%s", warning)

    def digest_of(self, content: Content, algorithm: str) -> Digest:
        """Return the digest of a member; most are known already."""
        if algorithm == "sha256" and isinstance(content, Extent) and content.offset in self.digests:
            return self.digests[content.offset]
        return Digest.of(chunks(content), algorithm)


def save(stream: Iterable[Buffer], spool: Spool, needed: int) -> SavedTar:
    """Write *stream*, about *needed* bytes, into *spool* and return the tar that it is.

    This thread receives and writes; another one follows it, indexing and hashing.  Raises what
    *stream* raises, else NoSpace, else what is wrong with the tar.
    """
    with ThreadPoolExecutor(1, "follow") as pool:
        spare = _AFTER_THE_END
        try:  # from here on, whatever happens, the follower must be told of the end
            following = pool.submit(_follow, spool)
            for chunk in stream:
                spool.write(chunk, needed)
                if following.done():  # at an error, or well past the end of the archive
                    spare -= len(chunk)
                    if spare < 0:
                        break
        except InvalidImage as error:
            spool.finish()
            inside = following.exception() if spool.written else None  # which member the damage is in
            if not isinstance(inside, InvalidImage):
                raise
            raise InvalidImage(f"{error}; {str(inside).removeprefix(f'{spool.name}: ')}") from None
        finally:
            spool.finish()
        return following.result()


def _follow(spool: Spool) -> SavedTar:
    digests: dict[int, Digest] = {}
    warnings: list[str] = []

    def hashed() -> Iterator[Member]:
        for member in scan(spool, warnings.append):
            if member.kind is Kind.REGULAR:
                digests[member.offset] = Digest.of(_data(spool, member))
            yield member

    index = MemberTable.of(spool.name, hashed())
    return SavedTar(TarBlobs(spool.file, index), digests, warnings)


def _data(spool: Spool, member: Member) -> Iterator[Bytes]:
    end = member.offset + member.size
    for offset in range(member.offset, end, _CHUNK):
        data = spool.read_at(offset, min(_CHUNK, end - offset))
        if not data:  # cut short, which the scan reports
            return
        yield data
