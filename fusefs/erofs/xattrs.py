"""Extended attributes of an inode: behind it, or shared ones elsewhere in the metadata."""

import stat
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fusefs.erofs.limits import MAX_SHARED_XATTRS, MAX_XATTR_VALUE, MAX_XATTR_WORDS, Unfit
from fusefs.erofs.ondisk import BLOCK, WORD, XATTR_HEADER_SIZE, XATTR_PREFIXES, pack_xattr, pack_xattr_header

_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_MAX_BODY = XATTR_HEADER_SIZE + WORD * (MAX_XATTR_WORDS - 1)
"""Bytes of all that follows the inode."""

_ACL_VERSION = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = (1 << 32) - 1


class InodeXattrs(NamedTuple):
    """The extended attributes of an inode as they are stored."""

    inline: bytes
    """Those behind the inode, without a header."""
    shared: Sequence[bytes]
    """Those elsewhere."""
    size: int
    """Bytes behind the inode, header included, a multiple of `WORD`; 0 if there are none."""

    @property
    def words(self) -> int:
        """The size as the inode states it."""
        return self.size and (self.size - XATTR_HEADER_SIZE) // WORD + 1

    @property
    def block_count(self) -> int:
        """The number of blocks of the shared ones."""
        return sum(-(-len(entry) // BLOCK) for entry in self.shared)

    def packed(self, places: Iterable[int]) -> bytes:
        """Return what follows the inode; *places* are the offsets of the shared ones in the metadata."""
        if not self.size:
            return b""
        ids = b"".join((place // WORD).to_bytes(WORD, "little") for place in places)
        return pack_xattr_header(len(self.shared)) + ids + self.inline


NO_XATTRS = InodeXattrs(b"", (), 0)


def inode_xattrs(xattrs: Iterable[tuple[bytes, bytes]], mode: int, *, acls: bool) -> InodeXattrs:
    """Return those of *xattrs* that EROFS has names for; Unfit if they are too many.

    Left out: names outside of ``user.``, ``trusted.`` and ``security.``; a value of 65,536 bytes; ACLs without
    *acls*, of a symbolic link, or that the kernel would refuse with the file.
    """
    packed = []
    for name, value in xattrs:
        prefix = name if name in _ACLS else name[: name.find(b".") + 1]
        if name in _ACLS:
            stored = acls and not stat.S_ISLNK(mode) and is_acl(value)
        else:
            stored = prefix in XATTR_PREFIXES and len(prefix) < len(name) and len(value) <= MAX_XATTR_VALUE
        if stored:
            packed.append(pack_xattr(XATTR_PREFIXES[prefix], name[len(prefix) :], value))
    return _distributed(packed) if packed else NO_XATTRS


def _distributed(packed: list[bytes]) -> InodeXattrs:
    """Share the largest ones if not all fit behind the inode."""
    shared: list[bytes] = []
    room = _MAX_BODY - XATTR_HEADER_SIZE
    need = sum(map(len, packed))
    if need > room:
        for entry in sorted(packed, key=len, reverse=True):
            if need <= room:
                break
            shared.append(entry)
            need += WORD - len(entry)
        if len(shared) > MAX_SHARED_XATTRS:
            raise Unfit(f"a file has {len(packed)} extended attributes of {sum(map(len, packed))} bytes")
        chosen = set(shared)
        packed = [entry for entry in packed if entry not in chosen]
    inline = b"".join(packed)
    return InodeXattrs(inline, shared, XATTR_HEADER_SIZE + WORD * len(shared) + len(inline))


def is_acl(value: bytes) -> bool:
    """Return whether *value* is an ACL as posix_acl_valid() in the kernel's ``fs/posix_acl.c`` accepts it.

    The kernel reads it whenever it decides about access, and refuses access if it cannot.
    """
    if len(value) < _ACL_VERSION.size or (len(value) - _ACL_VERSION.size) % _ACL_ENTRY.size:
        return False
    (version,) = _ACL_VERSION.unpack_from(value)
    entries = list(_ACL_ENTRY.iter_unpack(value[_ACL_VERSION.size :]))
    tags = [tag for tag, _, _ in entries]
    named = _USER in tags or _GROUP in tags
    return (
        version == 2
        and tags == sorted(tags)
        and set(tags) <= {_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER}
        and all(tags.count(tag) == 1 for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER))
        and tags.count(_MASK) <= 1
        and (not named or _MASK in tags)
        and all(permissions <= 0o7 for _, permissions, _ in entries)
        and all(number != _NO_ID for tag, _, number in entries if tag in (_USER, _GROUP))
    )
