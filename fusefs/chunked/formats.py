"""Opens the plain tar of a layer that can be read piece by piece."""

from collections.abc import Mapping

from fusefs.chunked.annotations import Format
from fusefs.chunked.estargz import estargz_tar
from fusefs.chunked.pieces import PieceTar, Ranges
from fusefs.chunked.zstd_chunked import zstd_chunked_tar
from fusefs.content.file import OpenFile


def open_tar(known: Format, annotations: Mapping[str, str], blob: Ranges, file: OpenFile) -> PieceTar:
    """Return the plain tar of the layer *blob*, whose descriptor has *annotations*; *file*, a new one, stores it.

    Raises Unusable, OSError if the documents cannot be fetched, and NoSpace.
    """
    opened = zstd_chunked_tar if known is Format.ZSTD_CHUNKED else estargz_tar
    return opened(annotations, blob, file)
