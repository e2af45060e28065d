"""Two root file systems compared, and the layers that a path comes from, against a look at everything."""

from collections.abc import Sequence

from fusefs.layers.diff import Change, Difference, compare
from fusefs.layers.provenance import Deed, touches
from fusefs.tree.node import Node
from tests.support.changesets import (
    About,
    all_indexed,
    changeset,
    device,
    file,
    folder,
    hard_link,
    opaque,
    symlink,
    whiteout,
)
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


def test_a_file_with_many_names_is_read_once() -> None:
    names = [hard_link(f"link{number}", "file") for number in range(50)]
    one, other = changeset(file("file", b"1"), *names), changeset(file("file", b"2"), *names)
    with all_indexed([one]) as olds, all_indexed([other]) as news:
        old, new = side(olds, [one]), side(news, [other])
        asked: list[int] = []
        real = new.tree.node

        def node(number: int) -> Node:
            asked.append(number)
            return real(number)

        new.tree.node = node  # type: ignore[method-assign]
        assert [one.what for one in compare(old, new)] == [("content",)] * 51
        assert len(set(asked)) == len(asked)


def test_hard_links_into_other_lower_layers_are_not_taken_for_the_same() -> None:
    link = changeset(folder("d"), hard_link("d/link", "file"))
    one, other = changeset(file("file", b"1")), changeset(file("file", b"2"))
    assert _told([one, link], [other, link]) == ["C /d/link content", "C /file content"]


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
    assert [touch.record and touch.record.size for touch in found] == [4, 4, None, 1, None]
