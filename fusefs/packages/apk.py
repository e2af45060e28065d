"""The database of Alpine's apk: ``installed``."""

from collections.abc import Iterator

from fusefs.packages.database import Package, file_at, package, paragraphs, text_of
from fusefs.tree.node import Tree

_PLACES = (b"/lib/apk/db/installed", b"/usr/lib/apk/db/installed")
"""The second one from apk 3 on; with a merged /usr, both are one file."""

_FIELDS = b"P", b"V", b"A"
"""Of name, version and architecture."""


def packages(tree: Tree) -> Iterator[Package]:
    """Yield the packages of apk."""
    for place in _PLACES:
        if content := file_at(tree, place):
            for fields in paragraphs(text_of(content, place), _FIELDS):
                found = package("apk", *(fields.get(name, b"") for name in _FIELDS))
                if found:
                    yield found
            return
