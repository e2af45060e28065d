"""Scans a tar archive once, headers only: its members and the offsets of their bytes.

The scan is strict where Python's `tarfile` is not: a broken header is never taken for the end of
the archive, and every loop consumes input.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from fusefs.content.protocol import Bytes, Content
from fusefs.errors import InvalidImage
from fusefs.log import logger
from fusefs.tar.header import (
    BLOCK,
    EXTENDED,
    WITHOUT_DATA,
    BrokenHeader,
    Header,
    Kind,
    is_zero,
    parse_header,
    pax_records,
    pax_size,
)
from fusefs.text import printable

log = logger(__name__)

_MAX_EXTENDED = 1 << 20
"""Bytes of one extended header; archive/tar has the same bound."""
MAX_OFFSET = 1 << 62
"""No file is that long; offsets that a header lies about stay within the range of `pread`."""
_TRAILER = 1 << 20
"""Bytes after the end of the archive that are searched for garbage."""
MAX_MEMBERS, MAX_NAMES = 1 << 18, 64 << 20
"""Limits of a table: its members, and the bytes of their names and links.  A member takes 500 bytes of memory."""
_MAX_LINKS = 40
"""Links that are followed for one name, as many as Linux follows (path_resolution(7))."""

Placed = tuple[bytes, int, int]
"""Name, offset and size of a member's data."""

_NO_RECORDS: Mapping[bytes, bytes] = MappingProxyType({})


class ByteSource(Protocol):
    """Bytes that a scan reads in ascending order: a file, or a spool that still grows."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return *size* bytes, fewer only at the end."""

    def length(self) -> int:
        """Return the number of bytes in all."""


class ContentSource(NamedTuple):
    """A content as a byte source."""

    content: Content
    name: str

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes, fewer at the end."""
        return self.content.read_at(offset, size)

    def length(self) -> int:
        """Return the size."""
        return self.content.size


class Member(NamedTuple):
    """One member: extended headers are applied, the name is as stored."""

    name: bytes
    kind: Kind
    link: bytes
    header: int
    """Offset of the header block in bytes."""
    offset: int
    """Offset of the data in bytes."""
    size: int
    """Bytes of data."""
    sparse: bool
    """The data is a sparse file's map and runs, not the file's bytes."""
    block: bytes = b""
    """The last header block, for fields that only a layer's tree needs."""
    block_offset: int = 0
    pax: Mapping[bytes, bytes] = _NO_RECORDS
    """The PAX records that apply."""


class MemberTable(NamedTuple):
    """The members of an archive by their normalised names; of several members with one name the last."""

    archive: str
    members: dict[bytes, Member]

    @classmethod
    def of(cls, archive: str, members: Iterable[Member]) -> "MemberTable":
        """Collect *members*, ``..`` in their names resolved inside the root; InvalidImage for NUL and for too many."""
        by_name: dict[bytes, Member] = {}
        names = 0
        for member in members:
            if member.kind is Kind.PAX_GLOBAL:  # not applied to the members that follow, as in archive/tar
                continue
            if b"\0" in member.name or b"\0" in member.link:
                raise InvalidImage(
                    f"{archive}: refused: the member name or link '{printable(member.name)}' contains NUL"
                )
            by_name[normalised(member.name)] = member._replace(block=b"", pax=_NO_RECORDS)
            names += len(member.name) + len(member.link)
            if len(by_name) > MAX_MEMBERS or names > MAX_NAMES:
                raise InvalidImage(f"{archive}: refused: more than {MAX_MEMBERS} members or {MAX_NAMES} bytes of names")
        return cls(archive, by_name)

    def find(self, name: bytes) -> Member | None:
        """Return the member called *name* in any spelling, links not followed."""
        return self.members.get(normalised(name))

    def follow(self, name: bytes) -> Member:
        """Return the member called *name*, or the file that it links to, link by link.

        A symbolic link is relative to its own directory, a hard link to the root; both stay in
        the archive.  InvalidImage on a missing member, a dangling link, and more than 40 links.
        """
        path = normalised(name)
        for _ in range(_MAX_LINKS + 1):
            member = self.members.get(path)
            if member is None:
                raise InvalidImage(self._missing(name, path))
            match member.kind:
                case Kind.HARD_LINK:
                    target = _resolved((), member.link)
                case Kind.SYMLINK:
                    target = _resolved(tuple(path.split(b"/")[:-1]), member.link)
                case _:
                    return member
            if target is None:
                raise InvalidImage(
                    f"{self.archive}: the link {printable(path)} leads out of the archive: {printable(member.link)}"
                )
            path = target
        raise InvalidImage(f"{self.archive}: {printable(name)} is a link cycle, or more than {_MAX_LINKS} links")

    def _missing(self, name: bytes, path: bytes) -> str:
        if normalised(name) == path:
            return f"{self.archive}: {printable(name)} is missing"
        return f"{self.archive}: {printable(name)} is a dangling link: {printable(path)} is missing"


