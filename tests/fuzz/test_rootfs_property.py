"""Random stacks of changesets, against a model that applies them one after the other, path by path.

The model knows nothing of records or of directories on demand: it unpacks into a dictionary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.tree.node import Directory, Symlink, Tree
from tests.conftest import TakeWarnings
from tests.support.changesets import (
    A_FOLDER,
    FOLDER,
    IMPLICIT,
    Seen,
    Shown,
    a_file,
    a_symlink,
    all_indexed,
    changeset,
    everything,
    file,
    folder,
    hard_link,
    numbers,
    same_file,
    symlink,
)
from tests.unit.layers.test_tree import check_directories

Path = tuple[str, ...]
OPAQUE = ".wh..wh..opq"


class Drawn(NamedTuple):
    """A member: kind, path, and the path or text that goes with it."""

    kind: str
    path: Path
    other: str

    def data(self) -> bytes:
        """Return it as it is in a tar."""
        name = "/".join(self.path)
        match self.kind:
            case "file":
                return file(name, self.other.encode())
            case "folder":
                return folder(name, FOLDER._replace(uid=len(self.other)))
            case "symlink":
                return symlink(name, self.other)
        return hard_link(name, self.other)


@dataclass(eq=False)
class Thing:
    """What is at a path; names of one file share it."""

    seen: Seen
    implicit: bool = False
    lower: Path | None = None
    """A hard link to this path of the layers below."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a directory."""
        return self.lower is None and self.seen.type == A_FOLDER.type


Things = dict[Path, Thing]


def removed(things: Things, path: Path) -> None:
    """Remove *path* and all below it."""
    for there in [there for there in things if there[: len(path)] == path]:
        del things[there]


def unpacked(members: Sequence[Drawn]) -> Things:
    """Return what one layer has, whiteouts as files."""
    things: Things = {(): Thing(IMPLICIT, implicit=True)}
    for member in members:
        path = member.path
        thing = made(things, member)
        if thing is None:
            continue
        for depth in range(1, len(path)):
            if path[:depth] not in things or not things[path[:depth]].is_folder:
                things[path[:depth]] = Thing(IMPLICIT, implicit=True)
        if not (thing.is_folder and path in things and things[path].is_folder):
            removed(things, path)
        things[path] = thing
    for thing in things.values():
        if not thing.is_folder:
            thing.seen = thing.seen._replace(nlink=sum(one is thing for one in things.values()))
    return things


def made(things: Things, member: Drawn) -> Thing | None:
    """Return what a *member* is after those that made *things*, None if it is skipped."""
    match member.kind:
        case "folder":
            return Thing(A_FOLDER._replace(uid=len(member.other)))
        case "file":
            return Thing(a_file(member.other.encode()))
        case "symlink":
            return Thing(a_symlink(member.other.encode()))
    path = tuple(member.other.split("/"))
    target = things.get(path, Thing(a_file(), lower=path))
    return None if target.is_folder else target


def shown_ones(members: Sequence[Drawn]) -> list[Drawn]:
    """Return *members* without those that are skipped with a warning: hard links to directories of their own layer."""
    kept: list[Drawn] = []
    for member in members:
        if made(unpacked(kept), member) is not None:
            kept.append(member)
    return kept


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
        if path and thing.implicit and not holds_files(layer, path):
            continue  # whiteouts alone make no directory
        removed(result, path)
        target = thing if thing.lower is None else below.get(thing.lower)
        if target is thing or (target is not None and not target.is_folder):
            result[path] = target
    return result


def holds_files(layer: Things, path: Path) -> bool:
    """Return whether there is more than whiteouts below *path*."""
    return any(
        there[: len(path)] == path and not is_mark(there) and not thing.implicit for there, thing in layer.items()
    )


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


NAMES = st.sampled_from("abc")
FOLDERS = st.lists(NAMES, max_size=3).map(tuple)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
MARKS = st.tuples(FOLDERS, st.sampled_from([OPAQUE, ".wh.a", ".wh.b", ".wh.c", ".wh..wh.plnk"])).map(
    lambda mark: (*mark[0], mark[1])
)
TEXTS = st.sampled_from(["", "1", "22", "333"])
MEMBERS = st.one_of(
    st.builds(Drawn, st.just("file"), PATHS, TEXTS),
    st.builds(Drawn, st.just("file"), MARKS, st.just("")),
    st.builds(Drawn, st.just("folder"), PATHS, TEXTS),
    st.builds(Drawn, st.just("folder"), st.just(()), TEXTS),
    st.builds(Drawn, st.just("symlink"), PATHS, st.sampled_from(["a", "/b", "../c", "b/c"])),
    st.builds(Drawn, st.just("link"), PATHS | MARKS, PATHS.map("/".join)),
)
LAYERS = st.lists(st.lists(MEMBERS, max_size=8), min_size=1, max_size=5)


def tar(members: Sequence[Drawn]) -> bytes:
    """Return the tar of a layer."""
    return changeset(*(member.data() for member in members))


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
