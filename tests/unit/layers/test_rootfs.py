"""The merged layers, each rule of merging as a sentence."""

import pytest

from tests.support.changesets import (
    A_FOLDER,
    IMPLICIT,
    About,
    a_file,
    a_symlink,
    changeset,
    device,
    fifo,
    file,
    folder,
    hard_link,
    rootfs_of,
    shown,
    symlink,
    whiteout,
)
from tests.support.changesets import opaque as opaque_marker

LOWER, UPPER = About(0o700, 1, 2, 3_000000004, {b"user.lower": b"1"}), About(0o711, 5, 6, 7_000000008)
BASE = changeset(folder("d", LOWER), file("d/x", b"x"), file("d/e/y", b"y"), file("f", b"f"))
D, E = ("d", A_FOLDER.with_(LOWER)), ("d/e", IMPLICIT)
X, Y, F = ("d/x", a_file(b"x")), ("d/e/y", a_file(b"y")), ("f", a_file(b"f"))


def test_one_layer_is_shown_as_it_is() -> None:
    assert rootfs_of(BASE) == shown(D, E, X, Y, F)


def test_an_empty_layer_changes_nothing() -> None:
    assert rootfs_of(changeset(), BASE, changeset(), changeset()) == shown(D, E, X, Y, F)


def test_a_file_is_added() -> None:
    assert rootfs_of(BASE, changeset(file("d/e/z", b"z"))) == shown(D, E, X, Y, F, ("d/e/z", a_file(b"z")))


def test_a_file_is_replaced_with_all_its_attributes() -> None:
    layer = changeset(file("f", b"new", UPPER))
    assert rootfs_of(BASE, layer) == shown(D, E, X, Y, ("f", a_file(b"new").with_(UPPER)))


def test_a_whiteout_hides_a_file() -> None:
    assert rootfs_of(BASE, changeset(whiteout("d/x"))) == shown(D, E, Y, F)


def test_a_whiteout_hides_a_directory_and_all_below_it() -> None:
    assert rootfs_of(BASE, changeset(whiteout("d"))) == shown(F)


def test_a_whiteout_of_something_absent_changes_nothing() -> None:
    layer = changeset(whiteout("absent"), whiteout("d/absent"), whiteout("d/e/absent"))
    assert rootfs_of(BASE, layer) == shown(D, E, X, Y, F)


def test_a_whiteout_in_a_directory_that_is_nowhere_makes_it() -> None:
    """As all engines do; umoci does not."""
    assert rootfs_of(BASE, changeset(whiteout("no/where"))) == shown(D, E, X, Y, F, ("no", IMPLICIT))


def test_a_whiteout_below_a_file_of_a_lower_layer_makes_it_a_directory() -> None:
    """As all engines do; umoci leaves the file."""
    assert rootfs_of(BASE, changeset(whiteout("f/x"))) == shown(D, E, X, Y, ("f", IMPLICIT))


def test_a_whiteout_of_a_name_of_255_bytes_hides_it() -> None:
    """Such a whiteout has a name of 259 bytes: no file has, but a member may, and umoci takes it."""
    base = changeset(file("n" * 255), file("n" * 251), file("f"))
    assert rootfs_of(base, changeset(whiteout("n" * 251))) == shown(("n" * 255, a_file()), ("f", a_file()))
    assert rootfs_of(base, changeset(whiteout("n" * 255))) == shown(("n" * 251, a_file()), ("f", a_file()))


def test_what_a_whiteout_hid_can_come_again() -> None:
    again = changeset(file("d/z", b"z"))
    assert rootfs_of(BASE, changeset(whiteout("d")), again) == shown(F, ("d", IMPLICIT), ("d/z", a_file(b"z")))


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_hides_lower_layers_only_whatever_the_order_in_its_own(first: bool) -> None:  # noqa: FBT001
    marks, files = [whiteout("d"), whiteout("f")], [folder("d", UPPER), file("d/new"), file("f", b"new")]
    layer = changeset(*marks, *files) if first else changeset(*files, *marks)
    assert rootfs_of(BASE, layer) == shown(("d", A_FOLDER.with_(UPPER)), ("d/new", a_file()), ("f", a_file(b"new")))


