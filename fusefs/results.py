"""What methods of the Python API return: files that were found, waste, and differences.

Paths are strings as `os.fsdecode` returns them: a byte that is not UTF-8 is a lone surrogate.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from fusefs.comparison.config import ConfigChange, config_changes
from fusefs.comparison.images import Sides
from fusefs.comparison.unified import Hunks, unified
from fusefs.image.inspection import Inspection
from fusefs.layers import diff, waste
from fusefs.packages.installed import PackageChange, package_changes
from fusefs.tree.node import Stat
from fusefs.tree.path import ImagePath, stat_result


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that `OpenedImage.find` found."""

    path: ImagePath
    """In the root file system, or in the layer."""
    layer: int | None
    """The layer that it comes from; None for a directory that no layer lists."""
    deleted_by: int | None = None
    """The layer above that deletes it, None if there is none."""
    replaced_by: int | None = None
    """The layer above that replaces it, None if there is none."""


@dataclass(frozen=True, slots=True)
class WastedFile:
    """A file of a layer that no program sees."""

    path: str
    layer: int
    size: int
    """In bytes."""
    by: int
    """The layer that hides it."""
    how: str
    """``deleted``, ``overwritten`` or ``repeated`` (overwritten with the same bytes)."""


@dataclass(frozen=True, slots=True)
class Waste:
    """The bytes of an image that no program sees."""

    files: tuple[WastedFile, ...]
    """The largest first."""
    total: int
    """Bytes of the files of all layers."""
    efficiency: float
    """As dive counts it, 0 to 1."""

    @property
    def size(self) -> int:
        """The bytes of all wasted files."""
        return sum(file.size for file in self.files)


def waste_of(found: waste.Waste) -> Waste:
    """Return the waste with paths as strings."""
    files = (WastedFile(os.fsdecode(file.path), file.layer, file.size, file.by, file.how) for file in found.files)
    return Waste(tuple(files), found.total, found.efficiency)


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that differs."""

    path: str
    change: str
    """``added``, ``removed`` or ``changed``."""
    what: tuple[str, ...]
    """Changed properties: ``type``, ``content``, ``mode``, ``owner``, ``target``, ``device``, ``xattrs``, ``time``."""
    before: os.stat_result | None
    """The attributes on each side, None if there is no such file."""
    after: os.stat_result | None
    _difference: diff.Difference = field(repr=False)
    _sides: Sides = field(repr=False)

    def unified(self) -> bytes:
        """Return the unified diff of a text file, or a line that says why there is none; empty if no bytes differ."""
        found = unified(self._difference, *self._sides)
        if isinstance(found, Hunks):
            return "".join(f"{name}\n" for name in found.names).encode() + b"".join(found.lines)
        return f"{found}\n".encode() if found else b""


class Comparison:
    """How two images differ, or a layer from those below it.  Valid until the images are closed."""

    def __init__(self, sides: Sides, configs: tuple[Inspection, Inspection] | None, *, times: bool) -> None:
        """Compare *sides*, and the configurations *configs* if there are two."""
        self._sides = sides
        self._configs = configs
        self._times = times

    @property
    def files(self) -> Iterator[Difference]:
        """The files that differ, by path, each as soon as it is found."""
        for found in diff.compare(*self._sides, times=self._times):
            path = os.fsdecode(b"/" + b"/".join(found.path))
            before, after = (_stat(status) for status in (found.before, found.after))
            yield Difference(path, found.change.name.lower(), found.what, before, after, found, self._sides)

    @property
    def config(self) -> tuple[ConfigChange, ...]:
        """The properties of the configuration that differ."""
        return () if self._configs is None else tuple(config_changes(*self._configs))

    @property
    def packages(self) -> tuple[PackageChange, ...]:
        """The packages of dpkg, apk and rpm that differ."""
        return tuple(package_changes(*self._sides.packages()))


def _stat(status: Stat | None) -> os.stat_result | None:
    return None if status is None else stat_result(status)
