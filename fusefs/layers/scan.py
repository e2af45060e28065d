"""A layer's tar in one pass: plain members, which are nearly all, with little work each.

The headers of a *plain* member hold only common values.  The functions for members of any kind interpret its
fields, once for each distinct value.  `tar.members.Scan` reads every other member and all that is not a header,
so that this module has no rule of its own.
"""

import struct
from collections.abc import Callable, Iterator
from typing import TypeVar
from zlib import crc32

from fusefs.content.window import Window
from fusefs.layers.record import TIME_SIZE, pack_owner, pack_time
from fusefs.tar.attributes import header_time, ownership, recorded_time
from fusefs.tar.header import BLOCK, BrokenHeader, Kind, byte_sum, number, pax_records, stated_sum, stored_name
from fusefs.tar.members import MAX_OFFSET, ByteSource, Member, Scan

_T = TypeVar("_T")

_FIELDS = struct.Struct("100x24s12s12s8sc355x")
"""Of a header block: mode, uid and gid; size; mtime; checksum; typeflag."""

REGULAR, HARD_LINK, SYMLINK, DIRECTORY = b"0", b"1", b"2", b"5"
"""The typeflags of plain members."""
PLAIN_KINDS = {REGULAR: Kind.REGULAR, HARD_LINK: Kind.HARD_LINK, SYMLINK: Kind.SYMLINK, DIRECTORY: Kind.DIRECTORY}
_UNLINKED = frozenset({REGULAR, DIRECTORY})
_PAX, _LONG_NAME, _LONG_LINK = b"x", b"L", b"K"
_EXTENDED = frozenset({_PAX, _LONG_NAME, _LONG_LINK})

_PLAIN_SIZE = 1 << 36
"""Limit of what octal digits can express."""
_MAX_START = MAX_OFFSET >> 1
_MAX_EXTENDED = 1 << 15
_MAX_RECORDS = 1 << 15
"""Members other than plain ones, and their records, that `Found` holds: some 200 bytes of memory each."""
_APPLIED = frozenset({b"path", b"linkpath", b"mtime"})
_MEANINGLESS = frozenset(
    {b"atime", b"ctime", b"uname", b"gname", b"comment", b"LIBARCHIVE.creationtime", b"SCHILY.dev", b"SCHILY.ino",
     b"SCHILY.nlink"}
)  # fmt: skip
_PLAIN_RECORDS = _APPLIED | _MEANINGLESS

Plain = tuple[bytes, bytes, bytes, int, int, bytes, int, int]
"""Typeflag, name, packed attributes, offset and size of the data, link, offset and CRC-32 of the last header block.

The attributes are packed by `pack_time`, then `pack_owner`.
"""


class _Meanings(dict[bytes, _T]):
    """The meaning of a field, computed once for each of its few distinct values.  Bounded."""

    def __init__(self, meaning: Callable[[bytes], _T]) -> None:
        super().__init__()
        self._meaning = meaning

    def __missing__(self, field: bytes) -> _T:
        meaning = self._meaning(field)
        if len(self) >= 8192:
            self.clear()
        self[field] = meaning
        return meaning


def _owners(kind: Kind) -> _Meanings[bytes]:
    return _Meanings(lambda fields: pack_owner(*ownership(kind, fields, {})))


class _Extensions:
    """The extended headers of the member that follows them."""

    __slots__ = ("link", "name", "pax")

    def __init__(self) -> None:
        self.name = b""
        self.link = b""
        self.pax: dict[bytes, bytes] = {}

    def take(self, typeflag: bytes, data: bytes) -> "_Extensions":
        """Take an extended header and return the extensions; BrokenHeader if it is invalid."""
        if typeflag == _PAX:
            self.pax = pax_records(data)
        elif typeflag == _LONG_NAME:
            self.name = data.partition(b"\0")[0]
        else:
            self.link = data.partition(b"\0")[0]
        return self

    def is_plain(self) -> bool:
        """Return whether they set only the name, link and time of a plain member."""
        pax = self.pax
        # Times are the keys of a dictionary, so they must be short.
        return pax.keys() <= _PLAIN_RECORDS and b"\0" not in pax.get(b"path", b"") and len(pax.get(b"mtime", b"")) < 40


