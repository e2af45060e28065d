"""The members of a tar as JSON for a cache entry, so that the tar need not be scanned again."""

from typing import Any

from fusefs.tar.header import Kind
from fusefs.tar.members import Member, MemberTable

MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""The exceptions that a document of another format raises."""


def written_members(index: MemberTable) -> list[list[Any]]:
    """Return the members in *index* as JSON."""
    return [_written(member) for member in index.members.values()]


def read_members(archive: str, written: list[list[Any]]) -> MemberTable:
    """Return the index that *written* holds; one of `MALFORMED`, or InvalidImage, for another format."""
    return MemberTable.of(archive, map(_read, written))


def _written(member: Member) -> list[Any]:
    # Names are bytes; latin-1 maps each byte to one character.
    name, link = member.name.decode("latin-1"), member.link.decode("latin-1")
    return [name, member.kind.value, link, member.header, member.offset, member.size, member.sparse]


def _read(written: list[Any]) -> Member:
    name, kind, link, header, offset, size, sparse = written
    return Member(
        name=name.encode("latin-1"),
        kind=Kind(kind),
        link=link.encode("latin-1"),
        header=header,
        offset=offset,
        size=size,
        sparse=sparse,
    )
