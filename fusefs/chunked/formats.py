"""The formats of layers that can be read piece by piece, told by the annotations of a layer's descriptor."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from fusefs.chunked import estargz, zstd_chunked
from fusefs.chunked.pieces import PieceTar, Ranges
from fusefs.content.file import OpenFile

OpenTar = Callable[[Mapping[str, str], Ranges, OpenFile], PieceTar]


class Format(NamedTuple):
    """A format."""

    name: str
    open_tar: OpenTar
    """Returns the plain tar of a layer: (annotations, blob, new file).  Raises Unusable, OSError and NoSpace."""
    has_headers: bool
    """Whether the headers are those of the tar, so that the layer index is the same; else they are made."""


_ZSTD_CHUNKED = Format("zstd:chunked", zstd_chunked.zstd_chunked_tar, has_headers=True)
_ESTARGZ = Format("eStargz", estargz.estargz_tar, has_headers=False)


def format_of(annotations: Mapping[str, str]) -> Format | None:
    """Return the format of a layer with *annotations*, None for a plain one, and for one that claims two formats."""
    found = [
        known
        for known, claimed in (
            (_ZSTD_CHUNKED, zstd_chunked.is_zstd_chunked(annotations)),
            (_ESTARGZ, estargz.ANNOTATION in annotations),
        )
        if claimed
    ]
    return found[0] if len(found) == 1 else None
