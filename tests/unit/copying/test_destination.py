"""Where a copy goes and what it is called: the rules of docker cp."""

import os
from pathlib import Path

import pytest

from fusefs.errors import ImgfsError, NoSpace, Unavailable
from tests.support.changesets import changeset, file, folder, symlink
from tests.unit.copying.trees import copy, found, tree_of

LAYER = changeset(folder("d"), folder("d/e"), file("d/f", b"f"), file("g", b"g"), symlink("l", "d"), symlink("m", "g"))
D: dict[str, object] = {"e": None, "f": b"f"}

OLD: dict[str, object] = {"old": b"old"}


def under(name: str, inner: dict[str, object]) -> dict[str, object]:
    """Return what a directory *name* with *inner* in it adds."""
    return {name: None} | {f"{name}/{path}": value for path, value in inner.items()}


WAYS: dict[str, tuple[str, str, dict[str, object]]] = {
    "a file to a new name": ("/g", "new", {"new": b"g"}),
    "a file into a directory": ("/g", "there", under("there", {"g": b"g", "old": b"old"})),
    "a file onto a file": ("/g", "there/old", under("there", {"old": b"g"})),
    "a directory to a new name": ("/d", "new", under("new", D)),
    "a directory to a new name with a slash": ("/d/", "new/", under("new", D)),
    "a directory into a directory": ("/d", "there", under("there", OLD | under("d", D))),
    "what is in a directory to a new name": ("/d/.", "new", under("new", D)),
    "what is in a directory into a directory": ("/d/.", "there", under("there", OLD | D)),
    "the root to a new name": ("/", "new", under("new", under("d", D) | {"g": b"g", "l": "-> d", "m": "-> g"})),
    "a link": ("/l", "new", {"new": "-> d"}),
    "a link with a slash": ("/l/", "there", under("there", OLD | under("l", D))),
    "what is in a directory behind a link": ("/l/.", "there", under("there", OLD | D)),
    "a directory above": ("/d/e/..", "there", under("there", OLD | under("d", D))),
}


@pytest.mark.parametrize(("path", "to", "expected"), WAYS.values(), ids=WAYS.keys())
def test_a_copy_is_named_as_by_docker_cp(tmp_path: Path, path: str, to: str, expected: dict[str, object]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_bytes(b"old")
    with tree_of(LAYER) as tree:
        copy(tree, path, f"{tmp_path}/{to}")
    there = {} if to.startswith("there") else under("there", {"old": b"old"})
    assert found(tmp_path) == dict(sorted((there | expected).items()))


def test_a_link_that_the_path_names_is_followed_on_request(tmp_path: Path) -> None:
    with tree_of(LAYER) as tree:
        copy(tree, "/m", tmp_path, follow=True)
    assert found(tmp_path) == {"m": b"g"}


def test_links_that_the_user_names_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "file").symlink_to("real/new")
    with tree_of(LAYER) as tree:
        copy(tree, "/g", tmp_path / "folder")
        copy(tree, "/g", tmp_path / "file")
    assert found(tmp_path / "real") == {"g": b"g", "new": b"g"}


REFUSED = {
    "no parent": ("/g", "no/new", "cannot write {}/no/new: No such file or directory"),
    "no directory of that name": ("/g", "new/", "cannot write {}/new/: No such file or directory"),
    "a file as a directory": ("/g", "old/", "cannot write {}/old/: Not a directory"),
    "a directory onto a file": ("/d", "old", "cannot write {}/old: it is not a directory"),
    "a loop": ("/g", "loop", "cannot write {}/loop: Too many levels of symbolic links"),
    "a directory onto a link in a directory": ("/d", ".", "cannot write {}/./d: it exists and is not a directory"),
    "a file onto a directory in a directory": ("/g", ".", "cannot write {}/./g: it exists and is a directory"),
}


@pytest.mark.parametrize(("path", "to", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_docker_cp_refuses_changes_nothing(tmp_path: Path, path: str, to: str, message: str) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "d").symlink_to("g")
    (tmp_path / "g").mkdir()
    before = found(tmp_path)
    with tree_of(LAYER) as tree, pytest.raises(NoSpace) as caught:
        copy(tree, path, f"{tmp_path}/{to}")
    assert str(caught.value) == message.format(tmp_path)
    assert found(tmp_path) == before


def test_what_the_image_does_not_have_is_an_error(tmp_path: Path) -> None:
    with tree_of(LAYER) as tree:
        for path, why in (("/no", "No such file"), ("/g/x", "Not a directory"), ("/g/.", "Not a directory")):
            with pytest.raises(Unavailable, match=f"image has no {path}: {why}"):
                copy(tree, path, tmp_path)
    assert os.listdir(tmp_path) == []
    assert issubclass(Unavailable, ImgfsError)