def test_a_directory_that_is_whited_out_and_not_listed_again_has_no_attributes_from_below() -> None:
    layer = changeset(whiteout("d"), file("d/new"))
    assert rootfs_of(BASE, layer) == shown(F, ("d", IMPLICIT), ("d/new", a_file()))


def test_a_whiteout_does_not_hide_a_whole_stack_of_layers_above_it() -> None:
    layers = [changeset(file("d/a")), changeset(whiteout("d"), file("d/b")), changeset(file("d/c"))]
    assert rootfs_of(*layers) == shown(("d", IMPLICIT), ("d/b", a_file()), ("d/c", a_file()))


@pytest.mark.parametrize("first", [True, False])
def test_an_opaque_directory_hides_what_is_below_it_also_when_its_marker_comes_last(first: bool) -> None:  # noqa: FBT001
    marker, files = opaque_marker("d"), [folder("d", UPPER), file("d/e/new"), file("d/x", b"new")]
    layer = changeset(marker, *files) if first else changeset(*files, marker)
    assert rootfs_of(BASE, layer) == shown(
        F, ("d", A_FOLDER.with_(UPPER)), E, ("d/e/new", a_file()), ("d/x", a_file(b"new"))
    )


def test_an_opaque_directory_that_its_layer_does_not_list_keeps_the_attributes_from_below() -> None:
    """As umoci does: the marker empties the directory, nothing else."""
    assert rootfs_of(BASE, changeset(opaque_marker("d"))) == shown(D, F)


def test_an_opaque_root_hides_all_layers_below_and_keeps_their_attributes_of_the_root() -> None:
    base = changeset(folder("./", LOWER), file("a"))
    found = rootfs_of(base, changeset(opaque_marker(), file("b")), changeset(file("c")))
    assert found == {b"": A_FOLDER.with_(LOWER), b"b": a_file(), b"c": a_file()}


def test_an_opaque_marker_hides_lower_directories_of_its_directory_only() -> None:
    layer = changeset(opaque_marker("d/e"), file("d/e/new"))
    assert rootfs_of(BASE, layer) == shown(D, X, F, E, ("d/e/new", a_file()))


def test_layers_above_an_opaque_directory_merge_with_it() -> None:
    layers = [BASE, changeset(opaque_marker("d"), folder("d", UPPER), file("d/1")), changeset(file("d/2"))]
    assert rootfs_of(*layers) == shown(F, ("d", A_FOLDER.with_(UPPER)), ("d/1", a_file()), ("d/2", a_file()))


def test_an_opaque_directory_in_the_place_of_a_file_replaces_it() -> None:
    layer = changeset(folder("f"), opaque_marker("f"))
    assert rootfs_of(BASE, layer) == shown(D, E, X, Y, ("f", A_FOLDER))


@pytest.mark.parametrize(
    "mark",
    [
        hard_link(".wh.d", "other"),
        hard_link(".wh.d", "not/in/this/layer"),
        hard_link(".wh.d", ".wh.d"),
        hard_link(".wh.d", "/"),
        hard_link(".wh.d", "other/below"),
        symlink(".wh.d", "f"),
        folder(".wh.d"),
        fifo(".wh.d"),
        device(".wh.d", "c", 0, 0),
        file(".wh.d", b"with bytes", About(0o7777, 1, 2, 3)),
    ],
)
def test_a_whiteout_may_be_of_any_kind(mark: bytes) -> None:
    found = rootfs_of(BASE, changeset(file("other"), mark))
    assert found == shown(F, ("other", a_file(nlink=found[b"other"].nlink)))


