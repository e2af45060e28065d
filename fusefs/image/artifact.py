"""The files of an artifact: layers that are no changesets, by the titles that ORAS and others give them."""

from collections.abc import Iterable
from typing import NamedTuple, Union

from fusefs.content.protocol import Content
from fusefs.image.model import Layer
from fusefs.oci.documents import Descriptor

_TITLE = "org.opencontainers.image.title"
_MAX_NAME = 255
"""Bytes of a name that Linux accepts."""


class TitledFile(NamedTuple):
    """A layer with a title."""

    descriptor: Descriptor
    content: Content


TitledFiles = dict[bytes, Union[TitledFile, "TitledFiles"]]
"""The files and directories of a directory, by name."""


def titled_files(layers: Iterable[Layer]) -> TitledFiles:
    """Return the stored layers that are no changesets and have a title, which may be a path.

    Titles are untrusted: ``..`` is resolved below the top, a name that Linux does not accept is left out, and the
    second file with a name is called ``NAME.1``.
    """
    files: TitledFiles = {}
    for layer in layers:
        path = _path(layer.descriptor.annotations.get(_TITLE, ""))
        if layer.content is not None and not layer.readable and path:
            _put(files, path, TitledFile(layer.descriptor, layer.content))
    return files


def _path(title: str) -> list[bytes]:
    """Return the names in a *title*; none if it names no file."""
    names: list[bytes] = []
    for part in title.encode("utf-8", "replace").split(b"/"):
        if part == b"..":
            del names[-1:]
        elif part not in (b"", b"."):
            names.append(part)
    return names if all(len(name) <= _MAX_NAME and b"\0" not in name for name in names) else []


def _put(files: TitledFiles, path: list[bytes], file: TitledFile) -> None:
    *directories, last = path
    for name in directories:
        below = files.setdefault(name, {})
        number = 1
        while not isinstance(below, dict):
            below = files.setdefault(_numbered(name, number), {})
            number += 1
        files = below
    number, name = 0, last
    while name in files:
        number += 1
        name = _numbered(last, number)
    files[name] = file


def _numbered(name: bytes, number: int) -> bytes:
    """Return the name of another file with this *name*."""
    ending = b".%d" % number
    return name[: _MAX_NAME - len(ending)] + ending