class LayerScan:
    """A scan in two alternating steps: all `plain` members up to the next other one, then that `other` member."""

    def __init__(self, tar: ByteSource, window: Window | None = None) -> None:
        """Begin at the beginning of *tar*, and read it through *window*."""
        self.tar = tar
        self.warnings: list[str] = []
        """About the end of the tar."""
        self._scan = Scan(tar, self.warnings.append)
        self._window = Window(tar) if window is None else window
        self._sums = _Meanings(stated_sum)
        self._owners = {typeflag: _owners(kind) for typeflag, kind in PLAIN_KINDS.items()}
        self._times = _Meanings(lambda field: pack_time(*header_time(field)))
        self._recorded_times = _Meanings(lambda text: pack_time(*recorded_time(text)))

    def other(self) -> Member | None:
        """Return the next member of any kind, None at the end; raises as `tar.members.scan` does."""
        return self._scan.member()

    def plain(self) -> Iterator[Plain]:
        """Yield the plain members from here on; ends before anything else, which `other` reads."""
        window, sums, times = self._window, self._sums, self._times
        first, last = self._scan.position, self._scan.last
        start, data = window.start, window.data
        at = first - start
        extensions: _Extensions | None = None
        try:
            while 0 <= at <= len(data) - BLOCK or window.reach(start + at, BLOCK):
                if data is not window.data:
                    at, start, data = start + at - window.start, window.start, window.data
                owner, size_field, time, checksum, typeflag = _FIELDS.unpack_from(data, at)
                block = data[at : at + BLOCK]
                size = number(size_field, "size")
                if byte_sum(block) != sums[checksum] or not 0 <= size < _PLAIN_SIZE or start > _MAX_START:
                    break
                owners = self._owners.get(typeflag)
                header = start + at
                if owners is None:
                    if typeflag not in _EXTENDED or size > _MAX_EXTENDED or not window.reach(header, BLOCK + size):
                        break
                    at, start, data = header - window.start + BLOCK, window.start, window.data
                    extensions = (extensions or _Extensions()).take(typeflag, data[at : at + size])
                    at += -(-size // BLOCK) * BLOCK
                    continue
                name, attributes = stored_name(block), times[time] + owners[owner]
                link = b"" if typeflag in _UNLINKED else block[157:257].partition(b"\0")[0]
                if extensions is not None:
                    if not extensions.is_plain():
                        break
                    name, link, attributes = self._extended(extensions, name, link, attributes)
                    extensions = None
                if typeflag != REGULAR:
                    size = 0
                at += BLOCK
                yield typeflag, name, attributes, start + at, size, link, header, crc32(block)
                last = name, start + at, size
                at += -(-size // BLOCK) * BLOCK
                first = start + at
        except BrokenHeader:
            pass
        self._scan.position, self._scan.last = first, last

    def _extended(
        self, extensions: _Extensions, name: bytes, link: bytes, attributes: bytes
    ) -> tuple[bytes, bytes, bytes]:
        """Return a member's name, link and attributes with its *extensions* applied."""
        pax = extensions.pax
        if b"mtime" in pax:
            attributes = self._recorded_times[pax[b"mtime"]] + attributes[TIME_SIZE:]
        return extensions.name or pax.get(b"path") or name, extensions.link or pax.get(b"linkpath") or link, attributes


class Found:
    """What a `LayerScan` found, for another pass in the same steps."""

    def __init__(self, scan: LayerScan) -> None:
        """Nothing of *scan* yet."""
        self.tar, self.warnings = scan.tar, scan.warnings
        self.is_full = False
        """Whether members have so many records that their memory counts: then nothing is there, scan again."""
        self._room = _MAX_RECORDS
        self._plain: list[list[Plain]] = [[]]
        self._other: list[Member | None] = []
        self._passed = 0

    def add_plain(self, members: list[Plain]) -> None:
        """Take note of plain members."""
        if not self.is_full:
            self._plain[-1] += members

    def add_other(self, member: Member | None) -> None:
        """Take note of another member, or of the end."""
        self._room -= 0 if member is None else len(member.pax) + 1
        if self._room < 0:
            self.is_full = True
            self._plain, self._other = [], []
            return
        self._other.append(member)
        self._plain.append([])

    def plain(self) -> Iterator[Plain]:
        """Yield the plain members up to the next other one."""
        yield from self._plain[self._passed]

    def other(self) -> Member | None:
        """Return the next other member, None at the end."""
        self._passed += 1
        return self._other[self._passed - 1]
