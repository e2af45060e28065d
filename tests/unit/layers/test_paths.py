"""Paths of members: ``..``, symbolic links on the way, and whiteouts that lead through them.

The forms, and the trees that docker, podman and umoci make of them, are in docs/architecture.md, "Decisions: layers".
"""

import stat
from collections.abc import Sequence

import pytest

from fusefs.errors import InvalidImage
from tests.support.changesets import (
    A_FOLDER,
    IMPLICIT,
    About,
    Seen,
    Shown,
    a_file,
    changeset,
    file,
    folder,
    hard_link,
    layer_of,
    opaque,
    rootfs_of,
    shown,
    symlink,
    whiteout,
)


def words(found: Shown) -> str:
    """Return a tree as words: ``d/``, ``f=content``, ``l->target``; its root is left out."""
    return " ".join(path.decode() + _word(seen) for path, seen in sorted(found.items()) if path)


def _word(seen: Seen) -> str:
    if stat.S_ISDIR(seen.type):
        return "/"
    return f"->{seen.target.decode()}" if seen.target else f"={seen.content.decode()}"


USR = (folder("usr"), folder("usr/lib"))
LIB = symlink("lib", "usr/lib")
C = file("lib/c", b"1")

WAYS: dict[str, tuple[Sequence[bytes], str]] = {
    "merged usr": ((*USR, LIB, C), "lib->usr/lib usr/ usr/lib/ usr/lib/c=1"),
    "a target that is implicit": ((file("usr/lib/o"), LIB, C), "lib->usr/lib usr/ usr/lib/ usr/lib/c=1 usr/lib/o="),
    "a target that comes later": ((LIB, C, *USR), "lib->usr/lib usr/ usr/lib/ usr/lib/c=1"),
    "the link after an implicit directory": ((*USR, C, LIB), "lib->usr/lib usr/ usr/lib/"),
    "the link after its directory, then through it": (
        (*USR, folder("lib"), C, LIB, file("lib/d", b"2")),
        "lib->usr/lib usr/ usr/lib/ usr/lib/d=2",
    ),
    "an absolute target": ((*USR, symlink("lib", "/usr/lib"), C), "lib->/usr/lib usr/ usr/lib/ usr/lib/c=1"),
    "the root": ((symlink("lib", "/"), C), "c=1 lib->/"),
    "its own directory": ((symlink("d/lib", "."), file("d/lib/c", b"1")), "d/ d/c=1 d/lib->."),
    "up": ((folder("lib"), symlink("bin/l", "../lib"), file("bin/l/c", b"1")), "bin/ bin/l->../lib lib/ lib/c=1"),
    "up, above the root": ((symlink("lib", "../../../usr/x"), C), "lib->../../../usr/x usr/ usr/x/ usr/x/c=1"),
    "up after a link": (
        (folder("d/e"), symlink("l", "d/e"), symlink("lib", "l/../x"), C),
        "d/ d/e/ d/x/ d/x/c=1 l->d/e lib->l/../x",
    ),
    "empty and single dots": ((symlink("lib", ".//usr/./lib/"), C), "lib->.//usr/./lib/ usr/ usr/lib/ usr/lib/c=1"),
    "dangling": ((symlink("lib", "no/where"), C), "lib->no/where no/ no/where/ no/where/c=1"),
    "dangling and up": ((symlink("lib", "no/../where"), C), "lib->no/../where where/ where/c=1"),
    "dangling and up several": ((symlink("lib", "no/no/../../usr/a/b/../c"), file("usr/x"), C),
        "lib->no/no/../../usr/a/b/../c usr/ usr/a/ usr/a/c/ usr/a/c/c=1 usr/x="),
    "a chain": (
        (folder("d"), symlink("a/b", "../d"), symlink("lib", "a/b"), C),
        "a/ a/b->../d d/ d/c=1 lib->a/b",
    ),
    "directories below": (
        (LIB, file("lib/a/b/c", b"1")),
        "lib->usr/lib usr/ usr/lib/ usr/lib/a/ usr/lib/a/b/ usr/lib/a/b/c=1",
    ),
    "a directory": ((LIB, folder("lib/d")), "lib->usr/lib usr/ usr/lib/ usr/lib/d/"),
    "a link": ((LIB, symlink("lib/l", "x")), "lib->usr/lib usr/ usr/lib/ usr/lib/l->x"),
    "a hard link": (
        (*USR, LIB, file("f", b"1"), hard_link("lib/h", "f")),
        "f=1 lib->usr/lib usr/ usr/lib/ usr/lib/h=1",
    ),
    "a hard link's target": (
        (file("usr/lib/f", b"1"), LIB, hard_link("h", "lib/f")),
        "h=1 lib->usr/lib usr/ usr/lib/ usr/lib/f=1",
    ),
    "both of a hard link": (
        (file("usr/lib/f", b"1"), LIB, hard_link("lib/h", "/lib/f")),
        "lib->usr/lib usr/ usr/lib/ usr/lib/f=1 usr/lib/h=1",
    ),
    "a hard link to a link is that link": (
        (folder("d"), symlink("l", "d"), hard_link("h", "l"), file("h/x", b"1")),
        "d/ d/x=1 h->d l->d",
    ),
    "a directory in place of the link": (
        (*USR, LIB, C, folder("lib"), file("lib/d")),
        "lib/ lib/d= usr/ usr/lib/ usr/lib/c=1",
    ),
    "a file in place of the link": ((*USR, LIB, C, file("lib")), "lib= usr/ usr/lib/ usr/lib/c=1"),
    "another link in place of the link": (
        (symlink("l", "d"), file("l/x"), symlink("l", "e"), file("l/y")),
        "d/ d/x= e/ e/y= l->e",
    ),
    "a link on the way of the link is replaced": (
        (symlink("m", "d"), symlink("l", "m"), file("l/x"), symlink("m", "e"), file("l/y")),
        "d/ d/x= e/ e/y= l->m m->e",
    ),
    "the target is replaced": (
        (LIB, C, file("usr", b"2"), folder("usr"), file("lib/d")),
        "lib->usr/lib usr/ usr/lib/ usr/lib/d=",
    ),
    "the last name is no way": ((file("f", b"1"), symlink("l", "f"), file("l", b"2")), "f=1 l=2"),
    "a file through a link is replaced": ((file("d/f", b"1"), symlink("l", "d"), file("l/f", b"2")), "d/ d/f=2 l->d"),
    "40 links": (
        (*(symlink(f"l{n:02}", f"l{n + 1:02}") for n in range(39)), symlink("l39", "d"), file("l00/x", b"1")),
        " ".join(["d/", "d/x=1", *(f"l{n:02}->l{n + 1:02}" for n in range(39)), "l39->d"]),
    ),
    "two dots": ((folder("a"), file("a/../b", b"1")), "a/ b=1"),
    "two dots after nothing": ((file("a/../b", b"1"),), "b=1"),
    "two dots above the root": ((file("../../b", b"1"), file("/../c", b"2")), "b=1 c=2"),
    "two dots at the end": ((folder("x/../new/"), folder("y/.."), folder("../")), "new/"),
    "two dots after a link are those of the name": (
        (folder("d/e"), symlink("l", "d/e"), file("l/../x", b"1")),
        "d/ d/e/ l->d/e x=1",
    ),
    "two dots after a file": ((file("f", b"1"), file("f/../x", b"2")), "f=1 x=2"),
    "two dots in a hard link's target": ((file("b", b"1"), hard_link("h", "../a/../b")), "b=1 h=1"),
    "two dots after a link in a hard link's target": (
        (file("d/x", b"1"), file("x", b"2"), symlink("l", "d/e"), folder("d/e"), hard_link("h", "l/../x")),
        "d/ d/e/ d/x=1 h=2 l->d/e x=2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("members", "tree"), WAYS.values(), ids=WAYS.keys())
def test_paths_of_a_layer_are_resolved_inside_its_root(members: Sequence[bytes], tree: str) -> None:
    assert words(layer_of(changeset(*members))) == tree
    assert words(rootfs_of(changeset(*members))) == tree


BASE = changeset(folder("usr"), folder("usr/lib"), file("usr/lib/o", b"old"), LIB)
OVER: dict[str, tuple[Sequence[bytes], str]] = {
    "a file through a lower link replaces it by a directory": ((C,), "lib/ lib/c=1 usr/ usr/lib/ usr/lib/o=old"),
    "a whiteout through a lower link too": ((whiteout("lib/o"),), "lib/ usr/ usr/lib/ usr/lib/o=old"),
    "an opaque marker through a lower link too": ((opaque("lib"),), "lib/ usr/ usr/lib/ usr/lib/o=old"),
    "a whiteout of nothing there too": ((whiteout("lib/no"),), "lib/ usr/ usr/lib/ usr/lib/o=old"),
    "a whiteout through a lower link and a file": ((whiteout("lib/o"), C), "lib/ lib/c=1 usr/ usr/lib/ usr/lib/o=old"),
    "the link again": ((LIB, C), "lib->usr/lib usr/ usr/lib/ usr/lib/c=1 usr/lib/o=old"),
    "the link again and a whiteout": ((LIB, whiteout("lib/o")), "lib->usr/lib usr/ usr/lib/"),
    "the link again and an opaque marker": ((LIB, opaque("lib"), C), "lib->usr/lib usr/ usr/lib/ usr/lib/c=1"),
    "a whiteout, then the link": ((whiteout("lib/o"), LIB), "lib->usr/lib usr/ usr/lib/ usr/lib/o=old"),
    "an opaque marker, then the link": ((opaque("lib"), LIB), "lib->usr/lib usr/ usr/lib/ usr/lib/o=old"),
    "a whiteout of the link": ((whiteout("lib"),), "usr/ usr/lib/ usr/lib/o=old"),
    "a whiteout of the link, and a directory": (
        (whiteout("lib"), folder("lib"), C),
        "lib/ lib/c=1 usr/ usr/lib/ usr/lib/o=old",
    ),
    "a link to a lower directory alone": (
        (symlink("l", "usr"), file("l/x")),
        "l->usr lib->usr/lib usr/ usr/lib/ usr/lib/o=old usr/x=",
    ),
    "a link to a lower link": ((symlink("l", "lib"), file("l/x")), "l->lib lib/ lib/x= usr/ usr/lib/ usr/lib/o=old"),
    "two dots after a lower link": ((file("lib/../x"),), "lib->usr/lib usr/ usr/lib/ usr/lib/o=old x="),
    "a whiteout with two dots": ((file("a/../usr/lib/.wh.o"),), "lib->usr/lib usr/ usr/lib/"),
    "a file, then a whiteout below it": ((file("usr", b"2"), whiteout("usr/lib")), "lib->usr/lib usr=2"),
    "a file, then a whiteout far below it": ((file("usr", b"2"), whiteout("usr/lib/o")), "lib->usr/lib usr=2"),
    "a file, then an opaque marker below it": ((file("usr", b"2"), opaque("usr")), "lib->usr/lib usr=2"),
    "a link to a file, then a whiteout below it": (
        (file("f", b"2"), symlink("usr", "f"), whiteout("usr/x")), "f=2 lib->usr/lib usr->f"
    ),
    "a whiteout below it, then a file": ((whiteout("usr/lib"), file("usr", b"2")), "lib->usr/lib usr=2"),
    "a whiteout below a whiteout": ((whiteout("usr"), whiteout("usr/lib/o")), "lib->usr/lib"),
    "a whiteout above a whiteout": ((whiteout("usr/lib/o"), whiteout("usr")), "lib->usr/lib"),
    "a whiteout above one and a file": (
        (whiteout("usr/lib/o"), whiteout("usr"), file("usr/x")),
        "lib->usr/lib usr/ usr/x=",
    ),
    "a whiteout where nothing is": ((whiteout("a/b/c"),), "a/ a/b/ lib->usr/lib usr/ usr/lib/ usr/lib/o=old"),
    "a hard link to a lower file, removed before": (
        (whiteout("usr/lib/o"), hard_link("lib", "usr/lib/o")), "usr/ usr/lib/"
    ),
    "a hard link to a lower file, removed after": (
        (hard_link("h", "usr/lib/o"), whiteout("usr/lib/o")), "h=old lib->usr/lib usr/ usr/lib/"
    ),
    "a hard link through a link to a lower file": (
        (symlink("l", "usr/lib"), hard_link("h", "l/o")), "h=old l->usr/lib lib->usr/lib usr/ usr/lib/ usr/lib/o=old"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("members", "tree"), OVER.values(), ids=OVER.keys())
def test_paths_of_a_layer_know_nothing_of_the_links_below_it(members: Sequence[bytes], tree: str) -> None:
    assert words(rootfs_of(BASE, changeset(*members))) == tree


@pytest.mark.parametrize(
    ("members", "first"),
    [
        ((symlink("a", "a"),), "more than 40 symbolic links"),
        ((symlink("a", "b"), symlink("b", "a")), "more than 40 symbolic links"),
        ((symlink("a", "a/b"),), "more than 40 symbolic links"),
        ((symlink("a", "l0"), *(symlink(f"l{n}", f"l{n + 1}") for n in range(40))), "more than 40 symbolic links"),
    ],
)
def test_a_path_through_a_loop_is_skipped(members: Sequence[bytes], first: str) -> None:
    layer = changeset(*members, file("a/x"), whiteout("a/x"), hard_link("h", "a/x"), file("y"))
    warning = f"layer: skipped 3 members that cannot be shown; the first: a/x: its path leads through {first}"
    assert layer_of(layer, skipped=warning) == layer_of(changeset(*members, file("y")))


def test_a_path_through_a_link_to_a_name_of_256_bytes_is_skipped() -> None:
    link = symlink("a", "d/" + "n" * 256)
    warning = "layer: skipped 1 members that cannot be shown; the first: a/x: a name of 256 bytes"
    assert layer_of(changeset(link, file("a/x")), skipped=warning) == layer_of(changeset(link))


def test_links_with_targets_of_no_end_are_refused() -> None:
    """Each path leads through up to 40 links of 2,000 components: a small layer took hours."""
    links = [symlink(f"l{n}", "d/../" * 800 + f"l{n + 1}") for n in range(39)]
    paths = (file(f"l0/{n}/x") for n in range(40))
    with pytest.raises(
        InvalidImage, match="refused: paths lead through symbolic links of more than 1,048,576 components"
    ):
        layer_of(changeset(folder("d"), *links, *paths))


def test_a_path_is_found_as_fast_as_ever_after_a_link_was_replaced() -> None:
    layer = changeset(symlink("l", "a"), file("l/x"), symlink("l", "b"), file("l/y"), folder("l"), file("l/z"))
    assert words(layer_of(layer)) == "a/ a/x= b/ b/y= l/ l/z="


def test_an_opaque_directory_lends_attributes_to_itself_and_to_nothing_below_it() -> None:
    about, sub = About(0o700, 5, 5, 1), About(0o711, 6, 6, 2)
    base = changeset(folder("d", about), folder("d/s", sub), file("d/s/x"), folder("d/s/t", sub))
    for members in ((opaque("d"), file("d/s/t/n")), (file("d/s/t/n"), opaque("d"))):
        found = rootfs_of(base, changeset(*members), changeset(file("d/s/t/m")))
        expected = (("d", A_FOLDER.with_(about)), ("d/s", IMPLICIT), ("d/s/t", IMPLICIT))
        assert found == shown(*expected, ("d/s/t/n", a_file()), ("d/s/t/m", a_file()))
