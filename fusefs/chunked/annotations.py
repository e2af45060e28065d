"""The annotations of a layer's descriptor that tell its format, without the code for that."""

from collections.abc import Mapping
from enum import Enum

ZSTD_CHUNKED_PREFIX = "io.github.containers.zstd-chunked."
ESTARGZ_TOC = "containerd.io/snapshot/stargz/toc.digest"


class Format(Enum):
    """A format of layers that can be read piece by piece."""

    ZSTD_CHUNKED = "zstd:chunked"
    ESTARGZ = "eStargz"

    @property
    def has_headers(self) -> bool:
        """Whether it stores the headers of the tar apart; else they are made."""
        return self is Format.ZSTD_CHUNKED


def format_of(annotations: Mapping[str, str]) -> Format | None:
    """Return the format of a layer with *annotations*, None for a plain one, and for one that claims two formats."""
    zstd_chunked = any(name.startswith(ZSTD_CHUNKED_PREFIX) for name in annotations)
    if zstd_chunked == (ESTARGZ_TOC in annotations):
        return None
    return Format.ZSTD_CHUNKED if zstd_chunked else Format.ESTARGZ
