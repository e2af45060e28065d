"""Random stacks of changesets, against a model that applies them one after the other, path by path.

The model knows nothing of records or of directories on demand: it unpacks into a dictionary.
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.tree.node import Directory, Symlink, Tree
from tests.conftest import TakeWarnings
from tests.support.changesets import Shown, all_indexed, everything, numbers, same_file
from tests.support.drawn_layers import (
    LAYERS,
    MEMBERS,
    OPAQUE,
    PATHS,
    Drawn,
    Path,
    RefusedError,
    Thing,
    Things,
    removed,
    shown_ones,
    tar,
    unpacked,
    walked,
)
from tests.support.trees import check_directories


def is_mark(path: Path) -> bool:
    """Return whether *path* is one of a whiteout, or below one."""
    return any(part.startswith(".wh.") for part in path)


def applied(below: Things, layer: Things) -> Things:
    """Return the layers *below* with one more."""
    result = dict(below)
    for path in layer:
        if path and path[-1].startswith(".wh."):
            hidden = path[:-1] if path[-1] == OPAQUE else (*path[:-1], path[-1][4:])
            kept = {hidden: result[hidden]} if path[-1] == OPAQUE and hidden in result else {}
            removed(result, hidden)
            result |= kept
    for path in sorted(layer, key=len):
        thing, there = layer[path], result.get(path)
        if is_mark(path):
            continue
        if thing.is_folder and there is not None and there.is_folder:
            result[path] = there if thing.implicit else thing
            continue
        removed(result, path)
        target = thing if thing.lower is None else linked(below, layer, thing.lower)
        if target is thing or (target is not None and not target.is_folder):
            result[path] = target
    return result


def linked(below: Things, layer: Things, path: Path) -> Thing | None:
    """Return what a hard link to *path* is, which its *layer* does not have."""
    try:
        directory, rest = walked(below, path[:-1], lambda _: False)
    except RefusedError:
        return None
    place = (*directory, path[-1])
    if rest or place in below or place == path:
        return None if rest else below.get(place)
    own = layer.get(place)  # through a link below
    return own if own is not None and own.lower is None else None


def as_shown(things: Things) -> Shown:
    """Return what a tree of *things* shows."""
    return {"/".join(path).encode(): thing.seen for path, thing in things.items() if thing.lower is None}


def without_nlink(files: Shown) -> Shown:
    """Return *files* without the one thing that the model does not know of merged ones."""
    return {path: seen._replace(nlink=1) for path, seen in files.items()}


def as_groups(things: Things) -> set[frozenset[bytes]]:
    """Return the paths that are names of one file, where it has several."""
    groups: dict[int, set[bytes]] = {}
    for path, thing in things.items():
        if thing.lower is None:
            groups.setdefault(id(thing), set()).add("/".join(path).encode())
    return {frozenset(paths) for paths in groups.values() if len(paths) > 1}


@given(members=st.lists(MEMBERS, max_size=15))
@settings(max_examples=300)
def test_a_layer_is_what_unpacking_it_gives(members: list[Drawn]) -> None:
    members = shown_ones(members)
    expected = unpacked(members)
    with all_indexed([tar(members)]) as (files,):
        tree = LayerTree(files, transform_symlinks=False)
        assert everything(tree) == as_shown(expected)
        assert same_file(tree) == as_groups(expected)
        check_directories(tree)


@given(layers=LAYERS)
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_merged_layers_are_what_applying_them_one_after_the_other_gives(
    take_warnings: TakeWarnings, layers: list[list[Drawn]]
) -> None:
    layers = list(map(shown_ones, layers))
    expected: Things = {}
    for layer in layers:
        expected = applied(expected, unpacked(layer))
    with all_indexed([tar(layer) for layer in layers]) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        found = everything(tree)
        assert without_nlink(found) == without_nlink(as_shown(expected))
        assert same_file(tree) == as_groups(expected)
        # With fewer than there are, programs that copy would not look for the others.
        assert all(found[path].nlink >= len(names) for names in same_file(tree) for path in names)
    take_warnings()  # links to nothing are among what is drawn


@given(layers=LAYERS, places=st.lists(st.integers(0, 4), min_size=1, max_size=40))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_layers_merge_and_a_repeated_one_is_no_exception(
    take_warnings: TakeWarnings, layers: list[list[Drawn]], places: list[int]
) -> None:
    layers = list(map(shown_ones, layers))
    stack = [layers[place % len(layers)] for place in places]
    expected: Things = {}
    for layer in stack:
        expected = applied(expected, unpacked(layer))
    with all_indexed([tar(layer) for layer in layers]) as once, all_indexed([tar(layer) for layer in stack]) as each:
        repeated = RootfsTree([once[place % len(once)] for place in places], transform_symlinks=False)
        separate = RootfsTree(each, transform_symlinks=False)
        for tree in (repeated, separate):
            assert without_nlink(everything(tree)) == without_nlink(as_shown(expected))
            assert same_file(tree) == as_groups(expected)
            check_directories(tree)
        assert numbers(repeated) == numbers(separate)
    take_warnings()


STEPS = st.sampled_from(["a", "b", "c", "..", "..", ".", ""])
LINKS = st.builds(Drawn, st.just("symlink"), PATHS, st.lists(STEPS, min_size=1, max_size=7).map("/".join).filter(bool))
CLIMBING = st.lists(st.lists(MEMBERS | LINKS, max_size=10), min_size=1, max_size=2)


def followed(tree: Tree, start: bytes) -> None:
    """Follow the link at *start* as the kernel does, asserting that the way never leaves the tree."""
    way, links = [0], 0
    parts = start.split(b"/")
    while parts:
        part = parts.pop(0)
        if part == b"..":
            way.pop()
            assert way, f"{start!r} leads out"
        elif part not in (b"", b"."):
            number = tree.find(way[-1], part)
            if number is None:
                return
            node = tree.node(number)
            if isinstance(node, Symlink):
                links += 1
                if links > 40:
                    return
                assert not node.target.startswith(b"/")
                parts[:0] = node.target.split(b"/")
            elif isinstance(node, Directory):
                way.append(number)
            else:
                return


@given(layers=CLIMBING)
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_link_that_is_kept_inside_leads_out(take_warnings: TakeWarnings, layers: list[list[Drawn]]) -> None:
    with all_indexed([tar(shown_ones(layer)) for layer in layers]) as files:
        trees: list[Tree] = [LayerTree(each, transform_symlinks=True) for each in files]
        for tree in [RootfsTree(files, transform_symlinks=True), *trees]:
            check_directories(tree)
            for path in numbers(tree):
                followed(tree, path)
    take_warnings()


@given(layers=LAYERS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lookup_listing_and_parent_agree_and_numbers_are_stable(
    take_warnings: TakeWarnings, layers: list[list[Drawn]]
) -> None:
    layers = list(map(shown_ones, layers))
    tars = [tar(layer) for layer in layers]
    with all_indexed(tars) as files, all_indexed(tars) as others:
        tree, other = (RootfsTree(each, transform_symlinks=False) for each in (files, others))
        check_directories(tree)
        assert numbers(tree) == numbers(other)
    take_warnings()
