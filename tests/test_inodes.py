"""Inode numbers."""

from collections.abc import Mapping

from fusefs.content import Literal
from fusefs.inodes import ROOT, Inodes, Numbered
from fusefs.tree import Attributes, Directory, LazyDirectory, Node, RegularFile

ATTRIBUTES = Attributes(0o755, 0, 0, 0)
FILE = RegularFile(ATTRIBUTES, Literal(b"x"))


def lazy(entries: Mapping[bytes, Node]) -> LazyDirectory:
    """Return a directory that is going to have *entries*."""
    return LazyDirectory(ATTRIBUTES, lambda: entries)


def test_numbers_follow_the_tree_breadth_first() -> None:
    inner = Directory(ATTRIBUTES, {b"x": FILE})
    empty = Directory(ATTRIBUTES, {})
    root = Directory(ATTRIBUTES, {b"b": inner, b"a": FILE, b"c": empty})
    assert list(Inodes(root)) == [
        Numbered(1, root, 1, {b"b": 2, b"a": 3, b"c": 4}, 3),
        Numbered(2, inner, 1, {b"x": 5}, 1),
        Numbered(3, FILE, 1, {}, 0),
        Numbered(4, empty, 1, {}, 0),
        Numbered(5, FILE, 2, {}, 0),
    ]


def test_the_root_has_the_number_that_fuse_fixes_and_is_its_own_parent() -> None:
    root = Directory(ATTRIBUTES, {})
    assert Inodes(root).get(ROOT) == Numbered(1, root, 1, {}, 0)


def test_every_item_lies_at_its_number_and_is_an_entry_of_its_parent() -> None:
    nested = Directory(ATTRIBUTES, {b"file": FILE})
    for depth in range(100):
        nested = Directory(ATTRIBUTES, {b"down": nested, b"%d" % depth: FILE})
    inodes = Inodes(nested)
    assert [item.number for item in inodes] == list(range(1, 203))
    assert [inodes.get(item.number) for item in inodes] == list(inodes)
    parents = {number: item.number for item in inodes for number in item.entries.values()}
    assert {item.number: item.parent for item in inodes} == parents | {ROOT: ROOT}


def test_nobody_has_other_numbers() -> None:
    inodes = Inodes(Directory(ATTRIBUTES, {b"a": FILE}))
    assert [inodes.get(number) for number in (-1, 0, 3, 1 << 32)] == [None] * 4


def test_entries_that_are_not_listed_have_numbers_and_come_after_those_that_are() -> None:
    root = Directory(ATTRIBUTES, {b"a": FILE}, {b"z": FILE})
    assert Inodes(root).get(ROOT) == Numbered(1, root, 1, {b"a": 2, b"z": 3}, 1)


def test_a_lazy_directory_has_its_entries_once_they_are_added() -> None:
    later: dict[bytes, Node] = {b"tar": FILE, b"b": FILE}
    directory = lazy(later)
    inodes = Inodes(Directory(ATTRIBUTES, {b"a": FILE, b"0": directory}))
    before = inodes.get(3)
    assert before == Numbered(3, directory, 1, {}, 0)
    assert inodes.waits(before)
    first = 3 << 32
    added = inodes.add(3, later)
    assert added == inodes.get(3) == Numbered(3, directory, 1, {b"tar": first, b"b": first + 1}, 2)
    assert inodes.get(first) == Numbered(first, FILE, 3, {}, 0)
    assert inodes.get(first + 1) == Numbered(first + 1, FILE, 3, {}, 0)
    assert not inodes.waits(added)
    assert len(inodes) == 5


def test_one_lazy_directory_under_two_names_has_two_numbers_and_twice_its_entries() -> None:
    shared = lazy({b"tar": FILE})
    inodes = Inodes(Directory(ATTRIBUTES, {b"0": shared, b"1": shared}))
    for number in (2, 3):
        inodes.add(number, shared.fill())
    assert len({item.number for item in inodes}) == len(inodes) == 5


def test_files_and_complete_directories_never_wait() -> None:
    inodes = Inodes(Directory(ATTRIBUTES, {b"a": FILE, b"empty": Directory(ATTRIBUTES, {})}))
    assert [inodes.waits(item) for item in inodes] == [False] * 3
