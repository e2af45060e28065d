"""Inode numbers."""

import pytest

from fusefs.content.protocol import Literal
from fusefs.errors import Unavailable
from fusefs.mount.inodes import ROOT, Inodes, Place
from fusefs.tree.node import Attributes, Directory, KnownTree, LazyDirectory, RegularFile

ATTRIBUTES = Attributes(0o755, 0, 0, 0)
OWN = Attributes(0o700, 1, 2, 3)
FILE = RegularFile(ATTRIBUTES, Literal(b"x"))
OTHER = RegularFile(ATTRIBUTES, Literal(b"y"))
BASE = 3 << 48
"""What is added to the numbers of the tree below inode 3."""


def made() -> KnownTree:
    """Return a tree: 0 its root, 1 a file, 2 a directory with 3, a file."""
    return KnownTree(Directory(OWN, {b"file": FILE, b"down": Directory(OWN, {b"deep": OTHER})}))


def lazy(*, settled: bool = True) -> LazyDirectory:
    """Return a directory that is going to have the tree."""
    return LazyDirectory(ATTRIBUTES, made, settled=settled)


def with_lazy(directory: LazyDirectory) -> tuple[KnownTree, Inodes]:
    """Return a view whose inode 3 is *directory*."""
    view = KnownTree(Directory(ATTRIBUTES, {b"a": FILE, b"0": directory}))
    return view, Inodes(view)


def test_the_view_has_small_numbers_from_the_root_that_fuse_fixes() -> None:
    inner = Directory(ATTRIBUTES, {b"x": OTHER})
    root = Directory(ATTRIBUTES, {b"b": inner, b"a": FILE})
    view = KnownTree(root)
    inodes = Inodes(view)
    assert [inodes.node(number) for number in (ROOT, 2, 3, 4)] == [root, inner, FILE, OTHER]
    assert [inodes.place(number) for number in (ROOT, 4)] == [Place(view, 1, 0), Place(view, 1, 3)]
    assert Place(view, 1, 0).inode(3) == 4


def test_the_root_is_its_own_parent_and_others_have_theirs() -> None:
    inodes = Inodes(KnownTree(Directory(ATTRIBUTES, {b"b": Directory(ATTRIBUTES, {b"c": Directory(ATTRIBUTES)})})))
    assert [inodes.parent(number) for number in (ROOT, 2, 3)] == [ROOT, ROOT, 2]


def test_nobody_has_other_numbers() -> None:
    _, inodes = with_lazy(lazy())
    for number in (-1, 0, 4, 1 << 32, BASE, BASE + 1, 1 << 48, 1 << 63):
        assert inodes.node(number) is None
        assert inodes.place(number) is None
        assert inodes.unmade(number) is None


def test_only_a_lazy_directory_whose_tree_is_still_to_come_is_unmade() -> None:
    directory = lazy()
    _, inodes = with_lazy(directory)
    assert [inodes.unmade(number) for number in (ROOT, 2, 3)] == [None, None, directory]
    inodes.add(3, made())
    assert inodes.unmade(3) is None


def test_a_tree_has_the_number_of_its_directory_above_bit_48_and_its_own_below() -> None:
    view, inodes = with_lazy(lazy())
    assert inodes.place(3) == Place(view, 1, 2)
    tree = made()
    inodes.add(3, tree)
    assert inodes.place(3) == Place(tree, BASE, 0)
    assert [inodes.place(BASE + number) for number in (1, 3)] == [Place(tree, BASE, 1), Place(tree, BASE, 3)]
    assert [inodes.node(BASE + number) for number in (1, 2, 3)] == [tree.node(1), tree.node(2), OTHER]


def test_directories_of_a_tree_lead_up_to_the_lazy_directory_and_on_to_the_view() -> None:
    _, inodes = with_lazy(lazy())
    inodes.add(3, made())
    assert [inodes.parent(number) for number in (BASE + 2, 3)] == [3, ROOT]


def test_an_unsettled_directory_has_its_own_attributes_until_the_tree_gives_it_others() -> None:
    directory = lazy(settled=False)
    _, inodes = with_lazy(directory)
    assert inodes.node(3) is directory
    tree = made()
    inodes.add(3, tree)
    assert inodes.node(3) is tree.node(0)


def test_a_settled_directory_keeps_its_own_attributes() -> None:
    directory = lazy()
    _, inodes = with_lazy(directory)
    inodes.add(3, made())
    assert inodes.node(3) is directory


