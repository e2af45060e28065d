"""A package, and what all databases of packages have in common."""

import io
from collections.abc import Collection, Iterator
from typing import NamedTuple

from fusefs.content.protocol import Content
from fusefs.errors import InvalidImage
from fusefs.text import printable
from fusefs.tree.node import RegularFile, Tree
from fusefs.tree.walk import resolve

MAX_PACKAGES = 1 << 18
"""Packages that a root file system may have; the largest distributions have 100,000."""
MAX_TEXT = 64 << 20
"""Bytes of a database that is a text, or of all files of one; the largest are of 10 MB."""
MAX_WORD = 256
"""Characters of a name, a version or an architecture."""


class Package(NamedTuple):
    """An installed package."""

    kind: str
    """``deb``, ``apk`` or ``rpm``."""
    name: str
    version: str
    """As the package manager writes it: ``[EPOCH:]VERSION[-RELEASE]``."""
    architecture: str
    """Empty if the database does not tell."""


def file_at(tree: Tree, path: bytes) -> Content | None:
    """Return the content of the file at *path*, None if there is no file."""
    found = numbered_file_at(tree, path)
    return found and found[1]


def numbered_file_at(tree: Tree, path: bytes) -> tuple[int, Content] | None:
    """Return the number of the file at *path*, one for all its names, and its content; None if there is no file."""
    try:
        number = resolve(tree, path).number
        node = tree.node(number)
    except OSError:
        return None
    return (number, node.content) if isinstance(node, RegularFile) else None


def text_of(content: Content, path: bytes) -> bytes:
    """Return the bytes of a database that is a text; InvalidImage if they are too many."""
    if content.size > MAX_TEXT:
        raise InvalidImage(f"{printable(path)} has {content.size} bytes, a list of packages at most {MAX_TEXT}")
    return bytes(content.read_at(0, content.size))


def paragraphs(text: bytes, wanted: Collection[bytes]) -> Iterator[dict[bytes, bytes]]:
    """Yield the *wanted* fields of each paragraph of *text*, lines ``NAME: VALUE``, without lines that go on.

    Format: deb822(5) of dpkg, and apk's, whose names are letters.
    """
    fields: dict[bytes, bytes] = {}
    for line in io.BytesIO(text):  # not all at once: there may be millions
        if line.isspace():
            if fields:
                yield fields
                fields = {}
            continue
        name, colon, value = line.partition(b":")
        if colon and name in wanted:
            fields[name] = value.strip()
    if fields:
        yield fields


def package(kind: str, name: bytes, version: bytes, architecture: bytes) -> Package | None:
    """Return the package of these words; None without a name, or with a word that is too long to be one."""
    if not name or max(map(len, (name, version, architecture))) > MAX_WORD:
        return None
    return Package(kind, *(word.decode("utf-8", "surrogateescape") for word in (name, version, architecture)))
