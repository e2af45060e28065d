"""A layer by itself: what becomes of its members."""

import subprocess
from pathlib import Path

import pytest

from fusefs.content.growing import report
from fusefs.errors import InvalidImage
from fusefs.image.indexing import INDEXER
from tests.support.builders import END, directory, extended, header, pax
from tests.support.changesets import (
    A_FOLDER,
    IMPLICIT,
    About,
    Seen,
    a_file,
    a_symlink,
    changeset,
    device,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    indexed,
    layer_of,
    member,
    opaque,
    pax_sparse,
    rootfs_of,
    shown,
    symlink,
    whiteout,
)

ABOUT = About(0o2711, 7, 8, 1234567890_123456789, {b"user.x": b"1"})
OTHER = About(0o1700, 1 << 31, 9, -1_500000000)


def skipped(count: int, first: str) -> str:
    """Return the one warning of a layer in which members were skipped."""
    return f"layer: skipped {count} members that cannot be shown; the first: {first}"


@pytest.mark.parametrize("root", [".", "./", "/", "", "//", "./."])
def test_a_member_that_is_the_root_gives_it_its_attributes(root: str) -> None:
    assert layer_of(changeset(folder(root, ABOUT), file("a"))) == {b"": A_FOLDER.with_(ABOUT), b"a": a_file()}


@pytest.mark.parametrize("name", ["x", "./x", "/x", "//x", "././x", ".//x"])
def test_a_name_begins_at_the_root_however_it_is_written(name: str) -> None:
    assert layer_of(changeset(file(name, b"1"))) == shown(("x", a_file(b"1")))


@pytest.mark.parametrize("name", ["d/x", "d//x", "d/./x", "./d/x", "/d/x"])
def test_a_path_is_the_same_however_it_is_written(name: str) -> None:
    layer = changeset(folder("d/"), file(name, b"1"), hard_link("d/y", name))
    assert layer_of(layer) == shown(("d", A_FOLDER), ("d/x", a_file(b"1", nlink=2)), ("d/y", a_file(b"1", nlink=2)))


def test_a_directory_that_nothing_lists_is_0755_root_s_and_as_old_as_the_image() -> None:
    assert layer_of(changeset(file("a/b/c"))) == shown(("a", IMPLICIT), ("a/b", IMPLICIT), ("a/b/c", a_file()))


@pytest.mark.parametrize("members", [(folder("d", ABOUT), file("d/x")), (file("d/x"), folder("d", ABOUT))])
def test_a_directory_has_its_attributes_before_and_after_what_is_in_it(members: tuple[bytes, ...]) -> None:
    assert layer_of(changeset(*members)) == shown(("d", A_FOLDER.with_(ABOUT)), ("d/x", a_file()))


def test_a_directory_whose_attributes_come_again_has_the_last_and_keeps_its_entries() -> None:
    layer = changeset(folder("d", ABOUT), file("d/x"), folder("d", OTHER), file("d/y"))
    assert layer_of(layer) == shown(("d", A_FOLDER.with_(OTHER)), ("d/x", a_file()), ("d/y", a_file()))


def test_the_last_of_several_files_with_one_name_wins() -> None:
    layer = changeset(file("x", b"1", ABOUT), file("y"), file("./x", b"22"))
    assert layer_of(layer) == shown(("x", a_file(b"22")), ("y", a_file()))


def test_the_last_of_several_kinds_with_one_name_wins() -> None:
    kinds = {
        "file": (file("x", b"1"), a_file(b"1")),
        "directory": (folder("x"), A_FOLDER),
        "link": (symlink("x", "t"), a_symlink(b"t")),
    }
    for first, _ in kinds.values():
        for last, expected in kinds.values():
            assert layer_of(changeset(first, last)) == shown(("x", expected))


def test_a_file_in_the_place_of_a_directory_takes_all_below_it_away() -> None:
    layer = changeset(file("d/e/x"), file("d/y"), file("d", b"1"))
    assert layer_of(layer) == shown(("d", a_file(b"1")))


