"""Directories: names in their order, dots among them, blocks of 512 bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.content.protocol import Literal
from fusefs.erofs.dirents import packed, size_of, with_dots
from fusefs.erofs.limits import Unfit
from fusefs.tree.node import Directory, Node, RegularFile
from tests.support.erofs_views import FOLDER, check

_FILE = RegularFile(FOLDER, Literal(b""))


def folder(*names: bytes) -> Directory:
    """Return a directory of empty files."""
    return Directory(FOLDER, dict.fromkeys(names, _FILE))


@pytest.mark.parametrize(
    "names",
    [
        (),
        (b"a",),
        (b"!", b"+", b",", b"-", b"\x01", b" "),
        (b".!", b".-", b"...", b".a", b"..a", b".\x01", b"0"),
        (b"\xff", b"\xfe\xff"),
        (b"x" * 255,),
        tuple(bytes([first]) * 255 for first in (b"!"[0], *b"abc")),
    ],
    ids=repr,
)
def test_names_are_found_in_their_order_with_the_dots_among_them(names: tuple[bytes, ...]) -> None:
    assert set(check(folder(*names)).erofs.shown) == {b"", *names}


@pytest.mark.parametrize("last", range(1, 40))
def test_a_directory_is_behind_its_inode_up_to_484_bytes_and_in_blocks_from_485_on(last: int) -> None:
    entries = (*(b"%03d" % number for number in range(29)), b"x" * last)  # . and .., then 15 bytes each
    root = check(folder(*entries)).erofs.shown[b""]
    size = 12 + 1 + 12 + 2 + 29 * 15 + 12 + last
    assert root.layout == (2 if size <= 484 else 0)
    assert root.size == (size if size <= 512 else 512 + 12 + last)


@pytest.mark.parametrize("count", [0, 1, 33, 34, 35, 1000, 20_000])
def test_directories_of_many_entries(count: int) -> None:
    assert len(check(folder(*(b"%d" % number for number in range(count)))).erofs.shown) == count + 1


def test_directories_are_500_deep() -> None:
    node: Node = _FILE
    for _ in range(500):
        node = Directory(FOLDER, {b"d": node})
    assert isinstance(node, Directory)
    assert len(check(node).erofs.shown) == 501


@given(names=st.sets(st.binary(min_size=1, max_size=255), max_size=60))
def test_the_size_that_is_planned_is_that_of_the_blocks(names: set[bytes]) -> None:
    names = {name.replace(b"/", b"-").replace(b"\0", b"-") for name in names} - {b".", b".."}
    entries = list(with_dots([(name, 1, 0o100000) for name in sorted(names)], 5, 6))
    blocks = list(packed(entries))
    assert all(len(block) <= 512 for block in blocks)
    assert [name for name, _, _ in entries] == sorted({*names, b".", b".."})
    assert size_of(len(name) for name, _, _ in entries) == 512 * (len(blocks) - 1) + len(blocks[-1])


@pytest.mark.parametrize(
    "names",
    [
        (b"a", b"a"),
        (b"b", b"a"),
        (b".",),
        (b"..",),
        (b"",),
        (b"a/b",),
        (b"/",),
        (b"a\0",),
        (b"\0",),
        (b"x" * 256,),
        (*(b"%03d" % number for number in range(40)), b"000"),
    ],
    ids=repr,
)
def test_other_names_are_refused(names: tuple[bytes, ...]) -> None:
    with pytest.raises(Unfit, match="a directory has"):
        list(packed(with_dots([(name, 1, 0o100000) for name in names], 5, 6)))
