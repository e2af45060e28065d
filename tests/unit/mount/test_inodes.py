"""Inode numbers."""

import sys

import pytest

from fusefs.content.protocol import Literal
from fusefs.mount.inodes import ROOT, Inodes
from fusefs.tree.node import Attributes, Directory, KnownTree, LazyDirectory, Node, RegularFile, Tree

ATTRIBUTES = Attributes(0o755, 0, 0, 0)
OWN = Attributes(0o700, 1, 2, 3)
FILE = RegularFile(ATTRIBUTES, Literal(b"x"))
OTHER = RegularFile(ATTRIBUTES, Literal(b"y"))
PAGE = 4096
"""Numbers of a tree that get inode numbers in a row."""


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


def below(inodes: Inodes, directory: int, number: int) -> int:
    """Return the inode number of a node of the tree that the lazy directory with the inode number *directory* has."""
    place = inodes.place(directory)
    assert place is not None
    return place.numbered.inode(number)


def placed(inodes: Inodes, inode: int) -> tuple[Tree, int] | None:
    """Return the tree of a node, and its number in it."""
    place = inodes.place(inode)
    return place and (place.tree, place.number)


def test_the_view_has_small_numbers_from_the_root_that_fuse_fixes() -> None:
    inner = Directory(ATTRIBUTES, {b"x": OTHER})
    root = Directory(ATTRIBUTES, {b"b": inner, b"a": FILE})
    view = KnownTree(root)
    inodes = Inodes(view)
    assert [inodes.node(number) for number in (ROOT, 2, 3, 4)] == [root, inner, FILE, OTHER]
    assert [placed(inodes, number) for number in (ROOT, 4)] == [(view, 0), (view, 3)]
    assert below(inodes, ROOT, 3) == 4