def _log_warning(text: str) -> None:
    log.warning("%s", text)


def scan(source: ByteSource, warn: Callable[[str], None] = _log_warning) -> Iterator[Member]:
    """Yield the members of the tar archive *source* in order.

    Raises InvalidImage, naming the offset, on anything that is neither a header nor a proper end;
    calls *warn* when the archive's end is not marked, or something follows it.
    """
    steps = Scan(source, warn)
    while (member := steps.member()) is not None:
        yield member


def member_at(source: ByteSource, header: int) -> Member:
    """Return the member whose first header is at offset *header* of an archive that was scanned before.

    InvalidImage if that is no header any more.
    """
    steps = Scan(source, lambda _: None)
    steps.position = header
    member = steps.member()
    if member is None:
        raise InvalidImage(f"{source.name}: damaged: no tar header at offset {header}")
    return member


class Scan:
    """A scan of an archive, member by member; its position can be moved past members read elsewhere."""

    def __init__(self, source: ByteSource, warn: Callable[[str], None]) -> None:
        """Begin at the beginning."""
        self.position = 0
        """Offset of the next header, in bytes."""
        self.last: Placed | None = None
        """The member before it."""
        self._source = source
        self._warn = warn
        self._lone = False

    def member(self) -> Member | None:
        """Return the next member, None at the end; raises and warns as `scan` does."""
        source = self._source
        while True:
            position = self.position
            block = source.read_at(position, BLOCK) if position < MAX_OFFSET else b""
            if len(block) < BLOCK:
                _check_unmarked_end(source, position, bytes(block), self.last)
                self._warn(f"{source.name}: the end of the archive is not marked; all its members are complete")
                return None
            if not is_zero(block):
                break
            after = source.read_at(position + BLOCK, BLOCK)
            if is_zero(after):
                self._check_end(position, len(after))
                return None
            if not self._lone:
                self._warn(f"{source.name}: ignored a lone zero block at offset {position}")
            self._lone = True
            self.position += BLOCK
        member = _member(source, position, bytes(block))
        self.last = member.name, member.offset, member.size
        self.position = _padded(member.offset + member.size)
        if self.position > MAX_OFFSET:  # such offsets must not leave the scan
            _check_unmarked_end(source, self.position, b"", self.last)
        return member

    def _check_end(self, position: int, second: int) -> None:
        """Warn about an odd end of the archive, whose second zero block has *second* bytes."""
        source = self._source
        if second < BLOCK:
            self._warn(f"{source.name}: the end of the archive is marked with one zero block only")
        after_end = position + 2 * BLOCK
        if any(source.read_at(after_end, _TRAILER)):
            self._warn(f"{source.name}: ignored data after the end of the archive at offset {after_end}")


