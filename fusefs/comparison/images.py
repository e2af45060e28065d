"""Two images, or a layer and those below it, as the two sides of a comparison."""

from collections.abc import Callable
from typing import NamedTuple

from fusefs.image.opened import Opened
from fusefs.layers.diff import Side
from fusefs.layers.rootfs import RootfsTree
from fusefs.packages.database import Package
from fusefs.packages.installed import installed
from fusefs.tree.walk import PathNode, resolve


class Sides(NamedTuple):
    """What is compared."""

    old: Side | None
    """None: there is no layer below."""
    new: Side

    def packages(self) -> list[list[Package]]:
        """Return the packages in the whole root file system of each side."""
        return [[] if side is None else installed(side.tree) for side in self]


def side_of(opened: Opened, tree: RootfsTree, top: PathNode | None) -> Side:
    """Return the merged layers *tree* of an image as a side, at the path *top*, if it is there."""
    keys = [opened.layers.bytes_key(layer) for layer in opened.layers.stack[: len(tree.files)]]
    return Side(tree, keys, opened.image.created_ns, top)


def sides_of_layer(opened: Opened, number: int, find: Callable[[RootfsTree], PathNode]) -> Sides:
    """Return the layers below *number* merged, and the same with that layer; *find* finds the path to compare."""
    above = opened.rootfs_up_to(number)
    top = find(above)
    new = side_of(opened, above, top)
    if not number:
        return Sides(None, new)
    below = opened.rootfs_up_to(number - 1)
    try:
        old = resolve(below, top.path, follow=False)
    except OSError:
        old = None
    return Sides(side_of(opened, below, old), new)
