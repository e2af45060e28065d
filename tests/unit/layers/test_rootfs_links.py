"""Hard links across layers, numbers, lookups and depth of the merged tree."""

import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from fusefs.layers.rootfs import RootfsTree
from fusefs.tree.node import Directory
from tests.conftest import TakeWarnings
from tests.support.changesets import (
    A_FOLDER,
    IMPLICIT,
    About,
    a_file,
    a_symlink,
    all_indexed,
    changeset,
    everything,
    file,
    folder,
    hard_link,
    numbers,
    opaque,
    rootfs_of,
    same_file,
    shown,
    symlink,
    whiteout,
)
from tests.support.trees import check_directories

ABOUT = About(0o4755, 1, 2, 3_000000004)


def test_a_hard_link_to_a_name_in_a_lower_layer_is_that_file() -> None:
    layers = [changeset(file("a", b"1", ABOUT)), changeset(hard_link("d/b", "/a", About(0o600)))]
    expected = a_file(b"1", nlink=2).with_(ABOUT)
    assert rootfs_of(*layers) == shown(("a", expected), ("d", IMPLICIT), ("d/b", expected))
    with all_indexed(layers) as files:
        assert same_file(RootfsTree(files, transform_symlinks=False)) == {frozenset([b"a", b"d/b"])}


def test_a_hard_link_keeps_the_bytes_when_a_later_layer_replaces_its_other_name() -> None:
    layers = [changeset(file("a", b"old"), hard_link("b", "a")), changeset(file("a", b"new"))]
    assert rootfs_of(*layers) == shown(("a", a_file(b"new")), ("b", a_file(b"old", nlink=2)))


def test_a_hard_link_keeps_the_bytes_when_a_later_layer_removes_its_other_name() -> None:
    layers = [changeset(file("a", b"old"), hard_link("d/b", "a")), changeset(whiteout("a"))]
    assert rootfs_of(*layers) == shown(("d", IMPLICIT), ("d/b", a_file(b"old", nlink=2)))


def test_a_hard_link_into_a_lower_layer_keeps_the_bytes_when_its_own_layer_replaces_or_removes_the_name() -> None:
    base = changeset(file("a", b"old"))
    link = hard_link("b", "a")
    old, new = ("b", a_file(b"old", nlink=2)), ("a", a_file(b"new"))
    assert rootfs_of(base, changeset(link, file("a", b"new"))) == shown(old, new)
    assert rootfs_of(base, changeset(link, whiteout("a"))) == shown(old)
    assert rootfs_of(base, changeset(link), changeset(file("a", b"new"))) == shown(old, new)
    assert rootfs_of(base, changeset(link), changeset(whiteout("a"))) == shown(old)


def test_a_hard_link_binds_to_what_its_own_layer_has_at_that_moment() -> None:
    base = changeset(file("a", b"low"))
    assert rootfs_of(base, changeset(file("a", b"up"), hard_link("b", "a"))) == shown(
        ("a", a_file(b"up", nlink=2)), ("b", a_file(b"up", nlink=2))
    )
    assert rootfs_of(base, changeset(hard_link("b", "a"), file("a", b"up"))) == shown(
        ("a", a_file(b"up")), ("b", a_file(b"low", nlink=2))
    )


def test_a_hard_link_sees_the_layers_below_its_own_merged() -> None:
    layers = [
        changeset(file("d/a", b"0"), file("d/gone", b"0"), file("o/x", b"0")),
        changeset(file("d/a", b"1"), whiteout("d/gone"), opaque("o"), file("o/y", b"1")),
        changeset(hard_link("a", "d/a"), hard_link("y", "o/y")),
    ]
    expected = rootfs_of(*layers)
    assert (expected[b"a"], expected[b"y"]) == (a_file(b"1", nlink=2), a_file(b"1", nlink=2))


def test_a_hard_link_may_be_to_a_hard_link_into_a_layer_lower_still() -> None:
    layers = [changeset(file("0", b"base")), *(changeset(hard_link(str(n), str(n - 1))) for n in range(1, 127))]
    assert rootfs_of(*layers) == shown(*((str(n), a_file(b"base", nlink=127)) for n in range(127)))


def test_a_hard_link_to_a_symlink_of_a_lower_layer_is_that_symlink() -> None:
    layers = [changeset(symlink("a", "t")), changeset(hard_link("b", "a"))]
    assert rootfs_of(*layers) == shown(
        ("a", a_symlink(b"t")._replace(nlink=2)), ("b", a_symlink(b"t")._replace(nlink=2))
    )