def test_a_directory_in_the_place_of_a_file_that_was_a_directory_is_empty() -> None:
    layer = changeset(folder("d", ABOUT), file("d/x"), file("d"), folder("d"), file("d/z"))
    assert layer_of(layer) == shown(("d", A_FOLDER), ("d/z", a_file()))


def test_what_follows_a_replaced_directory_goes_into_the_new_one() -> None:
    layer = changeset(file("d/x"), file("d"), symlink("d", "t"), file("d/z"), file("d/w"))
    assert layer_of(layer) == shown(("d", a_symlink(b"t")), ("t", IMPLICIT), ("t/w", a_file()), ("t/z", a_file()))


@pytest.mark.parametrize("below", [file("a/b"), folder("a/b/c"), hard_link("a/b", "x"), symlink("a/b", "x")])
def test_a_path_through_a_file_of_the_same_layer_is_skipped(below: bytes) -> None:
    """All engines and umoci refuse the layer."""
    name = below[:100].rstrip(b"\0/").decode()
    for members in ((file("a", b"1"),), (fifo("a"),), (file("f"), symlink("a", "f"))):
        warning = skipped(1, f"{name}: its path leads through a file")
        layer = changeset(*members, file("x"))
        assert layer_of(changeset(*members, file("x"), below), skipped=warning) == layer_of(layer)


def test_paths_of_no_end_of_directories_are_refused() -> None:
    """Of ``a/a/a/…`` each two bytes are a directory: a layer of 4 kB, compressed, took half a gigabyte."""
    for deep in (
        [b"a/" * 70_000 + b"x"],
        [b"%d/" % number * 1000 + b"x" for number in range(70)],
        [b"d/" * 70_000],
    ):
        with pytest.raises(InvalidImage, match="refused: paths lead through more than 65,536 implicit directories"):
            layer_of(changeset(*(file(path) if path.endswith(b"x") else folder(path) for path in deep)))


XATTRS = About(xattrs={b"user.a": b"link", b"user.c": b"link"})
HARD_LINKS = {
    "all differ": (file("f", b"1", ABOUT), OTHER, OTHER._replace(xattrs={b"user.x": b"1"})),
    "an empty header": (file("f", b"1", About(0o640, 5, 5, 7)), About(0), About(0)),
    "setuid of the link": (file("f", b"1"), About(0o4755), About(0o4755)),
    "no setuid": (file("f", b"1", About(0o4755)), About(0o755), About(0o755)),
    "extended attributes of both": (
        file("f", b"1", About(xattrs={b"user.a": b"file", b"user.b": b"file"})),
        XATTRS,
        XATTRS._replace(xattrs={**XATTRS.xattrs, b"user.b": b"file"}),
    ),
    "a capability of the file": (
        file("f", b"1", About(xattrs={b"security.capability": b"1", b"user.a": b"1"})),
        About(),
        About(xattrs={b"user.a": b"1"}),
    ),
    "a capability of the link": (
        file("f", b"1", About(xattrs={b"security.capability": b"1"})),
        About(xattrs={b"security.capability": b"2"}),
        About(xattrs={b"security.capability": b"2"}),
    ),
}


@pytest.mark.parametrize(("target", "link", "expected"), HARD_LINKS.values(), ids=HARD_LINKS.keys())
def test_a_hard_link_applies_its_attributes_to_all_names_of_the_file(
    target: bytes, link: About, expected: About
) -> None:
    seen = a_file(b"1", nlink=3).with_(expected)
    layer = changeset(target, hard_link("g", "f", About(0o123, 1, 2, 3)), hard_link("d/h", "/g", link))
    assert layer_of(layer) == shown(("f", seen), ("g", seen), ("d", IMPLICIT), ("d/h", seen))