@pytest.mark.parametrize("nodes", [PAGE - 2, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
def test_a_large_view_has_numbers_of_its_own(nodes: int) -> None:
    names: dict[bytes, Node] = {b"%d" % number: FILE for number in range(nodes - 2)}
    view = KnownTree(Directory(ATTRIBUTES, {**names, b"0": lazy()}))
    assert len(view) == nodes - 1
    inodes = Inodes(view)
    directory = next(number for number in range(ROOT, ROOT + nodes) if isinstance(inodes.node(number), LazyDirectory))
    assert (inodes.node(nodes - 1), inodes.node(nodes)) == (view.node(nodes - 2), None)
    tree = made()
    inodes.add(directory, tree)
    numbers = [below(inodes, directory, number) for number in range(4)]
    assert min(numbers) > nodes - 1
    assert [placed(inodes, number) for number in numbers] == [(tree, number) for number in range(4)]


def test_the_root_is_its_own_parent_and_others_have_theirs() -> None:
    inodes = Inodes(KnownTree(Directory(ATTRIBUTES, {b"b": Directory(ATTRIBUTES, {b"c": Directory(ATTRIBUTES)})})))
    assert [inodes.parent(number) for number in (ROOT, 2, 3)] == [ROOT, ROOT, 2]


def test_nobody_has_other_numbers() -> None:
    _, inodes = with_lazy(lazy())
    for number in (-1, 0, 4, PAGE - 1, PAGE, PAGE + 1, 1 << 32, 3 << 48, 1 << 63):
        assert inodes.node(number) is None
        assert inodes.stat(number) is None
        assert inodes.place(number) is None
        assert inodes.unmade(number) is None


def test_only_a_lazy_directory_whose_tree_is_still_to_come_is_unmade() -> None:
    directory = lazy()
    _, inodes = with_lazy(directory)
    assert [inodes.unmade(number) for number in (ROOT, 2, 3)] == [None, None, directory]
    inodes.add(3, made())
    assert inodes.unmade(3) is None


def test_a_tree_gets_the_next_numbers_when_one_of_its_nodes_is_looked_at() -> None:
    view, inodes = with_lazy(lazy())
    assert placed(inodes, 3) == (view, 2)
    tree = made()
    inodes.add(3, tree)
    assert placed(inodes, 3) == (tree, 0)
    assert placed(inodes, PAGE + 1) is None
    numbers = [below(inodes, 3, number) for number in (1, 2, 3)]
    assert numbers == [PAGE + 1, PAGE + 2, PAGE + 3]
    assert [placed(inodes, number) for number in numbers] == [(tree, 1), (tree, 2), (tree, 3)]
    assert [inodes.node(number) for number in numbers] == [tree.node(1), tree.node(2), OTHER]


def test_directories_of_a_tree_lead_up_to_the_lazy_directory_and_on_to_the_view() -> None:
    _, inodes = with_lazy(lazy())
    inodes.add(3, made())
    assert [inodes.parent(number) for number in (below(inodes, 3, 2), 3)] == [3, ROOT]


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
    numbers = [below(inodes, directory, 1) for directory in (2, 3)]
    assert numbers[0] != numbers[1]
    assert [placed(inodes, number) for number in numbers] == [(tree, 1)] * 2


class Wide(KnownTree):
    """A tree that has a node of every number."""

    def node(self, number: int) -> RegularFile:
        return RegularFile(ATTRIBUTES, Literal(b"%d" % number))


FAR = (126 << 32) + 0xFFFFFFFF
"""The last record of the last layer: the greatest number of a node."""


def test_numbers_do_not_depend_on_those_in_the_tree_and_stay() -> None:
    _, inodes = with_lazy(lazy())
    wide = Wide(Directory(OWN))
    inodes.add(3, wide)
    looked_at = [FAR, 0, 1, FAR - 1, PAGE - 1, PAGE, 1 << 32, (1 << 32) + PAGE - 1, FAR - PAGE]
    numbers = [below(inodes, 3, number) for number in looked_at]
    assert [below(inodes, 3, number) for number in reversed(looked_at)] == numbers[::-1]
    assert len(set(numbers)) == len(looked_at)
    assert max(numbers) < 6 * PAGE
    assert [placed(inodes, number) for number in numbers] == [(wide, number) for number in looked_at]


def test_the_pages_that_are_looked_at_first_have_numbers_below_two_to_the_32() -> None:
    _, inodes = with_lazy(lazy())
    wide = Wide(Directory(OWN))
    inodes.add(3, wide)
    inodes._pages._next = (1 << 32) // PAGE - 1  # as if all pages but one had been looked at
    assert [below(inodes, 3, number) for number in (FAR, 0)] == [(1 << 32) - 1, 1 << 32]
    assert [placed(inodes, (1 << 32) + number) for number in (-1, 0)] == [(wide, FAR), (wide, 0)]


def test_memory_grows_with_the_pages_that_are_looked_at_and_not_with_the_nodes() -> None:
    _, inodes = with_lazy(lazy())
    inodes.add(3, Wide(Directory(OWN)))
    before = sys.getallocatedblocks()
    for number in range(0, 1000 * PAGE, PAGE // 8):
        below(inodes, 3, number)
    assert sys.getallocatedblocks() - before < 6 * 1000


def nested() -> KnownTree:
    """Return a tree with two lazy directories, 1 and 2, and a directory, 3, with a third one, 4."""
    down = {b"2": Directory(OWN, {b"3": lazy(settled=False)})}
    return KnownTree(Directory(OWN, {b"0": lazy(), b"1": lazy(), **down}))


def test_a_lazy_directory_below_another_has_a_tree_of_its_own_and_the_number_that_its_parent_lists() -> None:
    _, inodes = with_lazy(lazy())
    above, tree = nested(), made()
    inodes.add(3, above)
    number = below(inodes, 3, 2)
    directory = inodes.unmade(number)
    assert directory is above.node(2)
    assert placed(inodes, number) == (above, 2)
    inodes.add(number, tree)
    assert inodes.unmade(number) is None
    assert inodes.node(number) is directory
    assert placed(inodes, number) == (tree, 0)
    assert inodes.node(below(inodes, number, 3)) is OTHER
    assert inodes.parent(below(inodes, number, 2)) == number
    assert [inodes.parent(below(inodes, 3, at)) for at in (2, 4)] == [3, below(inodes, 3, 3)]
    assert inodes.parent(3) == ROOT


def test_an_unsettled_directory_far_down_has_the_attributes_of_its_tree_once_that_is_made() -> None:
    _, inodes = with_lazy(lazy())
    inodes.add(3, nested())
    number = below(inodes, 3, 4)
    before = inodes.stat(number)
    inodes.add(number, made())
    after = inodes.stat(number)
    assert before is not None
    assert after is not None
    assert (before.mode & 0o777, before.uid, after.mode & 0o777, after.uid) == (0o755, 0, 0o700, 1)


def test_a_tree_keeps_its_numbers_however_often_it_is_added_and_whatever_comes_after_it() -> None:
    _, inodes = with_lazy(lazy())
    inodes.add(3, nested())
    trees = {below(inodes, 3, number): made() for number in (2, 1, 4)}
    numbers = []
    for number, tree in trees.items():
        for _ in range(2):
            inodes.add(number, tree)
            numbers.append(below(inodes, number, 3))
    assert numbers[::2] == numbers[1::2] == [below(inodes, number, 3) for number in trees]
    assert [placed(inodes, number) for number in trees] == [(tree, 0) for tree in trees.values()]


def test_lazy_directories_nest_to_any_depth() -> None:
    _, inodes = with_lazy(lazy())
    here, numbers = 3, []
    for _ in range(100):
        numbers.append(here)
        inodes.add(here, nested())
        here = below(inodes, here, 2)
        assert inodes.parent(here) == numbers[-1]
    assert len(set(numbers)) == 100


def test_more_lazy_directories_than_16_bits_count_have_trees() -> None:
    _, inodes = with_lazy(lazy())
    count = (1 << 16) + 1
    inodes.add(3, KnownTree(Directory(OWN, {b"%d" % number: lazy() for number in range(count)})))
    tree = made()
    for number in range(1, count + 1):
        inodes.add(below(inodes, 3, number), tree)
    last = below(inodes, below(inodes, 3, count), 3)
    assert (placed(inodes, last), last < 1 << 32) == ((tree, 3), True)
