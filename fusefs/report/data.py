"""The data of the page: an image, and what differs between two."""

import heapq
import json
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fusefs.comparison.config import ConfigChange, config_changes
from fusefs.comparison.images import Sides, side_of
from fusefs.errors import ImgfsError
from fusefs.image.inspection import InspectedLayer, inspect
from fusefs.image.opened import Opened
from fusefs.layers.diff import Change, Difference, compare
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.waste import Waste, at_fault, waste
from fusefs.oci.config import Step
from fusefs.oci.times import known_time
from fusefs.oci.untrusted_json import Json
from fusefs.packages.installed import PackageChange, package_changes
from fusefs.report.sizes import Entry, SizeTree
from fusefs.text import printable
from fusefs.tree.walk import ROOT, walk

_MOST_FILES = 8000
"""Files of a treemap that have an entry."""
_MOST_ROWS = 300
"""Rows of a table."""
_MAX_NAME = 100
"""Bytes of a name in a treemap."""
_MAX_TEXT = 500
"""Characters of a command, a variable and the like."""
_WORDS = {Change.ADDED: "added", Change.REMOVED: "removed", Change.CHANGED: "changed"}

Describe = Callable[[Step | None], str]
"""Returns the instruction of a step as text."""


def image_data(opened: Opened, describe: Describe) -> dict[str, Any]:
    """Return what the page says of an image; reads all its layers."""
    tree = opened.rootfs()
    inspection = inspect(opened.image)
    found = waste(tree)
    sizes, files, largest = _sizes(tree)
    faults = at_fault(found.files, len(inspection.layers))
    details = inspection.details
    config = {
        "Entrypoint": details.entrypoint,
        "Command": details.command,
        "User": (details.user,),
        "Directory": (details.working_dir,),
        "Ports": details.ports,
        "Volumes": details.volumes,
        "Environment": details.environment,
        "Labels": tuple(f"{name}={value}" for name, value in details.labels.items()),
    }
    return {
        "name": _cut(inspection.name),
        "id": str(inspection.id),
        "digest": str(inspection.digest),
        "platform": str(inspection.platform or ""),
        "created": known_time(inspection.created_ns),
        "stored": inspection.size,
        "size": sum(size for size, _ in files.values()),
        "files": sum(count for _, count in files.values()),
        "all": found.total,
        "wasted": found.size,
        "efficiency": found.efficiency,
        "config": [[name, [*map(_cut, values[:_MOST_ROWS])]] for name, values in config.items() if any(values)],
        "layers": [
            _layer(layer, describe, fault, files.get(layer.number, (0, 0)))
            for layer, fault in zip(inspection.layers, faults, strict=True)
        ],
        "tree": _packed(sizes.entries()),
        "largest": largest,
        "waste": _waste(found),
        "wasteRows": len(found.files),
    }


def _cut(text: str) -> str:
    return printable(text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…")


def _layer(layer: InspectedLayer, describe: Describe, fault: tuple[int, int], seen: tuple[int, int]) -> dict[str, Any]:
    wasted, hides = fault
    return {
        "number": layer.number,
        "diffId": str(layer.diff_id or ""),
        "stored": layer.size or 0,
        "seen": seen[0],
        "files": seen[1],
        "wasted": wasted,
        "hides": hides,
        "command": _cut(describe(layer.step)),
    }


def _sizes(tree: RootfsTree) -> tuple[SizeTree, dict[int, tuple[int, int]], list[list[Any]]]:
    """Return the sizes by directory; bytes and files that are seen of each layer; and the largest files."""
    sizes, layers = SizeTree(_MOST_FILES), dict[int, tuple[int, int]]()
    linked: set[int] = set()
    """Files with several names that were counted."""

    def files() -> Iterator[tuple[int, bytes, int]]:
        for directory, entries in walk(tree, ROOT):
            folder = sizes.folder(directory.parts)
            for entry in entries:
                status = tree.stat(entry.number)
                if stat.S_ISDIR(status.mode) or entry.number in linked:
                    continue
                if status.nlink > 1:
                    linked.add(entry.number)
                size = status.size if stat.S_ISREG(status.mode) else 0
                layer = tree.layer(entry.number)
                before, count = layers.get(layer, (0, 0))
                layers[layer] = before + size, count + 1
                sizes.add(folder, entry.name, size, layer)
                yield size, entry.path, layer

    largest = [[printable(path), size, layer] for size, path, layer in heapq.nlargest(_MOST_ROWS, files()) if size]
    return sizes, layers, largest


def _packed(entries: Iterable[Entry]) -> list[list[Any]]:
    """Return entries as lists: parent, name, bytes, files, kind, and of a directory bytes and number of the rest."""
    return [
        [one.parent, _short(one.name), one.size, one.files, one.kind, *(one.rest if one.is_directory else ())]
        for one in entries
    ]


def _short(name: bytes) -> str:
    return printable(name if len(name) <= _MAX_NAME else name[:_MAX_NAME] + b"...")


def _waste(found: Waste) -> list[list[Any]]:
    return [[printable(file.path), file.size, file.layer, file.how, file.by] for file in found.files[:_MOST_ROWS]]


def difference_data(old: Opened, new: Opened) -> dict[str, Any]:
    """Return what differs between two images: files, configuration, packages."""
    sides = Sides(*(side_of(opened, opened.rootfs(), ROOT) for opened in (old, new)))
    sizes = SizeTree(_MOST_FILES)
    counts = {word: [0, 0] for word in _WORDS.values()}
    """Files and bytes of each kind."""

    def rows() -> Iterator[tuple[int, bytes, str, int, int, str]]:
        for difference in compare(*sides):
            if _is_directory(difference):
                continue
            word, before, after = _WORDS[difference.change], _size(difference, 0), _size(difference, 1)
            weight = max(before, after)
            counts[word][0] += 1
            counts[word][1] += weight
            sizes.add(sizes.folder(difference.path[:-1]), difference.path[-1], weight, word)
            yield weight, b"/" + b"/".join(difference.path), word, before, after, ", ".join(difference.what)

    largest = heapq.nlargest(_MOST_ROWS, rows())
    why = None
    try:
        packages = [*package_changes(*sides.packages())]
    except ImgfsError as error:  # of the packages alone: everything else is known
        packages, why = [], str(error)
    return {
        "counts": counts,
        "tree": _packed(sizes.entries()),
        "rows": [[printable(path), word, before, after, what] for _, path, word, before, after, what in largest],
        "config": [_config(change) for change in config_changes(inspect(old.image), inspect(new.image))][:_MOST_ROWS],
        "packages": [*map(_package, packages[:_MOST_ROWS])],
        "whyNoPackages": why and _cut(why),
    }


def _is_directory(difference: Difference) -> bool:
    sides = [status for status in (difference.before, difference.after) if status is not None]
    return not difference.path or all(stat.S_ISDIR(status.mode) for status in sides)


def _size(difference: Difference, side: int) -> int:
    status = (difference.before, difference.after)[side]
    return status.size if status is not None and stat.S_ISREG(status.mode) else 0


def _config(change: ConfigChange) -> list[str]:
    return [_cut(f"{change.key} {change.name}".rstrip()), _value(change.before), _value(change.after)]


def _value(value: Json) -> str:
    if value is None:
        return "–"
    return _cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _package(change: PackageChange) -> list[str]:
    before, after = (", ".join(map(_cut, versions)) or "–" for versions in (change.before, change.after))
    return [_cut(change.name), before, after]
