"""The efficiency of an image, and what it costs to tell it."""

from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.waste import waste
from tests.conftest import TakeWarnings
from tests.support.changesets import all_indexed, changeset, file, folder, hard_link, whiteout


def efficiency(*layers: bytes) -> float:
    with all_indexed(layers) as files:
        return waste(RootfsTree(files, transform_symlinks=False)).efficiency


def test_a_removed_directory_counts_as_the_files_that_were_in_it() -> None:
    base = changeset(folder("d"), file("d/a", b"a" * 100), file("d/e/b", b"b" * 50), file("f", b"f" * 50))
    middle = changeset(file("d/a", b"A" * 10))
    # d/a: 10 of 110, d/e/b: 50 of 50, f: 0 of 50, d: 60 of 60.
    assert efficiency(base, middle, changeset(whiteout("d"), whiteout("f"))) == 120 / 270


def test_what_comes_later_is_not_removed() -> None:
    base, again = changeset(file("d/a", b"a" * 100)), changeset(file("d/b", b"b" * 40))
    # d/a: 100 of 100, d: 100 of 100 and 40 of 40 at the second time, so 40 of 140, d/b: 40 of 40.
    assert efficiency(base, changeset(whiteout("d")), again, changeset(whiteout("d"))) == 180 / 280


def test_whiteouts_do_not_follow_the_links_of_lower_layers_again(take_warnings: TakeWarnings) -> None:
    links = changeset(hard_link("x", "nothing"))
    upper = changeset(*(whiteout(f"d/{number}") for number in range(3)))
    assert efficiency(changeset(folder("d"), file("d/0", b"0")), links, upper) == 0
    assert take_warnings() == ["layer 1: skipped 1 hard links to nothing; the first: x"]