@pytest.mark.parametrize("target", ["d/real", "/d/real", "../../d/real", "d/../d/./real//", "up/real", "n"])
def test_a_hard_link_goes_through_symlinks_of_lower_layers(target: str) -> None:
    layers = [
        changeset(file("d/real/x", b"1"), symlink("up", "n/.."), symlink("n", "d/real"), symlink("l", target)),
        changeset(hard_link("b", "l/x")),
    ]
    found = rootfs_of(*layers)
    assert found[b"b"] == found[b"d/real/x"] == a_file(b"1", nlink=2)
    with all_indexed(layers) as files:
        assert same_file(RootfsTree(files, transform_symlinks=False)) == {frozenset([b"b", b"d/real/x"])}


def test_a_hard_link_through_a_symlink_of_a_lower_layer_may_be_to_a_file_of_its_own() -> None:
    base = changeset(folder("d"), symlink("l", "d"))
    assert rootfs_of(base, changeset(file("d/x", b"1"), hard_link("b", "l/x")))[b"b"] == a_file(b"1", nlink=2)


@pytest.mark.parametrize(
    "target", ["l", "l/x", "m", "gone", "f", "w/../real", "/".join(["real", ".."] * 128)],
    ids=["itself", "below itself", "a loop", "dangling", "a file", "through nothing", "too long"],
)  # fmt: skip
def test_a_hard_link_through_a_symlink_that_leads_nowhere_is_to_nothing(
    take_warnings: TakeWarnings, target: str
) -> None:
    layers = [
        changeset(file("real/x", b"1"), file("f"), symlink("m", "l"), symlink("l", target)),
        changeset(hard_link("b", "l/x"), hard_link("c", "f/x"), hard_link("e", "l/c")),
    ]
    found = rootfs_of(*layers)
    assert {b"b", b"c", b"e"}.isdisjoint(found)
    assert take_warnings() == ["layer 1: skipped 3 hard links to nothing; the first: b"]


def test_a_hard_link_to_nothing_or_to_a_directory_below_is_not_there(take_warnings: TakeWarnings) -> None:
    layers = [
        changeset(file("d/x"), whiteout("w")),
        changeset(hard_link("1", "no"), hard_link("2", "d"), hard_link("3", "d/x/y"),
                  hard_link("5", "6"), hard_link("6", "5"), hard_link("8", "9")),
        changeset(file("9")),
    ]  # fmt: skip
    assert rootfs_of(*layers) == shown(("d", IMPLICIT), ("d/x", a_file()), ("9", a_file()))
    assert take_warnings() == ["layer 1: skipped 6 hard links to nothing; the first: 1"]


def test_a_hard_link_to_nothing_is_warned_of(take_warnings: TakeWarnings) -> None:
    layers = [changeset(file("x")), changeset(hard_link("broken", "no/where"))]
    assert rootfs_of(*layers) == shown(("x", a_file()))
    assert take_warnings() == ["layer 1: skipped 1 hard links to nothing; the first: broken"]


def test_nlink_counts_the_names_in_the_file_s_own_layer_and_the_links_from_above_that_are_shown() -> None:
    layers = [
        changeset(file("a"), hard_link("b", "a"), hard_link("c", "a")),
        changeset(whiteout("b"), hard_link("d", "a"), hard_link("e", "d"), hard_link("f", "a")),
        changeset(whiteout("f")),
    ]
    assert rootfs_of(*layers) == shown(*((name, a_file(nlink=5)) for name in "acde"))


STACK = [
    changeset(folder("d"), file("d/x"), file("d/sub/y"), hard_link("x", "d/x"), file("gone/z"), symlink("s", "/d")),
    changeset(file("d/sub/w"), hard_link("low", "gone/z"), whiteout("gone"), folder("e")),
    changeset(folder("d/sub"), opaque("e"), file("e/f/g"), hard_link("e/low", "d/x"), file("d/x", b"new")),
]


def test_listing_lookup_and_parent_agree() -> None:
    with all_indexed(STACK) as files:
        check_directories(RootfsTree(files, transform_symlinks=False))


def test_a_number_is_the_layer_and_the_record_of_the_uppermost_and_the_root_is_0() -> None:
    with all_indexed(STACK) as files:
        found = numbers(RootfsTree(files, transform_symlinks=False))
    layers = {path: number >> 32 for path, number in found.items()}
    assert layers == {
        b"": 0, b"d": 2, b"d/x": 2, b"d/sub": 2, b"d/sub/y": 0, b"d/sub/w": 1, b"x": 0, b"s": 0, b"low": 0,
        b"e": 2, b"e/f": 2, b"e/f/g": 2, b"e/low": 0,
    }  # fmt: skip
    assert found[b""] == 0
    assert found[b"x"] == found[b"e/low"]
    assert len(set(found.values())) == len(found) - 1