def test_a_hard_link_changes_neither_the_time_of_a_symlink_nor_the_type_and_number_of_a_device() -> None:
    layer = changeset(
        symlink("s", "t", About(0o777, 5, 5, 7)),
        hard_link("s2", "s", About(0o600, 1, 2, 3)),
        device("c", "c", 1, 3),
        hard_link("c2", "c", About(0o600, 1, 2, 3)),
    )
    link = a_symlink(b"t").with_(About(0o777, 1, 2, 7))._replace(nlink=2)
    node = Seen(0o020000, rdev=0x103, nlink=2).with_(About(0o600, 1, 2, 3))
    assert layer_of(layer) == shown(("s", link), ("s2", link), ("c", node), ("c2", node))


def test_a_hard_link_that_replaces_a_name_of_its_file_leaves_one_name() -> None:
    layer = changeset(file("a", b"1"), hard_link("b", "a"), hard_link("a", "b", ABOUT))
    expected = a_file(b"1", nlink=2).with_(ABOUT)
    assert layer_of(layer) == shown(("a", expected), ("b", expected))


def test_a_hard_link_to_a_file_that_its_layer_removed_is_a_whiteout() -> None:
    layer = changeset(whiteout("f"), hard_link("d/h", "f"), hard_link("d/i", "d/h"))
    mark = a_file()
    assert layer_of(layer) == shown((".wh.f", mark), ("d", IMPLICIT), ("d/.wh.h", mark), ("d/.wh.i", mark))
    assert rootfs_of(changeset(file("f"), file("d/h"), file("d/i")), layer) == shown(("d", IMPLICIT))


def test_everything_but_a_directory_can_be_hard_linked() -> None:
    layer = changeset(
        symlink("s", "t"), fifo("f"), device("c", "c", 1, 3), *(hard_link(name + "2", name) for name in "sfc")
    )
    found = layer_of(layer)
    assert [found[name] for name in (b"s", b"f", b"c")] == [found[name] for name in (b"s2", b"f2", b"c2")]
    assert {seen.nlink for path, seen in found.items() if path} == {2}


def test_a_hard_link_keeps_the_bytes_when_its_other_name_is_replaced() -> None:
    layer = changeset(file("a", b"old"), hard_link("b", "a"), file("a", b"new"))
    assert layer_of(layer) == shown(("a", a_file(b"new")), ("b", a_file(b"old")))


def test_a_hard_link_keeps_the_bytes_when_the_directory_of_its_other_name_goes() -> None:
    layer = changeset(file("d/a", b"old"), hard_link("b", "d/a"), hard_link("d/c", "b"), file("d"))
    assert layer_of(layer) == shown(("b", a_file(b"old")), ("d", a_file()))


@pytest.mark.parametrize(
    ("name", "target"),
    [("d/e/f", "d/e/f"), ("d/e/f", "/d/../d/e/f"), ("d/e", "d/e/f"), ("d", "d/e/f"), ("l/e/f", "d/e/f"),
     ("d", "d/lower"), ("lower", "lower"), ("lower", "lower/below")],
)  # fmt: skip
def test_a_hard_link_to_itself_or_below_itself_is_skipped(name: str, target: str) -> None:
    """Engines and umoci remove the name first, and then find no target."""
    members = (file("d/e/f", b"1"), symlink("l", "d"))
    warning = skipped(1, f"{name}: a hard link to itself or below itself")
    assert layer_of(changeset(*members, hard_link(name, target)), skipped=warning) == layer_of(changeset(*members))


@pytest.mark.parametrize(("name", "target"), [("a/b", "a"), ("l/e/f", "d/e"), ("a/b/c", "./a")])
def test_a_hard_link_below_its_own_target_is_skipped(name: str, target: str) -> None:
    """Engines and umoci make a directory of the target's name, or find a file in its place."""
    members = (symlink("l", "d"),)
    warning = skipped(1, f"{name}: a hard link below its own target")
    assert layer_of(changeset(*members, hard_link(name, target)), skipped=warning) == layer_of(changeset(*members))