@pytest.mark.parametrize(
    "mark", [folder("d/.wh..wh..opq"), hard_link("d/.wh..wh..opq", "o"), symlink("d/.wh..wh..opq", "f")]
)
def test_an_opaque_marker_may_be_of_any_kind(mark: bytes) -> None:
    found = rootfs_of(BASE, changeset(file("o"), folder("d"), mark))
    assert found == shown(("d", A_FOLDER), F, ("o", a_file(nlink=found[b"o"].nlink)))


def test_what_aufs_left_behind_is_not_shown_and_hides_nothing() -> None:
    aufs = changeset(
        file(".wh..wh.aufs"), folder(".wh..wh.orph"), folder(".wh..wh.plnk"), file("d/.wh..wh.x"), file(".wh..wh.f")
    )
    assert rootfs_of(BASE, aufs) == shown(D, E, X, Y, F)


def test_a_hard_link_to_what_aufs_left_behind_has_its_bytes() -> None:
    layer = changeset(folder(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"1"), hard_link("a", ".wh..wh.plnk/1.2"))
    linked = a_file(b"1", nlink=2)
    assert rootfs_of(layer) == shown(("a", linked), (".wh..wh.plnk", IMPLICIT), (".wh..wh.plnk/1.2", linked))


def test_a_directory_over_a_directory_merges_their_entries_and_takes_the_upper_attributes() -> None:
    layer = changeset(folder("d", UPPER), file("d/new"))
    assert rootfs_of(BASE, layer) == shown(("d", A_FOLDER.with_(UPPER)), E, X, Y, F, ("d/new", a_file()))


def test_a_directory_whose_attributes_come_again_and_again_has_the_last() -> None:
    layers = [BASE, changeset(folder("d", UPPER)), changeset(folder("d"), folder("d", LOWER)), changeset(file("d/z"))]
    assert rootfs_of(*layers) == shown(D, E, X, Y, F, ("d/z", a_file()))


def test_a_directory_that_a_layer_does_not_list_keeps_the_attributes_from_below() -> None:
    layers = [BASE, changeset(file("d/e/z")), changeset(whiteout("d/e/z"))]
    assert rootfs_of(*layers) == shown(D, E, X, Y, F)


def test_a_directory_that_no_layer_lists_is_0755_root_s_and_as_old_as_the_image() -> None:
    layers = [changeset(file("a/b/1")), changeset(file("a/b/2"))]
    expected = shown(("a", IMPLICIT), ("a/b", IMPLICIT), ("a/b/1", a_file()), ("a/b/2", a_file()))
    assert rootfs_of(*layers) == expected


def test_a_directory_listed_by_the_base_alone_has_those_attributes_below_any_number_of_layers() -> None:
    layers = [changeset(folder("d", LOWER)), *(changeset(file(f"d/{number}")) for number in range(5))]
    assert rootfs_of(*layers) == shown(D, *((f"d/{number}", a_file()) for number in range(5)))


def test_the_root_takes_the_attributes_of_the_uppermost_layer_that_lists_it() -> None:
    layers = [changeset(folder(".", UPPER)), changeset(folder("./", LOWER)), changeset(file("a"))]
    assert rootfs_of(*layers) == {b"": A_FOLDER.with_(LOWER), b"a": a_file()}


def test_a_file_over_a_directory_hides_all_below_it() -> None:
    assert rootfs_of(BASE, changeset(file("d", b"new"))) == shown(("d", a_file(b"new")), F)


def test_a_directory_over_a_file_replaces_it() -> None:
    assert rootfs_of(BASE, changeset(folder("f", UPPER), file("f/a"))) == shown(
        D, E, X, Y, ("f", A_FOLDER.with_(UPPER)), ("f/a", a_file())
    )


