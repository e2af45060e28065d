"""Two root file systems compared, and the layers that a path comes from, against a look at everything."""

import stat
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusefs.layers.diff import Change, Difference, compare
from fusefs.layers.provenance import Deed, touches
from fusefs.layers.record import LOWER_LINK
from fusefs.layers.rootfs import RootfsTree
from fusefs.tree.walk import ROOT
from tests.conftest import TakeWarnings
from tests.support.changesets import (
    About,
    Seen,
    all_indexed,
    changeset,
    device,
    everything,
    file,
    folder,
    hard_link,
    numbers,
    opaque,
    symlink,
    whiteout,
)
from tests.support.drawn_layers import LAYERS, Drawn, shown_ones, tar
from tests.support.trees import side

BASE = changeset(folder("etc"), file("etc/motd", b"old\n"), file("etc/gone", b"x"), file("usr/big", bytes(3 << 20)))


def _differences(
    old: Sequence[bytes], new: Sequence[bytes], path: bytes = b"/", *, times: bool = False
) -> list[Difference]:
    with all_indexed(old) as olds, all_indexed(new) as news:
        return list(compare(side(olds, old, path), side(news, new, path), times=times))


def _told(old: Sequence[bytes], new: Sequence[bytes], path: bytes = b"/", *, times: bool = False) -> list[str]:
    """Return each difference in a line: letter, path, and what has changed."""
    return [
        " ".join([one.change.value, (b"/" + b"/".join(one.path)).decode(), *one.what])
        for one in _differences(old, new, path, times=times)
    ]


def test_what_was_added_removed_and_changed_is_listed_by_path() -> None:
    upper = changeset(file("etc/motd", b"new\n"), whiteout("etc/gone"), file("opt/a/b", b"12"))
    assert _told([BASE], [BASE, upper]) == ["D /etc/gone", "C /etc/motd content", "A /opt", "A /opt/a", "A /opt/a/b"]
    assert _told([BASE, upper], [BASE]) == ["A /etc/gone", "C /etc/motd content", "D /opt", "D /opt/a", "D /opt/a/b"]
    assert _told([BASE, upper], [BASE, upper]) == []
    (added,) = [one for one in _differences([BASE], [BASE, upper]) if one.path[-1] == b"b"]
    assert (added.change, added.before, added.after and added.after.size) == (Change.ADDED, None, 2)


def test_each_way_to_change_is_named() -> None:
    about = About(mode=0o600, uid=1, gid=2, mtime_ns=5, xattrs={b"user.a": b"1"})
    old = changeset(
        *(file("same", b"x"), file("all", b"x"), symlink("link", "a"), device("null", "c", 1, 3), file("type", b"x")),
        *(file("longer", b"x"), file("time", b"x"), folder("was", About(mode=0o755)), file("was/in", b"x")),
    )
    new = changeset(
        *(file("same", b"x"), file("all", b"y", about), symlink("link", "b"), device("null", "c", 1, 5)),
        *(symlink("type", "x"), file("longer", b"xy"), file("time", b"x", About(mtime_ns=7)), file("was", b"")),
    )
    expected = [
        "C /all content mode owner xattrs",
        "C /link target",
        "C /longer content",
        "C /null device",
        "C /type type",
        "C /was type",
        "D /was/in",
    ]
    assert _told([old], [new]) == expected
    assert [line for line in _told([old], [new], times=True) if line not in expected] == [
        "C /all content mode owner xattrs time",
        "C /time time",
    ]


def test_files_of_the_same_bytes_are_the_same_from_whatever_layers() -> None:
    assert _told([BASE], [changeset(folder("./")), BASE, changeset(file("etc/motd", b"old\n"))]) == []


def test_a_part_can_be_compared_alone() -> None:
    upper = changeset(file("etc/motd", b"new\n"), file("x"))
    assert _told([BASE], [BASE, upper], b"/etc") == ["C /etc/motd content"]
    assert _told([BASE], [BASE, upper], b"/etc/motd") == ["C /etc/motd content"]


