"""Inode numbers."""

from fusefs.content import Literal
from fusefs.inodes import ROOT, Numbered, number_tree
from fusefs.tree import Attributes, Directory, RegularFile

ATTRIBUTES = Attributes(0o755, 0, 0, 0)
FILE = RegularFile(ATTRIBUTES, Literal(b"x"))


def test_numbers_follow_the_tree_breadth_first() -> None:
    inner = Directory(ATTRIBUTES, {b"x": FILE})
    empty = Directory(ATTRIBUTES, {})
    root = Directory(ATTRIBUTES, {b"b": inner, b"a": FILE, b"c": empty})
    assert number_tree(root) == [
        None,
        Numbered(1, root, 1, {b"b": 2, b"a": 3, b"c": 4}),
        Numbered(2, inner, 1, {b"x": 5}),
        Numbered(3, FILE, 1, {}),
        Numbered(4, empty, 1, {}),
        Numbered(5, FILE, 2, {}),
    ]


def test_the_root_has_the_number_that_fuse_fixes_and_is_its_own_parent() -> None:
    root = Directory(ATTRIBUTES, {})
    assert number_tree(root)[ROOT] == Numbered(1, root, 1, {})


def test_every_item_lies_at_its_number_and_is_an_entry_of_its_parent() -> None:
    nested = Directory(ATTRIBUTES, {b"file": FILE})
    for depth in range(100):
        nested = Directory(ATTRIBUTES, {b"down": nested, b"%d" % depth: FILE})
    items = [item for item in number_tree(nested) if item is not None]
    assert [item.number for item in items] == list(range(1, 203))
    parents = {number: item.number for item in items for number in item.entries.values()}
    assert {item.number: item.parent for item in items} == parents | {ROOT: ROOT}
