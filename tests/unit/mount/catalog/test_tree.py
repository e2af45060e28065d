"""The directories above the images of a catalog."""

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from fusefs.mount.catalog.directory import ImageDirectory
from fusefs.mount.catalog.provider import Listed, Path
from fusefs.mount.catalog.tree import CatalogTree
from fusefs.tree.node import Attributes, Directory, LazyDirectory, Symlink

ATTRIBUTES = Attributes(0o555, 1, 2, 3)


class Names(NamedTuple):
    """A listing: images by path, and links."""

    images: Sequence[Listed]
    links: dict[tuple[Path, bytes], bytes] = {}  # noqa: RUF012 - never changed

    def link(self, folder: Path, name: bytes) -> bytes | None:
        """Return the target of a link."""
        return self.links.get((folder, name))


def listed(path: str, key: str = "id") -> Listed:
    """Return an image directory."""
    return Listed(tuple(path.encode().split(b"/")), key, path, 5)


def _never(_: Listed) -> NoReturn:
    raise AssertionError


def catalog(*images: Listed, **links: bytes) -> CatalogTree:
    """Return the tree of *images* and of links in its root."""
    tree = CatalogTree(ATTRIBUTES, (), _made)
    tree.update(names(*images, **links))
    return tree


def names(*images: Listed, **links: bytes) -> Names:
    """Return a listing."""
    return Names(images, {((), name.encode()): target for name, target in links.items()})


def _made(image: Listed) -> ImageDirectory:
    return _never(image)


def number(tree: CatalogTree, path: str) -> int | None:
    """Return the number of a path."""
    at: int | None = 0
    for name in path.encode().split(b"/"):
        at = None if at is None else tree.find(at, name)
    return at


def test_names_are_directories_images_and_links() -> None:
    tree = catalog(listed("a/b@1"), listed("c@2"), c=b"c@2")
    assert [name for name, _ in tree.listing(0)] == [b"a", b"c@2"]
    kinds = [type(tree.node(number(tree, path) or 0)) for path in ("a", "a/b@1", "c@2", "c")]
    assert kinds == [Directory, LazyDirectory, LazyDirectory, Symlink]
    assert number(tree, "a/nothing") is None
    assert tree.stat(number(tree, "c@2") or 0).mtime_ns == 5
    assert tree.parent(number(tree, "a/b@1") or 0) == number(tree, "a")


def test_a_name_that_stays_keeps_its_number_and_one_that_moves_gets_another() -> None:
    tree = catalog(listed("a@1", "x"), listed("b@1", "y"))
    before = [number(tree, "a@1"), number(tree, "b@1")]
    for at in before:
        tree.looked_up(at or 0)
    gone = tree.update(names(listed("a@1", "x"), listed("b@1", "z")))
    assert gone == [(0, b"b@1")]
    after = [number(tree, "a@1"), number(tree, "b@1")]
    assert after[0] == before[0]
    assert after[1] not in before


def test_a_node_that_the_kernel_knows_stays_when_its_name_is_gone() -> None:
    tree = catalog(listed("a@1"))
    at = number(tree, "a@1") or 0
    tree.looked_up(at)
    tree.looked_up(at)
    tree.update(names())
    assert number(tree, "a@1") is None
    assert isinstance(tree.node(at), LazyDirectory)
    assert [tree.forget(at, 1), tree.forget(at, 1)] == [False, True]
    assert not tree.is_folder(at)


def test_numbers_of_what_is_gone_are_used_again_so_they_do_not_grow() -> None:
    tree = catalog()
    seen = set()
    for round_number in range(100):
        tree.update(names(*(listed(f"{name}@{round_number}", f"{name}{round_number}") for name in "abc")))
        for _, at in tree.listing(0):
            tree.looked_up(at)
            seen.add(at)
        for _, at in tree.listing(0):
            tree.forget(at, 1)
    assert len(seen) <= 8


def test_a_directory_of_other_names_is_not_hidden_by_an_image() -> None:
    tree = catalog(listed("a/b"), listed("a", "other"))
    assert tree.is_folder(number(tree, "a") or 0)
    assert isinstance(tree.node(number(tree, "a/b") or 0), LazyDirectory)


def test_what_is_gone_is_told_once_since_its_name_may_be_that_of_another() -> None:
    tree = catalog(listed("a@1", "x"))
    tree.looked_up(number(tree, "a@1") or 0)
    told = [tree.update(names(listed("a@1", key))) for key in ("y", "y", "x", "y")]
    assert told == [[(0, b"a@1")], [], [], [(0, b"a@1")]]