def test_a_directory_over_a_symlink_replaces_it_and_is_not_what_it_leads_to() -> None:
    base = changeset(folder("real", LOWER), file("real/x"), symlink("l", "real"))
    assert rootfs_of(base, changeset(folder("l"))) == shown(
        ("real", A_FOLDER.with_(LOWER)), ("real/x", a_file()), ("l", A_FOLDER)
    )


def test_a_symlink_over_a_directory_hides_all_below_it() -> None:
    assert rootfs_of(BASE, changeset(symlink("d", "f"))) == shown(("d", a_symlink(b"f")), F)


def test_a_directory_over_a_file_over_a_directory_has_nothing_of_the_lowest() -> None:
    layers = [BASE, changeset(file("d")), changeset(file("d/new"))]
    assert rootfs_of(*layers) == shown(F, ("d", IMPLICIT), ("d/new", a_file()))


@pytest.mark.parametrize("target", ["real", "/real", "../real", "/nowhere", "l"])
def test_a_path_through_a_symlink_of_a_lower_layer_replaces_it_by_a_directory(target: str) -> None:
    base = changeset(folder("real"), file("real/x"), symlink("l", target))
    assert rootfs_of(base, changeset(file("l/y", b"y"))) == shown(
        ("real", A_FOLDER), ("real/x", a_file()), ("l", IMPLICIT), ("l/y", a_file(b"y"))
    )


def test_a_file_of_every_kind_hides_what_lies_below_it() -> None:
    for kind in (fifo("d"), device("d", "b", 1, 2), symlink("d", "x"), file("d")):
        assert set(rootfs_of(BASE, changeset(kind))) == {b"", b"d", b"f"}


def test_127_layers_merge() -> None:
    layers = [changeset(file("d/first"), file("same", b"0"))]
    for number in range(1, 127):
        about = About(0o700 + number % 8, number)
        layers.append(changeset(folder("d", about), file(f"d/{number}"), file("same", b"%d" % number),
                                whiteout(f"d/{number - 2}")))  # fmt: skip
    assert rootfs_of(*layers) == shown(
        ("d", A_FOLDER.with_(About(0o706, 126))),
        *((f"d/{name}", a_file()) for name in ("first", 125, 126)),
        ("same", a_file(b"126")),
    )


def test_no_file_has_the_name_of_a_whiteout() -> None:
    odd = changeset(
        file(".wh.x"), folder(".wh.a"), folder("d"), file("d/.wh.y"), file(".wha"), file(".wh"), file("a.wh.b")
    )
    assert set(rootfs_of(odd, changeset(whiteout("z")))) == {b"", b"d", b".wha", b".wh", b"a.wh.b"}


WHITEOUTS_WITH_FILES = {
    "a directory": ([folder(".wh.d", UPPER), file(".wh.d/x", b"1")], False),
    "a file": ([file(".wh.d"), file(".wh.d/x", b"1")], False),
    "a directory that comes last": ([file(".wh.d/x", b"1"), folder(".wh.d", UPPER)], False),
    "no whiteout": ([file(".wh.d/x", b"1")], True),
}


@pytest.mark.parametrize(("members", "stays"), WHITEOUTS_WITH_FILES.values(), ids=WHITEOUTS_WITH_FILES.keys())
def test_files_below_the_name_of_a_whiteout_are_shown_and_hide_nothing_themselves(
    members: list[bytes],
    stays: bool,  # noqa: FBT001
) -> None:
    """As all peers do: they make a directory of that name for what lies below it."""
    below = (".wh.d", IMPLICIT), (".wh.d/x", a_file(b"1"))
    for layers in ([BASE, changeset(*members)], [BASE, changeset(*members), changeset(file("f", b"f"))]):
        assert rootfs_of(*layers) == shown(*below, *((D, E, X, Y) if stays else ()), F)
    whited = [BASE, changeset(*members), changeset(file(".wh.f"), file(".wh.d/y"))]
    assert rootfs_of(*whited) == shown(*below, (".wh.d/y", a_file()), *((D, E, X, Y) if stays else ()))