@pytest.mark.parametrize("there", [b"", whiteout("b"), symlink(".wh.b", "a"), folder(".wh.b")])
def test_a_hard_link_to_a_whiteout_is_skipped(there: bytes) -> None:
    """Engines and umoci make no file of a whiteout."""
    warning = skipped(1, "h: a hard link to a whiteout")
    assert layer_of(changeset(there, hard_link("h", ".wh.b")), skipped=warning) == layer_of(changeset(there))


@pytest.mark.parametrize("removal", [opaque("d"), opaque("d/e"), whiteout("d"), whiteout("d/e")])
def test_a_hard_link_to_a_lower_file_that_its_layer_has_removed_is_skipped(removal: bytes) -> None:
    warning = skipped(1, "h: a hard link to a file that its layer has removed")
    link = hard_link("h", "d/e/f")
    assert layer_of(changeset(removal, link), skipped=warning) == layer_of(changeset(removal))
    below = changeset(file("d/e/f", b"1"))
    assert rootfs_of(below, changeset(link, removal))[b"h"].content == b"1"


def test_a_path_through_a_link_with_the_name_of_a_whiteout_makes_a_directory() -> None:
    """To engines and umoci the link is a whiteout."""
    layers = changeset(file("b")), changeset(symlink(".wh.b", "d"), file(".wh.b/x", b"1"))
    assert rootfs_of(*layers) == shown((".wh.b", IMPLICIT), (".wh.b/x", a_file(b"1")))


def test_a_hard_link_whose_target_leads_through_a_file_is_skipped() -> None:
    layer = changeset(file("a", b"1"), hard_link("b", "a/x/y"))
    assert layer_of(layer, skipped=skipped(1, "b: its target leads through a file")) == shown(("a", a_file(b"1")))


def test_a_hard_link_to_what_comes_later_is_to_a_lower_layer() -> None:
    assert layer_of(changeset(hard_link("b", "a"), file("a", b"1"))) == shown(("a", a_file(b"1")))


def test_hard_links_in_a_circle_are_not_there() -> None:
    layer = changeset(hard_link("a", "b"), hard_link("b", "c"), hard_link("c", "a"), file("x"))
    assert layer_of(layer) == shown(("x", a_file()))


def test_whiteouts_are_shown_as_they_are() -> None:
    layer = changeset(whiteout("a"), opaque("d"), file("d/x"), folder(".wh..wh.plnk"), hard_link(".wh.h", "d/x"))
    assert layer_of(layer) == shown(
        (".wh.a", a_file()),
        ("d", IMPLICIT),
        ("d/.wh..wh..opq", a_file()),
        ("d/x", a_file()),
        (".wh..wh.plnk", A_FOLDER),
        (".wh.h", a_file()),
    )


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe\x80", "naïve ☃".encode(), b"new\nline", b"\x01\x1b[31m", b" ", b"-rf", b"x" * 255, b"\\", b"..."],
)
def test_a_name_is_bytes(name: bytes) -> None:
    layer = changeset(file(b"d/" + name, b"1"), symlink("s", name), hard_link("h", b"d/" + name))
    linked = a_file(b"1", nlink=2)
    expected = shown(("d", IMPLICIT), ("s", a_symlink(name)), ("h", linked)) | {b"d/" + name: linked}
    assert layer_of(layer) == expected