def _member(source: ByteSource, start: int, block: bytes) -> Member:
    """Return the member whose first header, possibly an extended one, is the *block* at *start*."""
    position = start
    pax: dict[bytes, bytes] = {}
    long_name = long_link = b""
    try:
        while (header := parse_header(block)).kind in EXTENDED:
            data = _extended(source, position, header)
            match header.kind:
                case Kind.PAX:
                    pax = pax_records(data)
                case Kind.GNU_LONG_NAME:
                    long_name = data.partition(b"\0")[0]
                case Kind.GNU_LONG_LINK:
                    long_link = data.partition(b"\0")[0]
            position = _padded(position + BLOCK + header.size)
            block = bytes(source.read_at(position, BLOCK))
            if len(block) < BLOCK or is_zero(block):
                raise InvalidImage(
                    f"{source.name}: damaged: the {header.kind.value} at offset {start} belongs to no member"
                )
        if header.kind is Kind.PAX_GLOBAL:  # PAX records are for files: they must not change its size
            pax.clear()
        size = pax_size(pax[b"size"]) if b"size" in pax else header.size
    except BrokenHeader as error:
        raise InvalidImage(_no_header(source.name, position, str(error))) from None
    data_offset = position + BLOCK
    if header.extended_sparse:
        data_offset = _after_sparse_map(source, data_offset)
    name = long_name or pax.get(b"GNU.sparse.name") or pax.get(b"path") or header.name
    kind = Kind.DIRECTORY if header.legacy_type and name.endswith(b"/") else header.kind
    return Member(
        name=name,
        kind=kind,
        link=long_link or pax.get(b"linkpath") or header.link,
        header=start,
        offset=data_offset,
        size=0 if kind in WITHOUT_DATA else size,
        sparse=header.gnu_sparse or any(keyword.startswith(b"GNU.sparse.") for keyword in pax),
        block=block,
        block_offset=position,
        pax=pax,
    )


def _no_header(name: str, position: int, reason: str) -> str:
    if position == 0:
        return f"{name}: not a tar archive: {reason} at offset 0"
    return f"{name}: damaged: no tar header at offset {position}: {reason}"


def _extended(source: ByteSource, position: int, header: Header) -> bytes:
    """Return the data of the extended *header* at *position*."""
    if header.size > _MAX_EXTENDED:
        raise BrokenHeader(f"the {header.kind.value} has {header.size} bytes, more than {_MAX_EXTENDED}")
    data = bytes(source.read_at(position + BLOCK, header.size))
    if len(data) < header.size:
        raise InvalidImage(
            f"{source.name}: truncated in the {header.kind.value} at offset {position}: "
            f"{len(data)} of {header.size} bytes are there"
        )
    return data


def _after_sparse_map(source: ByteSource, position: int) -> int:
    """Return the offset after the extension blocks of a GNU sparse map, 21 pairs each."""
    while True:
        block = source.read_at(position, BLOCK)
        if len(block) < BLOCK:
            raise InvalidImage(f"{source.name}: truncated in the sparse map at offset {position}")
        position += BLOCK
        if not block[504]:
            return position


def _check_unmarked_end(source: ByteSource, position: int, rest: bytes, last: Placed | None) -> None:
    """Raise InvalidImage if the end of the file at *position*, with *rest* left, is not just an unmarked end."""
    length = source.length()
    if last is not None:
        name, offset, size = last
        if length < offset + size:
            there = max(0, length - offset)
            raise InvalidImage(
                f"{source.name}: truncated in {printable(name)} at offset {length}: {there} of {size} bytes are there"
            )
    if length == 0:
        raise InvalidImage(f"{source.name}: not a tar archive: the file is empty")
    if any(rest):
        reason = f"it has {len(rest)} bytes, less than a header"
        if position:
            reason = f"no tar header at offset {position}: the file ends {len(rest)} bytes after it"
        raise InvalidImage(f"{source.name}: {'damaged' if position else 'not a tar archive'}: {reason}")


def normalised(path: bytes) -> bytes:
    """Return *path* without empty components, ``.`` and ``..``, which does not climb above the root.

    Go's filepath.Clean("/" + path): engines clean a member's name before they look at any link.
    """
    parts: list[bytes] = []
    for part in _components(path):
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
    return b"/".join(parts)


def _components(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _resolved(directory: tuple[bytes, ...], link: bytes) -> bytes | None:
    """Return the path that *link* leads to from *directory*, None if it leads out of the archive."""
    path = [] if link.startswith(b"/") else list(directory)
    for part in _components(link):
        if part != b"..":
            path.append(part)
        elif path:
            path.pop()
        else:
            return None
    return b"/".join(path)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
