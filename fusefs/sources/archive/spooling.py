"""Spooling a tar that arrives as a stream: one pass writes, indexes and hashes it."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from fusefs.content.protocol import Buffer, Bytes
from fusefs.content.spool import Spool
from fusefs.errors import InvalidImage
from fusefs.oci.digest import Digest
from fusefs.sources.archive.blobs import TarBlobs
from fusefs.sources.archive.spooled import SpooledTar
from fusefs.tar.header import Kind
from fusefs.tar.members import Member, MemberTable, scan

_CHUNK = 1 << 20
_AFTER_THE_END = 1 << 20
"""Bytes that are still read past the end of the tar: an engine may have put an error message there."""


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
