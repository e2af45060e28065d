"""Paths in a tree, against the kernel's own walk of the same files."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.layers.tree import LayerTree
from fusefs.tree.node import Tree
from fusefs.tree.walk import ROOT, children, resolve, walk
from tests.support.changesets import changeset, file, folder, indexed, symlink

LINKS = {
    "up": "..",
    "a/up": "..",
    "a/b/to-c": "../../c",
    "rooted": "/a/b",
    "a/again": "../rooted/deep",
    "dangling": "nowhere/x",
    "loop": "loop",
    "round": "about",
    "about": "round",
    "slash": "a/",
    "file-slash": "c/file/",
    "dots": "./a/.//b/./",
    "many-ups": "../../../../c",
}
TREE = changeset(
    *(folder("a"), folder("a/b"), folder("a/b/deep"), folder("c"), file("c/file", b"1"), file("a/b/deep/f", b"2")),
    *(symlink(name, target) for name, target in LINKS.items()),
    *(symlink(f"chain{n}", f"chain{n + 1}") for n in range(41)),
    file("chain41", b"3"),
)


@pytest.fixture(name="tree")
def indexed_tree() -> Iterator[Tree]:
    """The tree of one layer."""
    with indexed(TREE) as layer:
        yield LayerTree(layer.files, transform_symlinks=False)


@pytest.fixture(name="root", scope="module")
def same_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files in a directory; absolute links lead below it, and none leads out of it."""
    root = tmp_path_factory.mktemp("root")
    for path in ("a/b/deep", "c"):
        (root / path).mkdir(parents=True)
    (root / "c/file").write_bytes(b"1")
    (root / "a/b/deep/f").write_bytes(b"22")
    (root / "chain41").write_bytes(b"333")
    for name, target in [*LINKS.items(), *((f"chain{n}", f"chain{n + 1}") for n in range(41))]:
        (root / name).symlink_to(f"{root}{target}" if target.startswith("/") else target)
    return root


PATHS = [
    *("", "a", "a/b", "c/file", "c/file/", "c/file/x", "c/file/..", "a/", "a/b/deep/f", "no", "no/x", "a/no"),
    *("a/b/..", "a/./b//deep/", ".", "a/up", "a/up/c", "a/b/to-c/file", "rooted", "rooted/deep/f", "a/again/f"),
    *("dangling", "dangling/", "loop", "loop/x", "round", "slash", "slash/b", "file-slash", "dots/deep"),
    *("chain0", "chain1", "chain2", "chain40", "a/again/..", "a/b/to-c/.."),
]


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_a_path_leads_to_where_the_kernel_goes(tree: Tree, root: Path, path: str, follow: bool) -> None:  # noqa: FBT001
    def ours() -> object:
        found = resolve(tree, path.encode(), follow=follow)
        return stat.S_IFMT(tree.stat(found.number).mode), os.fsdecode(found.path)

    def the_kernels() -> object:
        # A name without its slash at the end, which lstat() would follow as well.
        said = os.stat(f"{root}/{path}") if follow else os.lstat(f"{root}/{path}")
        place = os.path.realpath(f"{root}/{path}") if follow or path.endswith("/") else _unfollowed(root, path)
        return stat.S_IFMT(said.st_mode), "/" + os.path.relpath(place, root).removeprefix(".")

    assert _outcome(ours) == _outcome(the_kernels)


def _unfollowed(root: Path, path: str) -> str:
    folder, _, name = f"{root}/{path}".rpartition("/")
    if name in ("", ".", ".."):
        return os.path.realpath(f"{root}/{path}")
    return os.path.join(os.path.realpath(folder), name)


def _outcome(ask: object) -> object:
    assert callable(ask)
    try:
        return ask()
    except OSError as error:
        return error.errno


@pytest.mark.parametrize("path", ["..", "../../a", "many-ups", "up", "up/up/up", "/../a/b"])
def test_the_root_is_its_own_parent(tree: Tree, path: str) -> None:
    found = resolve(tree, path.encode())
    assert found.path.decode() in ("/", "/a", "/c", "/a/b")
    assert resolve(tree, found.path) == found


def test_a_walk_may_begin_anywhere(tree: Tree) -> None:
    deep = resolve(tree, b"a/b/deep")
    assert resolve(tree, b"f", deep).path == b"/a/b/deep/f"
    assert resolve(tree, b"../../up", deep) == ROOT
    assert resolve(tree, b"/c", deep).path == b"/c"


def test_entries_come_by_name_and_directories_before_what_is_in_them(tree: Tree) -> None:
    assert [entry.path for entry in children(tree, resolve(tree, b"/a"))] == [b"/a/again", b"/a/b", b"/a/up"]
    assert [here.path for here, _ in walk(tree, ROOT)] == [b"/", b"/a", b"/a/b", b"/a/b/deep", b"/c"]


def test_hidden_directories_are_entered_unless_that_is_not_wanted() -> None:
    names = (".a/in/below", "x/.b/in/below", "x/c.d", "x/.file")
    with indexed(changeset(*(file(name) for name in names))) as layer:
        tree = LayerTree(layer.files, transform_symlinks=False)
        whole = [b"/", b"/.a", b"/.a/in", b"/x", b"/x/.b", b"/x/.b/in"]
        assert [here.path for here, _ in walk(tree, ROOT)] == whole
        assert [here.path for here, _ in walk(tree, ROOT, hidden=False)] == [b"/", b"/x"]
        begun = resolve(tree, b"x/.b")  # one that is named is no question
        assert [here.path for here, _ in walk(tree, begun, hidden=False)] == [b"/x/.b", b"/x/.b/in"]