def test_one_tree_below_two_directories_has_two_sets_of_numbers() -> None:
    shared, tree = lazy(), made()
    inodes = Inodes(KnownTree(Directory(ATTRIBUTES, {b"0": shared, b"1": shared})))
    inodes.add(2, tree)
    inodes.add(3, tree)
    assert inodes.place((2 << 48) + 1) == Place(tree, 2 << 48, 1)
    assert inodes.place(BASE + 1) == Place(tree, BASE, 1)


def test_numbers_far_down_a_tree_of_many_records_stay_its_own() -> None:
    # Layer 126 above bit 32, the last record below it: still under the directory's own bits.
    class Wide(KnownTree):
        def node(self, number: int) -> RegularFile:
            assert number == (126 << 32) + 0xFFFFFFFF
            return OTHER

    _, inodes = with_lazy(lazy())
    inodes.add(3, Wide(Directory(OWN)))
    assert inodes.node(BASE + (126 << 32) + 0xFFFFFFFF) is OTHER


def nested() -> KnownTree:
    """Return a tree with two lazy directories, 1 and 2, and a directory, 3, with a third one, 4."""
    below = {b"2": Directory(OWN, {b"3": lazy(settled=False)})}
    return KnownTree(Directory(OWN, {b"0": lazy(), b"1": lazy(), **below}))


FIRST = 4 << 48
"""What is added to the numbers of the first tree below a tree, where the view has the numbers 1 to 3."""


def test_a_lazy_directory_below_another_has_a_tree_of_its_own_and_the_number_that_its_parent_lists() -> None:
    _, inodes = with_lazy(lazy())
    above, tree = nested(), made()
    inodes.add(3, above)
    directory = inodes.unmade(BASE + 2)
    assert directory is above.node(2)
    assert inodes.place(BASE + 2) == Place(above, BASE, 2)
    inodes.add(BASE + 2, tree)
    assert inodes.unmade(BASE + 2) is None
    assert inodes.node(BASE + 2) is directory
    assert inodes.place(BASE + 2) == Place(tree, FIRST, 0)
    assert inodes.node(FIRST + 3) is OTHER
    assert [inodes.parent(number) for number in (FIRST + 2, BASE + 2, BASE + 4, 3)] == [BASE + 2, 3, BASE + 3, ROOT]


def test_an_unsettled_directory_far_down_has_the_attributes_of_its_tree_once_that_is_made() -> None:
    _, inodes = with_lazy(lazy())
    inodes.add(3, nested())
    before = inodes.stat(BASE + 4)
    inodes.add(BASE + 4, made())
    after = inodes.stat(BASE + 4)
    assert before is not None
    assert after is not None
    assert (before.mode & 0o777, before.uid, after.mode & 0o777, after.uid) == (0o755, 0, 0o700, 1)


def test_a_tree_keeps_its_numbers_however_often_it_is_added_and_whatever_comes_after_it() -> None:
    _, inodes = with_lazy(lazy())
    inodes.add(3, nested())
    trees = {BASE + 2: made(), BASE + 1: made(), BASE + 4: made()}
    for number, tree in trees.items():
        for _ in range(2):
            inodes.add(number, tree)
    places = [inodes.place(number) for number in trees]
    assert places == [Place(tree, (4 + at) << 48, 0) for at, tree in enumerate(trees.values())]


def test_lazy_directories_nest_to_any_depth() -> None:
    _, inodes = with_lazy(lazy())
    here, numbers = 3, []
    for _ in range(100):
        numbers.append(here)
        inodes.add(here, nested())
        place = inodes.place(here)
        assert place is not None
        here = place.inode(2)
        assert inodes.parent(here) == numbers[-1]
    assert len(set(numbers)) == 100


def test_when_all_numbers_for_trees_are_taken_the_next_one_is_unavailable_and_the_others_stay() -> None:
    _, inodes = with_lazy(lazy())
    wide = KnownTree(Directory(OWN, {b"%d" % number: lazy() for number in range(1 << 16)}))
    inodes.add(3, wide)
    tree, room = made(), (1 << 16) - 4
    for number in range(1, 1 + room):
        inodes.add(BASE + number, tree)
    with pytest.raises(Unavailable, match="more than 65536 lazy directories"):
        inodes.add(BASE + room + 1, tree)
    assert inodes.place(BASE + room) == Place(tree, 0xFFFF << 48, 0)
    assert inodes.place(BASE + room + 1) == Place(wide, BASE, room + 1)
