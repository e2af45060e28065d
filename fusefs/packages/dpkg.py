"""dpkg's database: ``/var/lib/dpkg/status``, or a file for each package in ``status.d`` (distroless images)."""

from collections.abc import Iterator

from fusefs.errors import InvalidImage
from fusefs.packages.database import MAX_TEXT, Package, file_at, numbered_file_at, package, paragraphs, text_of
from fusefs.text import printable
from fusefs.tree.node import Tree
from fusefs.tree.walk import children, is_directory, resolve

_STATUS = b"/var/lib/dpkg/status"
_FOLDER = b"/var/lib/dpkg/status.d"
_SUMS = b".md5sums"
_FIELDS = _NAME, _VERSION, _ARCHITECTURE, _STATE = b"Package", b"Version", b"Architecture", b"Status"
_GONE = (b"not-installed", b"config-files")
"""States of packages whose files are not there (dpkg(1))."""


def packages(tree: Tree) -> Iterator[Package]:
    """Yield the packages of dpkg."""
    if content := file_at(tree, _STATUS):
        yield from _packages(text_of(content, _STATUS))
    try:
        folder = resolve(tree, _FOLDER)
    except OSError:
        return
    if not is_directory(tree, folder.number):
        return
    read: set[int] = set()
    """Files, which may have several names."""
    left = MAX_TEXT
    for entry in children(tree, folder):
        found = None if entry.name.endswith(_SUMS) else numbered_file_at(tree, entry.path)
        if found is None or found[0] in read:
            continue
        number, content = found
        read.add(number)
        left -= content.size
        if left < 0:
            raise InvalidImage(f"{printable(_FOLDER)} has more than {MAX_TEXT} bytes of lists of packages")
        yield from _packages(text_of(content, entry.path))


def _packages(text: bytes) -> Iterator[Package]:
    for fields in paragraphs(text, _FIELDS):
        state = fields.get(_STATE, b"installed").split()[-1:]
        if state and state[0] in _GONE:
            continue
        found = package("deb", *(fields.get(name, b"") for name in (_NAME, _VERSION, _ARCHITECTURE)))
        if found:
            yield found