def test_directories_of_the_same_layers_are_not_looked_into() -> None:
    upper = changeset(file("x"))
    with all_indexed([BASE]) as olds, all_indexed([BASE, upper]) as news:
        old, new = side(olds, [BASE]), side(news, [BASE, upper])
        listed: list[int] = []
        real = new.tree.listing

        def listing(directory: int) -> Sequence[tuple[bytes, int]]:
            listed.append(directory)
            return real(directory)

        new.tree.listing = listing  # type: ignore[method-assign]
        assert [one.path for one in compare(old, new)] == [(b"x",)]
        assert listed == [0]


def test_hard_links_into_other_lower_layers_are_not_taken_for_the_same() -> None:
    link = changeset(folder("d"), hard_link("d/link", "file"))
    one, other = changeset(file("file", b"1")), changeset(file("file", b"2"))
    assert _told([one, link], [other, link]) == ["C /d/link content", "C /file content"]


def _naively(old: dict[bytes, Seen], new: dict[bytes, Seen]) -> set[tuple[bytes, Change]]:
    def told(seen: Seen) -> Seen:
        return seen._replace(mtime_ns=0, nlink=1)

    changed = {path for path in old.keys() & new.keys() if told(old[path]) != told(new[path])}
    return (
        {(path, Change.ADDED) for path in new.keys() - old.keys()}
        | {(path, Change.REMOVED) for path in old.keys() - new.keys()}
        | {(path, Change.CHANGED) for path in changed}
    )


@given(base=LAYERS, olds=LAYERS, news=LAYERS, shared=st.integers(0, 3))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_stacks_differ_as_a_look_at_everything_says(
    take_warnings: TakeWarnings, base: list[list[Drawn]], olds: list[list[Drawn]], news: list[list[Drawn]], shared: int
) -> None:
    old = [tar(shown_ones(layer)) for layer in [*base[:shared], *olds]]
    new = [tar(shown_ones(layer)) for layer in [*base[:shared], *news]]
    with all_indexed(old) as old_files, all_indexed(new) as new_files:
        before, after = side(old_files, old), side(new_files, new)
        found = [(b"/".join(one.path), one.change) for one in compare(before, after)]
        assert len(found) == len(set(found))
        assert set(found) == _naively(everything(before.tree), everything(after.tree))
    take_warnings()


def test_a_layer_adds_changes_and_removes_a_path() -> None:
    layers = [
        BASE,
        changeset(file("etc/motd", b"new\n")),
        changeset(whiteout("etc/motd")),
        changeset(file("etc/other")),
        changeset(file("etc/motd", b"x")),
        changeset(opaque("etc"), file("etc/new")),
        changeset(file("etc", b"no directory any more")),
    ]
    with all_indexed(layers) as files:
        found = list(touches([each.index for each in files], (b"etc", b"motd")))
    assert [(touch.layer, touch.deed) for touch in found] == [
        (0, Deed.ADDED),
        (1, Deed.CHANGED),
        (2, Deed.REMOVED),
        (4, Deed.ADDED),
        (5, Deed.REMOVED),
    ]
    assert [touch.entry and touch.entry.size for touch in found] == [4, 4, None, 1, None]


@given(layers=LAYERS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_layer_that_has_to_do_with_a_path_is_the_one_it_is_from(
    take_warnings: TakeWarnings, layers: list[list[Drawn]]
) -> None:
    tars = [tar(shown_ones(layer)) for layer in layers]
    with all_indexed(tars) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        indexes = [each.index for each in files]
        for path, number in numbers(tree).items():
            parts = tuple(path.split(b"/")) if path else ()
            history = [touch for touch in touches(indexes, parts) if touch.entry is not None]
            if stat.S_ISDIR(tree.stat(number).mode) or not history or history[-1].entry is None:
                continue  # one that no layer lists is from whoever has something in it
            if not history[-1].entry.flags & LOWER_LINK:
                assert (history[-1].layer, history[-1].entry.inode) == (tree.layer(number), number & (1 << 32) - 1)
        assert tree.layer(ROOT.number) < len(files)
    take_warnings()