POISON = {
    "the root's parent": (file("a/../.."), "a/../..: a regular file in place of the root directory"),
    "too long": (file("x" * 256), f"{'x' * 256}: a name of 256 bytes"),
    "below one too long": (file("d/" + "x" * 300 + "/y"), f"d/{'x' * 298}: a name of 300 bytes"),
    "a whiteout of nothing": (file(".wh."), ".wh.: a whiteout without a name"),
    "a whiteout of the directory": (file("d/.wh.."), "d/.wh..: a whiteout without a name"),
    "a whiteout of the parent": (file("d/.wh..."), "d/.wh...: a whiteout without a name"),
    "below a whiteout of nothing": (file(".wh./x"), ".wh./x: a whiteout without a name"),
    "a file as the root": (file("./", b"1"), "./: a regular file in place of the root directory"),
    "a link as the root": (symlink("/", "x"), "/: a symbolic link in place of the root directory"),
    "a hard link as the root": (hard_link(".", "x"), ".: a hard link in place of the root directory"),
    "a hard link to the root": (hard_link("h", "./"), "h: a hard link to the root"),
    "a hard link to the root's parent": (hard_link("h", ".."), "h: a hard link to the root"),
    "a symlink to nothing": (symlink("s", ""), "s: a symbolic link to 0 bytes, or to NUL"),
    "a symlink too long": (symlink("s", "t" * 4096), "s: a symbolic link to 4096 bytes, or to NUL"),
    "an unknown kind": (member("v", b"V"), "v: a member of an unknown type"),
    "a big major": (device("x", "b", 4096, 0), "x: device number 4096:0 has more than 12 and 20 bits"),
    "a big minor": (device("x", "c", 0, 1 << 20), "x: device number 0:1048576 has more than 12 and 20 bits"),
    "a sparse map that lies": (
        gnu_sparse("x", 10, [(0, b"123")], pairs=[(8, 3)]),
        "x: the sparse map is wrong: 3 bytes at 8 of 10",
    ),
    "an escape sequence": (file("\x1b[31m/.wh."), r"\x1b[31m/.wh.: a whiteout without a name"),
}  # fmt: skip


@pytest.mark.parametrize(("poison", "first"), POISON.values(), ids=POISON.keys())
def test_a_member_that_would_poison_a_listing_is_skipped(poison: bytes, first: str) -> None:
    layer = changeset(file("good", b"1"), poison, file("last"))
    assert layer_of(layer, skipped=skipped(1, first)) == shown(("good", a_file(b"1")), ("last", a_file()))


def test_one_warning_a_layer_counts_what_was_skipped_and_gives_the_first_example() -> None:
    layer = changeset(*(poison for poison, _ in POISON.values()))
    assert (
        layer_of(layer, skipped=skipped(len(POISON), "a/../..: a regular file in place of the root directory"))
        == shown()
    )


def test_an_extended_attribute_that_is_too_large_costs_the_attribute_and_not_the_file() -> None:
    xattrs = {b"user.big": bytes(65537), b"user.small": b"1"}
    layer = changeset(file("x", b"", About(xattrs=xattrs)))
    warning = skipped(1, "x: extended attributes of more than 64 KiB")
    assert layer_of(layer, skipped=warning) == shown(("x", a_file()._replace(xattrs=((b"user.small", b"1"),))))


def test_nul_in_a_pax_name_costs_the_member_and_not_the_layer() -> None:
    layer = changeset(pax({"path": b"a\0b"}) + header("short"), file("y"))
    assert layer_of(layer, skipped=skipped(1, "a\\x00b: NUL in the name")) == shown(("y", a_file()))


def test_a_hard_link_to_a_directory_is_skipped() -> None:
    layer = changeset(folder("d"), hard_link("h", "d"))
    assert layer_of(layer, skipped=skipped(1, "h: a hard link to a directory")) == shown(("d", A_FOLDER))


def test_what_is_skipped_neither_replaces_nor_makes_a_directory() -> None:
    layer = changeset(file("s", b"1"), symlink("s", ""), file("e/.wh."), device("a/b", "c", 4096, 0))
    expected = shown(("s", a_file(b"1")))
    assert layer_of(layer, skipped=skipped(3, "s: a symbolic link to 0 bytes, or to NUL")) == expected


def test_a_target_of_4095_bytes_is_kept() -> None:
    assert layer_of(changeset(symlink("s", "t" * 4095))) == shown(("s", a_symlink(b"t" * 4095)))


