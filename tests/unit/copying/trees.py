"""Trees to copy, and what a copy of them is."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusefs.content.protocol import Literal
from fusefs.copying.copied import Copied
from fusefs.copying.host import copy_to_host
from fusefs.copying.source import source_at
from fusefs.layers.rootfs import RootfsTree
from fusefs.tree.node import Attributes, Directory, KnownTree, Node, RegularFile, Tree
from tests.support.changesets import all_indexed


@contextmanager
def tree_of(*layers: bytes) -> Iterator[Tree]:
    """Give the merged tree of *layers*."""
    with all_indexed(layers) as files:
        yield RootfsTree(files, transform_symlinks=False)


def known(entries: dict[bytes, Node]) -> Tree:
    """Return a tree of nodes, which may have any names."""
    return KnownTree(Directory(Attributes(0o755, 0, 0, 0), entries))


def regular(data: bytes | Literal) -> RegularFile:
    """Return a file."""
    return RegularFile(Attributes(0o644, 0, 0, 0), Literal(data) if isinstance(data, bytes) else data)


def copy(tree: Tree, path: str, destination: Path | str, *, follow: bool = False) -> Copied:
    """Copy what *path* names."""
    source = source_at(tree, path.encode(), "image", follow=follow)
    return copy_to_host(source, os.fsencode(destination), lambda count: None)  # noqa: ARG005


def found(folder: Path) -> dict[str, Any]:
    """Return what is in a folder by path: the bytes of a file, the target of a link, None for a directory."""
    there: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name, mode = str(path.relative_to(folder)), path.lstat().st_mode
        if stat.S_ISLNK(mode):
            there[name] = f"-> {path.readlink()}"
        else:
            there[name] = path.read_bytes() if stat.S_ISREG(mode) else None
    return there
