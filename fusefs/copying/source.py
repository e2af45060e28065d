"""What is copied: a file of a tree, and the name that the copy gets."""

from collections.abc import Iterator
from typing import NamedTuple

from fusefs.content.file import Sparse
from fusefs.content.protocol import Bytes, Content
from fusefs.errors import InvalidImage
from fusefs.text import printable
from fusefs.tree.node import Tree
from fusefs.tree.walk import PathNode, found_at, is_directory

_CHUNK = 1 << 20


class Source(NamedTuple):
    """A file or directory of a tree."""

    tree: Tree
    top: PathNode
    name: bytes
    """The name of the copy; empty if only what is in the directory is copied."""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return is_directory(self.tree, self.top.number)


def source_at(tree: Tree, path: bytes, image: str, *, follow: bool = False) -> Source:
    """Return what *path* names in the tree of *image*: of ``/`` and ``DIR/.`` what is in the directory.

    *follow*: a symbolic link in the last part, too.  Raises Unavailable if there is no such file.
    """
    top = found_at(tree, path, image, follow=follow)
    last = path.rstrip(b"/").rpartition(b"/")[2]
    return Source(tree, top, top.name if last == b".." else b"" if last == b"." else last)


def checked_name(name: bytes) -> bytes:
    """Return the *name* of a file in a directory; InvalidImage if it would lead to another directory."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidImage(f"a file of the image has the name {printable(name)!r}")
    return name


def stored_runs(content: Content) -> list[tuple[int, Content]]:
    """Return the runs of stored bytes with their offsets, in order; between them are holes."""
    runs = content.runs() if isinstance(content, Sparse) else [(0, content)]
    return [(offset, run) for offset, run in runs if run.size]


def stored_bytes(content: Content) -> Iterator[tuple[int, Bytes]]:
    """Yield the stored bytes with their offsets, in order, at most a MiB at a time."""
    for start, run in stored_runs(content):
        for offset in range(0, run.size, _CHUNK):
            yield start + offset, run.read_at(offset, _CHUNK)