def test_nul_cannot_be_in_a_name() -> None:
    layer = changeset(extended(b"L", b"a\0b/c\0") + header("short"))
    assert layer_of(layer) == shown(("a", a_file()))


def test_members_of_every_kind_have_all_their_attributes() -> None:
    layer = changeset(
        file("file", b"data", ABOUT),
        folder("folder", ABOUT),
        fifo("fifo", ABOUT),
        device("character", "c", 4095, 1048575, ABOUT),
        device("block", "b", 8, 1, OTHER),
    )
    assert layer_of(layer) == shown(
        ("file", a_file(b"data").with_(ABOUT)),
        ("folder", A_FOLDER.with_(ABOUT)),
        ("fifo", Seen(0o010000).with_(ABOUT)),
        ("character", Seen(0o020000, rdev=0xFFFFFFFF).with_(ABOUT)),
        ("block", Seen(0o060000, rdev=0x801).with_(OTHER)),
    )


def test_a_symlink_has_the_owner_and_time_of_its_member_and_the_mode_of_every_symlink() -> None:
    """Linux keeps none for it: what a container sees is 0777, whatever the tar says (umoci, Docker, GNU tar)."""
    layer = changeset(symlink("s", "t", About(0o644, 7, 8, 9)))
    assert layer_of(layer) == shown(("s", a_symlink(b"t").with_(About(0o777, 7, 8, 9))))


def test_sparse_files_of_all_formats_have_their_zeros() -> None:
    runs = [(0, b"start"), (4096, b"middle"), (9990, b"end")]
    content = b"start".ljust(4096, b"\0") + b"middle".ljust(5894, b"\0") + b"end" + bytes(7)
    versions = ("0.0", "0.1", "1.0")
    pax_files = [pax_sparse(version, version, 10000, runs) for version in versions]
    layer = changeset(gnu_sparse("gnu", 10000, runs), *pax_files)
    assert layer_of(layer) == shown(*((name, a_file(content)) for name in ("gnu", *versions)))


def test_a_global_header_is_no_file_and_means_nothing() -> None:
    layer = changeset(pax({"mtime": "5", "path": "other"}, b"g"), file("a"), directory("d"))
    assert layer_of(layer) == shown(("a", a_file()), ("d", A_FOLDER._replace(mode=0o644)))


@pytest.mark.parametrize("size", [1 << 62, 1 << 64, 1 << 70])
def test_a_size_beyond_all_files_is_a_damaged_layer(size: int) -> None:
    with pytest.raises(InvalidImage, match=r"^layer: truncated in x "), indexed(header("x", size) + END):
        pass


def test_a_layer_that_is_cut_is_damaged() -> None:
    with pytest.raises(InvalidImage, match=r"^layer: truncated in a at offset 600: 88 of 1000 bytes are there$"):
        rootfs_of(file("a", bytes(1000))[:600])


def test_a_layer_without_its_end_is_warned_of() -> None:
    warning = "layer: the end of the archive is not marked; all its members are complete"
    assert layer_of(file("a"), skipped=warning) == shown(("a", a_file()))


def test_the_program_imports_nothing_from_where_it_is_started(tmp_path: Path) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('imported')")
    layer = tmp_path / "layer.tar"
    layer.write_bytes(changeset(file("a"), file("b/.wh.")))
    with layer.open("rb") as tar, (tmp_path / "index").open("wb") as index:
        places = [tar.fileno(), 0, index.fileno(), 0]
        child = subprocess.Popen(
            [*INDEXER, *map(str, places), "layer"],
            cwd=tmp_path, pass_fds=(tar.fileno(), index.fileno()),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        with child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stderr is not None
            child.stdin.write(report(layer.stat().st_size, complete=True))
            child.stdin.flush()
            assert (child.stdout.read().decode(), child.stderr.read()) == (
                skipped(1, "b/.wh.: a whiteout without a name") + "\n0\n",
                b"",
            )
        assert child.returncode == 0
    assert (tmp_path / "index").stat().st_size > 0
