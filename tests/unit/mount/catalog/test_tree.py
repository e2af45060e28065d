"""The directories above the images of a catalog."""

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from fusefs.mount.catalog.at_once import ListedAtOnce
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


class Shown:
    """A tree, and a provider that shows one list of names after the other."""

    def __init__(self, listing: Names) -> None:
        self.listing_now = listing
        self.place = "here"
        self.provider = ListedAtOnce(self, listing)
        self.tree = CatalogTree(ATTRIBUTES, (), _made, self.provider)

    def listing(self) -> Names:
        """Return the present names."""
        return self.listing_now

    def open(self, listed: Listed) -> NoReturn:
        """Fail: nothing is opened here."""
        _never(listed)

    def close(self, opened: object) -> NoReturn:
        """Fail, too."""
        raise AssertionError(opened)

    def update(self, listing: Names) -> list[tuple[int, bytes]]:
        """Show other names, and return what is gone."""
        self.listing_now = listing
        self.provider._keep(0)
        question = self.provider.question((), None)
        assert question is not None
        question.ask()
        return [gone for gone in self.tree.gone(self.provider.changes()) if gone is not None]


def shown(*images: Listed, **links: bytes) -> Shown:
    """Return the tree of *images* and of links in its root, which may change."""
    return Shown(names(*images, **links))


def catalog(*images: Listed, **links: bytes) -> CatalogTree:
    """Return the tree of *images* and of links in its root."""
    return shown(*images, **links).tree


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
    changing = shown(listed("a@1", "x"), listed("b@1", "y"))
    tree = changing.tree
    before = [number(tree, "a@1"), number(tree, "b@1")]
    for at in before:
        tree.looked_up(at or 0)
    gone = changing.update(names(listed("a@1", "x"), listed("b@1", "z")))
    assert gone == [(0, b"b@1")]
    after = [number(tree, "a@1"), number(tree, "b@1")]
    assert after[0] == before[0]
    assert after[1] not in before


def test_a_node_that_the_kernel_knows_stays_when_its_name_is_gone() -> None:
    changing = shown(listed("a@1"))
    tree = changing.tree
    at = number(tree, "a@1") or 0
    tree.looked_up(at)
    tree.looked_up(at)
    changing.update(names())
    assert number(tree, "a@1") is None
    assert isinstance(tree.node(at), LazyDirectory)
    assert [tree.forget(at, 1), tree.forget(at, 1)] == [False, True]
    assert not tree.is_folder(at)


def test_numbers_of_what_is_gone_are_used_again_so_they_do_not_grow() -> None:
    changing = shown()
    tree = changing.tree
    seen, numbers = set[tuple[int, int]](), set[int]()
    for round_number in range(100):
        changing.update(names(*(listed(f"{name}@{round_number}", f"{name}{round_number}") for name in "abc")))
        for _, at in tree.listing(0):
            tree.looked_up(at)
            seen.add((at, tree.generation(at)))
            numbers.add(at)
        for _, at in tree.listing(0):
            tree.forget(at, 1)
    assert len(numbers) <= 8
    assert len(seen) == 300


def test_a_directory_of_other_names_is_not_hidden_by_an_image() -> None:
    tree = catalog(listed("a/b"), listed("a", "other"))
    assert tree.is_folder(number(tree, "a") or 0)
    assert isinstance(tree.node(number(tree, "a/b") or 0), LazyDirectory)


def test_what_is_gone_is_told_once_since_its_name_may_be_that_of_another() -> None:
    changing = shown(listed("a@1", "x"))
    changing.tree.looked_up(number(changing.tree, "a@1") or 0)
    told = [changing.update(names(listed("a@1", key))) for key in ("y", "y", "x", "y")]
    assert told == [[(0, b"a@1")], [], [], [(0, b"a@1")]]


def test_what_is_gone_is_looked_for_in_turns_and_in_the_folders_that_changed() -> None:
    many = [listed(f"a/{number}@1") for number in range(600)]
    changing = shown(*many, listed("b@1"))
    tree = changing.tree
    for _, at in [*tree.listing(0), *tree.listing(number(tree, "a") or 0)]:
        tree.looked_up(at)
    changing.listing_now = names()
    changing.provider._keep(0)
    question = changing.provider.question((), None)
    assert question is not None
    question.ask()
    assert [*tree.gone(())] == []
    assert [*tree.gone([()])] == [(0, b"a"), (0, b"b@1")]
    found = [*tree.gone(changing.provider.changes())]
    assert found.count(None) == 2
    assert len(found) == 2 + 600


def test_a_listing_with_the_same_names_changes_none() -> None:
    changing = shown(listed("a@1", "x"))
    changing.tree.looked_up(number(changing.tree, "a@1") or 0)
    assert changing.update(names(listed("a@1", "x"))) == []
    assert changing.provider.changes() == ()
