"""A layer's tree: numbers, lookups, parents, links that lead into the mount, and its size."""

import pytest

from fusefs.layers.tree import LayerTree, relative
from tests.support.changesets import (
    a_file,
    a_symlink,
    changeset,
    everything,
    file,
    folder,
    hard_link,
    indexed,
    layer_of,
    numbers,
    same_file,
    shown,
    symlink,
    whiteout,
)
from tests.support.trees import check_directories

LAYER = changeset(
    file("b/x", b"1"),
    hard_link("a", "b/x"),
    folder("c/d"),
    file("c/d/e", b"2"),
    whiteout("c/f"),
    symlink("s", "a"),
    hard_link("lower", "not/here"),
)


def test_a_number_is_that_of_the_record_and_the_root_is_0() -> None:
    with indexed(LAYER) as layer:
        found = numbers(LayerTree(layer.files, transform_symlinks=False))
    assert found == {b"": 0, b"a": 1, b"b": 2, b"c": 3, b"s": 5, b"b/x": 1, b"c/.wh.f": 7, b"c/d": 8, b"c/d/e": 9}


def test_names_of_one_file_have_one_number() -> None:
    with indexed(LAYER) as layer:
        assert same_file(LayerTree(layer.files, transform_symlinks=False)) == {frozenset([b"a", b"b/x"])}


def test_listing_lookup_and_parent_agree() -> None:
    with indexed(LAYER) as layer:
        check_directories(LayerTree(layer.files, transform_symlinks=False))


def test_numbers_are_the_same_in_two_trees_of_one_layer() -> None:
    with indexed(LAYER) as one, indexed(LAYER) as other:
        trees = [LayerTree(layer.files, transform_symlinks=False) for layer in (one, other)]
        assert numbers(trees[0]) == numbers(trees[1])
        assert everything(trees[0]) == everything(trees[1])


def test_a_link_to_a_lower_layer_is_neither_listed_nor_found() -> None:
    with indexed(LAYER) as layer:
        tree = LayerTree(layer.files, transform_symlinks=False)
        assert tree.find(0, b"lower") is None
        assert [name for name, _ in tree.listing(0)] == [b"a", b"b", b"c", b"s"]


@pytest.mark.parametrize(
    ("target", "depth", "expected"),
    [
        (b"/etc/x", 0, b"etc/x"),
        (b"/etc/x", 1, b"../etc/x"),
        (b"//etc/x", 3, b"../../../etc/x"),
        (b"/", 0, b"."),
        (b"/", 2, b"../../"),
        (b"/..", 1, b"../"),
        (b"/../../etc/x", 2, b"../../etc/x"),
        (b"etc/x", 2, b"etc/x"),
        (b"../../x", 2, b"../../x"),
        (b"../../x", 1, b"../x"),
        (b"./..//x/", 1, b"./..//x/"),
        (b"../x/", 0, b"x/"),
        (b"..", 0, b"."),
        (b"", 1, b""),
        (b"x/../../y", 1, b"../y"),
        (b"x/../../y", 0, b"y"),
        (b"x/..", 1, b"."),
        (b"x/y/..", 1, b"x/"),
        (b"/x/y/../../../../etc/hostname", 0, b"etc/hostname"),
        (b"/x/y/../../../../etc/hostname", 2, b"../../etc/hostname"),
    ],
)
def test_an_absolute_target_can_be_said_from_where_the_link_is(target: bytes, depth: int, expected: bytes) -> None:
    assert relative(target, depth) == expected


SYMLINKS = changeset(symlink("a", "/x"), symlink("d/b", "/d/a"), symlink("d/e/c", "/"), symlink("d/r", "../x"))


def test_targets_are_shown_verbatim() -> None:
    found = layer_of(SYMLINKS)
    assert [found[path].target for path in (b"a", b"d/b", b"d/e/c", b"d/r")] == [b"/x", b"/d/a", b"/", b"../x"]


def test_absolute_targets_lead_into_the_mount_if_asked() -> None:
    found = layer_of(SYMLINKS, transform_symlinks=True)
    targets = [b"x", b"../d/a", b"../../", b"../x"]
    assert [found[path] for path in (b"a", b"d/b", b"d/e/c", b"d/r")] == [a_symlink(target) for target in targets]


def test_names_of_a_link_that_leads_into_the_mount_are_links_of_their_own() -> None:
    found = layer_of(changeset(symlink("a/b/s", "/x"), hard_link("t", "a/b/s")), transform_symlinks=True)
    assert [found[path] for path in (b"a/b/s", b"t")] == [a_symlink(b"../../x"), a_symlink(b"x")]


def test_a_target_that_becomes_too_long_for_a_link_is_still_not_the_one_that_leads_out() -> None:
    """The kernel takes 4095 bytes; the mount says so at readlink(2)."""
    target = "/" + "t" * 4094
    found = layer_of(changeset(symlink("a/b", target)), transform_symlinks=True)
    assert found[b"a/b"] == a_symlink(b".." + target.encode())


def test_10_000_directories_in_each_other_are_indexed_listed_found_and_climbed() -> None:
    path = "/".join(["d"] * 10_000)
    with indexed(changeset(file(f"{path}/x", b"1"), folder(path), hard_link("top", f"{path}/x"))) as layer:
        tree = LayerTree(layer.files, transform_symlinks=True)
        number, depth = 0, 0
        while (below := tree.find(number, b"d")) is not None:
            assert (b"d", below) in tree.listing(number)
            assert tree.parent(below) == number
            number, depth = below, depth + 1
        assert depth == 10_000
        assert tree.find(number, b"x") == tree.find(0, b"top")


def test_one_empty_layer_has_nothing_but_its_root() -> None:
    assert layer_of(changeset()) == shown()


def test_a_large_directory_is_listed_whole_and_in_order() -> None:
    names = [f"{number:05}" for number in range(5000)]
    assert layer_of(changeset(*map(file, reversed(names)))) == shown(*((name, a_file()) for name in names))
