"""The layers that a path needs, from the top down."""

from collections.abc import Sequence

import pytest

from fusefs.layers.needed import Need, NeededLayers, Question
from tests.support.changesets import all_indexed, changeset, file, folder, hard_link, opaque, symlink, whiteout

BASE = changeset(folder("etc"), file("etc/motd", b"0"), file("etc/base"), folder("d"), file("d/x"), symlink("lib", "d"))


def needs(layers: Sequence[bytes], *questions: str, follow: bool = True) -> list[Need]:
    """Return the need after each of *layers*, the base first, has been added, the top first."""
    with all_indexed(layers) as files:
        needed = NeededLayers([Question(path.encode(), follow) for path in questions])
        found: list[Need] = []
        for layer in reversed(files):
            found.append(needed.add(layer.index))
            if found[-1] is not Need.NEXT:
                break
        return found


def test_a_file_needs_the_layers_from_the_top_down_to_its_own() -> None:
    layers = [BASE, changeset(file("etc/motd", b"1"), file("etc/middle")), changeset(file("top"))]
    assert needs(layers, "/top") == [Need.NONE]
    assert needs(layers, "/etc/motd") == [Need.NEXT, Need.NONE]
    assert needs(layers, "/etc/base") == [Need.NEXT, Need.NEXT, Need.NONE]
    assert needs(layers, "/no") == [Need.NEXT] * 3
    assert needs(layers, "/top", "/etc/middle") == [Need.NEXT, Need.NONE]
    assert needs(layers, "/top/x") == [Need.NONE]


@pytest.mark.parametrize(
    ("upper", "path"),
    [
        (changeset(whiteout("etc/motd")), "/etc/motd"),
        (changeset(whiteout("etc")), "/etc/motd"),
        (changeset(opaque("etc")), "/etc/motd"),
        (changeset(file("etc")), "/etc/motd"),
        (changeset(folder("d"), opaque("d"), file("d/y")), "/d"),
        (changeset(folder("d"), whiteout("d"), file("d/y")), "/d/x"),
        (changeset(symlink("l", "top"), file("top")), "/l"),
        (changeset(symlink("l", "l")), "/l"),
        (changeset(symlink("l", "/no"), whiteout("no")), "/l/../x"),
    ],
)
def test_what_hides_lower_layers_settles_a_path(upper: bytes, path: str) -> None:
    assert needs([BASE, upper], path) == [Need.NONE]


def test_links_are_followed_into_lower_layers() -> None:
    upper = changeset(symlink("l", "lib/x"))
    assert needs([BASE, upper], "/l") == [Need.NEXT, Need.NONE]
    assert needs([BASE, upper], "/l", follow=False) == [Need.NONE]
    assert needs([BASE, upper], "/l/", follow=False) == [Need.NEXT, Need.NONE]


def test_a_listing_and_hard_links_into_lower_layers_need_all() -> None:
    assert needs([BASE, changeset(folder("etc"), file("etc/x"))], "/etc") == [Need.ALL]
    assert needs([BASE, changeset(opaque("etc"))], "/etc") == [Need.ALL]  # its attributes may be lower ones
    assert needs([BASE, changeset(hard_link("h", "etc/motd"), file("top"))], "/top") == [Need.ALL]


def test_a_search_that_costs_more_than_all_layers_ends() -> None:
    deep = "/".join(["d"] * 1000)
    layers = [changeset(file(f"{deep}/{number}")) for number in range(100)]
    found = needs(layers, f"/{deep}/0")
    assert found[-1] is Need.ALL
    assert len(found) < 15
