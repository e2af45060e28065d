"""imgfs: a container image as a read-only directory.

For programs: `open_image`, described in docs/python.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusefs.api import (
        Blob,
        Comparison,
        ConfigChange,
        Copied,
        Difference,
        FoundFile,
        ImageLayer,
        ImagePath,
        ImgfsError,
        OpenedImage,
        Package,
        PackageChange,
        Waste,
        WastedFile,
        open_image,
    )

__version__ = "0.1.0"

__all__ = [
    "Blob",
    "Comparison",
    "ConfigChange",
    "Copied",
    "Difference",
    "FoundFile",
    "ImageLayer",
    "ImagePath",
    "ImgfsError",
    "OpenedImage",
    "Package",
    "PackageChange",
    "Waste",
    "WastedFile",
    "open_image",
]


def __getattr__(name: str) -> Any:
    """Import what programs use when they do: the command needs none of it, and must start at once."""
    if name in __all__:
        return getattr(importlib.import_module("fusefs.api"), name)
    raise AttributeError(f"module 'fusefs' has no attribute {name!r}")