def test_numbers_are_the_same_in_two_trees_of_one_image_whatever_was_asked_before() -> None:
    with all_indexed(STACK) as one, all_indexed(STACK) as other:
        first, second = (RootfsTree(files, transform_symlinks=False) for files in (one, other))
        found = numbers(first)
        asked_last_first = {}
        for path, number in reversed(found.items()):
            if isinstance(second.node(number), Directory):
                asked_last_first[path] = list(second.listing(number))
                assert second.parent(number) == found[path.rpartition(b"/")[0]]
        assert asked_last_first == {path: list(first.listing(found[path])) for path in asked_last_first}
        assert everything(first) == everything(second)


def test_absolute_targets_lead_into_the_mount_from_where_the_link_is() -> None:
    layers = [changeset(symlink("a", "/x"), symlink("d/b", "/x"), symlink("d/r", "x")), changeset(folder("d"))]
    found = rootfs_of(*layers, transform_symlinks=True)
    assert [found[path].target for path in (b"a", b"d/b", b"d/r")] == [b"x", b"../x", b"x"]


def test_a_link_that_is_kept_inside_has_the_depth_of_each_of_its_names() -> None:
    layers = [changeset(symlink("a/b/s", "/x"), hard_link("near", "a/b/s")), changeset(hard_link("c/t", "a/b/s"))]
    with all_indexed(layers) as files:
        tree = RootfsTree(files, transform_symlinks=True)
        assert same_file(tree) == set()
        check_directories(tree)
        found = everything(tree)
    expected = {b"a/b/s": b"../../x", b"near": b"x", b"c/t": b"../x"}
    assert {path: found[path] for path in expected} == {path: a_symlink(to) for path, to in expected.items()}


def test_10_000_directories_in_each_other_are_merged_without_a_deep_stack() -> None:
    path = "/".join(["d"] * 10_000)
    layers = [
        changeset(file(f"{path}/x")),
        changeset(file(f"{path}/y"), whiteout(f"{path}/z"), hard_link("l", f"{path}/x")),
    ]
    with all_indexed(layers) as files:
        tree = RootfsTree(files, transform_symlinks=True)
        deepest = (1 << 32) + 10_000 + sum(name < b"d" for name in (b"l",)) + 1
        listed = dict(tree.listing(deepest))
        assert listed == {name: tree.find(deepest, name) for name in (b"x", b"y")}
        assert tree.find(0, b"l") == listed[b"x"]
        assert tree.parent(deepest) == deepest - 1
        assert isinstance(tree.node(deepest), Directory)


def test_a_look_2_000_directories_deep_takes_memory_in_proportion() -> None:
    path = "/".join(["d"] * 2_000)
    with all_indexed([changeset(file(f"{path}/x")), changeset(file(f"{path}/y"))]) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        tracemalloc.start()
        try:
            assert tree.find((1 << 32) + 2_000, b"x") is not None
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2_000 * 1000


def test_any_number_of_threads_may_ask_for_any_number_of_directories() -> None:
    names = [b"d%d/e" % number for number in range(3000)]
    layers = [changeset(*(file(name + b"/x") for name in names)), changeset(*(file(name + b"/y") for name in names))]
    interval = sys.getswitchinterval()
    with all_indexed(layers) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        expected = numbers(tree)
        directories = [expected[name] for name in names]

        def ask(first: int) -> list[int | None]:
            turned = directories[first:] + directories[:first]
            found = [tree.find(number, b"x") for number in turned]
            return found[-first:] + found[:-first]

        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(ask, (500, 1000, 1500, 2000)))
        finally:
            sys.setswitchinterval(interval)
    assert answers == [[expected[name + b"/x"] for name in names]] * 4


def test_a_directory_has_one_number_however_it_is_reached() -> None:
    layers = [changeset(folder("d"), file("d/e/x")), changeset(file("d/e/y")), changeset(folder("d"))]
    with all_indexed(layers) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        outer = tree.find(0, b"d")
        assert outer is not None
        inner = tree.find(outer, b"e")
        assert inner is not None
        assert (dict(tree.listing(0))[b"d"], dict(tree.listing(outer))[b"e"]) == (outer, inner)
        assert (tree.parent(inner), tree.parent(outer), tree.parent(0)) == (outer, 0, 0)
        assert tree.node(outer) == Directory(tree.node(outer).attributes)


def test_a_name_that_is_not_there_is_not_found() -> None:
    with all_indexed([changeset(folder("d", ABOUT)), changeset(whiteout("w"))]) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        assert [tree.find(0, name) for name in (b"", b"w", b".wh.w", b".wh..wh..opq", b"x" * 255)] == [None] * 5
        assert everything(tree) == shown(("d", A_FOLDER.with_(ABOUT)))
