"""Extended attributes: names, sizes, ACLs, and those that do not fit behind their inode."""

import errno
import os
import stat
import struct

import pytest

from fusefs.content.protocol import Literal
from fusefs.erofs.limits import Unfit
from fusefs.erofs.xattrs import inode_xattrs, is_acl
from fusefs.tree.node import Attributes, Directory, RegularFile
from fusefs.tree.overrides import Overrides
from tests.support.changesets import About, all_indexed, changeset, file, folder
from tests.support.erofs_views import FOLDER, check, metadata, stack_view
from tests.support.requirements import give_up

_FILE = stat.S_IFREG | 0o644
_ACCESS, _DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_NO_ID = 0xFFFFFFFF
_BASIC = ((1, 6, _NO_ID), (4, 4, _NO_ID), (32, 4, _NO_ID))
_NAMED = ((1, 6, _NO_ID), (2, 7, 1000), (2, 6, 1001), (4, 4, _NO_ID), (8, 5, 7), (16, 7, _NO_ID), (32, 0, _NO_ID))

Xattrs = tuple[tuple[bytes, bytes], ...]


def acl(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    """Return an ACL as the value of an extended attribute."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def stored(*xattrs: tuple[bytes, bytes], overrides: Overrides = Overrides()) -> dict[bytes, bytes]:  # noqa: B008
    """Return the extended attributes that are stored of these ones of a file."""
    root = Directory(FOLDER, {b"f": RegularFile(Attributes(0o644, 0, 0, 0), Literal(b"x"), xattrs)})
    erofs = metadata(root, overrides).erofs
    inode = erofs.shown[b"f"]
    assert erofs.read(inode, 0, 9) == b"x"
    return erofs.xattrs(inode)


@pytest.mark.parametrize(
    "name", [b"user.a", b"user." + b"n" * 250, b"user..", b"trusted.overlay.opaque", b"security.x"]
)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 511, 512, 513, 65_534, 65_535])
def test_names_and_values_are_stored(name: bytes, size: int) -> None:
    assert stored((name, b"v" * size)) == {name: b"v" * size}


@pytest.mark.parametrize(
    "name", [b"user.", b"user", b"foo.bar", b"system.nfs4_acl", b"system.posix_acl_accessx", b"lustre.lov", b".x", b"x"]
)
def test_names_of_other_kinds_are_left_out(name: bytes) -> None:
    assert stored((name, b"v"), (b"user.a", b"1")) == {b"user.a": b"1"}


def test_a_value_of_65536_bytes_is_left_out() -> None:
    assert stored((b"user.a", bytes(65_536)), (b"user.b", b"1")) == {b"user.b": b"1"}


def test_all_of_the_view_are_stored() -> None:
    root = Directory(FOLDER, xattrs=((b"user.imgfs.image", b"nginx"), (b"user.imgfs.pid", lambda: b"7")))
    erofs = metadata(root).erofs
    assert erofs.xattrs(erofs.shown[b""]) == {b"user.imgfs.image": b"nginx", b"user.imgfs.pid": b"7"}


@pytest.mark.parametrize("entries", [0, 500])
def test_directories_may_have_more_than_fit_behind_their_inode(entries: int) -> None:
    xattrs = tuple((b"user.%d" % number, b"%d" % number * 60_000) for number in range(10))
    root = Directory(FOLDER, {b"%d" % number: Directory(FOLDER) for number in range(entries)}, xattrs=xattrs)
    layer = changeset(folder("d", About(mode=0o755, xattrs=dict(xattrs))), *(file(f"d/{n}") for n in range(entries)))
    assert len(check(root).erofs.xattrs(check(root).erofs.shown[b""])) == 10
    with all_indexed([layer]) as files:
        check(stack_view(files))


_BODY = 4 * (65_535 - 1)
"""Bytes of extended attributes that fit behind an inode."""


@pytest.mark.parametrize(("more", "shared"), [(-4, 0), (0, 0), (4, 1)])
def test_the_largest_are_stored_elsewhere_if_not_all_fit_behind_the_inode(more: int, shared: int) -> None:
    sizes = [60_000, 60_000, 60_000, 60_000, _BODY - 240_000 + more]  # 5 bytes of each are lengths and name
    xattrs = tuple((b"user.%d" % number, b"%d" % number * (size - 5)) for number, size in enumerate(sizes))
    found = inode_xattrs(xattrs, _FILE, acls=True)
    assert (found.size <= 12 + _BODY, len(found.shared)) == (True, shared)
    assert stored(*xattrs) == dict(xattrs)


@pytest.mark.parametrize(("count", "fits"), [(255, True), (256, False)])
def test_up_to_255_are_stored_elsewhere(count: int, *, fits: bool) -> None:
    """All that are not among the *count* large ones are small, and fill the room behind the inode."""
    small = [(b"user.s%05d" % number, bytes(49)) for number in range((_BODY - 4 * count) // 60)]
    large = [(b"user.l%05d" % number, bytes(1000)) for number in range(count)]
    if fits:
        assert len(stored(*small, *large)) == len(small) + 255
        return
    with pytest.raises(Unfit, match="extended attributes of"):
        stored(*small, *large)


def test_values_that_are_equal_are_all_stored() -> None:
    xattrs = [(b"user.%d" % number, bytes(60_000)) for number in range(10)]
    assert stored(*xattrs) == dict(xattrs)


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (acl(*_BASIC), True),
        (acl(*_NAMED), True),
        (acl((1, 7, 0), (4, 7, 0), (16, 7, 0), (32, 7, 0)), True),
        (acl(*_BASIC, version=1), False),
        (acl(*_BASIC, version=3), False),
        (acl(), False),
        (b"", False),
        (b"\2\0\0", False),
        (acl(*_BASIC)[:-1], False),
        (acl(*_BASIC) + b"\0", False),
        (acl(*_BASIC[:2]), False),
        (acl(*_BASIC[1:]), False),
        (acl(*reversed(_BASIC)), False),
        (acl(*_BASIC, (32, 4, 0)), False),
        (acl((1, 8, 0), *_BASIC[1:]), False),
        (acl((1, 6, 0), (2, 7, 1000), (4, 4, 0), (32, 4, 0)), False),
        (acl((1, 6, 0), (2, 7, _NO_ID), (4, 4, 0), (16, 7, 0), (32, 4, 0)), False),
        (acl((1, 6, 0), (4, 4, 0), (16, 7, 0), (16, 7, 0), (32, 4, 0)), False),
        (acl((1, 6, 0), (4, 4, 0), (32, 4, 0), (64, 4, 0)), False),
        (acl((0, 6, 0), *_BASIC), False),
    ],
    ids=repr,
)
def test_an_acl_is_stored_if_the_kernel_accepts_it(value: bytes, *, valid: bool) -> None:
    assert is_acl(value) is valid
    for name in (_ACCESS, _DEFAULT):
        assert stored((name, value)) == ({name: value} if valid else {})


def test_a_symbolic_link_has_no_acl() -> None:
    assert not inode_xattrs([(_ACCESS, acl(*_BASIC))], stat.S_IFLNK | 0o777, acls=True).size


def test_with_a_umask_there_are_no_acls_since_access_would_go_by_them() -> None:
    assert stored((_ACCESS, acl(*_NAMED)), (b"user.a", b"1"), overrides=Overrides(umask=0o22)) == {b"user.a": b"1"}
    assert len(stored((_ACCESS, acl(*_NAMED)), (b"user.a", b"1"), overrides=Overrides(uid=0, gid=0))) == 2


def test_acls_that_this_system_writes_are_valid(tmp_path: os.PathLike[str]) -> None:
    try:
        os.setxattr(tmp_path, _ACCESS, acl(*_NAMED))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        give_up("needs a temporary directory with ACLs")
    assert is_acl(os.getxattr(tmp_path, _ACCESS))
