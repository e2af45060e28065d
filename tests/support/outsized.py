"""Images that ask for work or memory out of proportion to their bytes."""

from collections.abc import Iterator

from tests.support.changesets import changeset, file, folder, hard_link

DEEPEST = 2045
"""Directories named ``a`` on the longest path that a hard link's target may have."""


def directories(count: int, name: str = "d") -> bytes:
    """Return a layer of *count* directories in its root."""
    return changeset(*(folder(f"{name}{number:05}") for number in range(count)))


def link_chains(layers: int, links: int) -> Iterator[bytes]:
    """Yield *layers*: the base has *links* files, each other layer a hard link to each name of the layer below it."""
    yield changeset(*(file(f"0-{link}", b"x") for link in range(links)))
    for layer in range(1, layers):
        yield changeset(*(hard_link(f"{layer}-{link}", f"{layer - 1}-{link}") for link in range(links)))


def deep_link(name: str, target: str = "f", depth: int = DEEPEST) -> bytes:
    """Return a layer of one hard link, to a file of a lower layer, below *depth* directories that nothing lists."""
    return changeset(hard_link("a/" * depth + name, target))


def deep_chain(layers: int, depth: int) -> Iterator[bytes]:
    """Yield *layers*: each has one file below *depth* directories, a hard link to that of the layer below it."""
    yield changeset(file("a/" * depth + "0", b"x"))
    for layer in range(1, layers):
        yield deep_link(str(layer), "a/" * depth + str(layer - 1), depth)


def nested(depth: int) -> bytes:
    """Return a layer of *depth* directories in each other, with an empty directory beside each."""
    return changeset(*(folder("a/" * above + "b") for above in range(depth)), folder("a/" * depth))
