"""imgfs which: show the layers that a file comes from."""

import argparse
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fusefs.cli.opening import image_and_paths, opening
from fusefs.cli.output.files import file_json
from fusefs.cli.output.stdout import BOLD, GREEN, RED, YELLOW, Output, aligned, clipped, column_widths, human_size
from fusefs.cli.output.steps import instruction
from fusefs.errors import Unavailable, UsageError
from fusefs.image.inspection import InspectedLayer, inspect
from fusefs.image.opened import Opened
from fusefs.layers.diff import changed_properties
from fusefs.layers.provenance import Deed, Touch, touches
from fusefs.layers.record import LOWER_LINK
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.text import printable, quoted
from fusefs.tree.walk import PathNode, found_at, resolve

_STYLES = {Deed.ADDED: GREEN, Deed.CHANGED: YELLOW, Deed.REMOVED: RED}


class _Change(NamedTuple):
    """A layer's change to the path."""

    touch: Touch
    layer: InspectedLayer
    what: tuple[str, ...]
    """The properties that it changed, as in diff."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and print the layers that added, changed or removed the path; Unavailable if it is not there."""
    output = Output(environment)
    name, paths = image_and_paths(arguments.image, [] if arguments.path is None else [arguments.path])
    if not paths:
        raise UsageError(f"PATH is missing; use imgfs which {quoted(name)} PATH")
    with opening(arguments, environment) as open_image:
        opened = open_image(name)
        found, parts = _found(opened.rootfs(), paths[0], opened)
        changes = list(_changes(opened, parts))
        if arguments.json:
            output.json(_json(opened.rootfs(), found, parts, changes))
        else:
            output.line(output.styled(printable(b"/" + b"/".join(parts)), BOLD))
            if found is not None and _last(changes) is None:
                output.line("  implicit directory (not listed by any layer)")
            else:
                _write(changes, len(opened.image.layers), output)
    output.finish()
    if found is None:
        raise _removed(opened, parts, changes)


def _found(tree: RootfsTree, path: bytes, opened: Opened) -> tuple[PathNode | None, tuple[bytes, ...]]:
    """Return the file and the names on the way to it; no file if a layer has removed it."""
    try:
        found = resolve(tree, path, follow=False)
    except OSError:
        parts = _parts(tree, path)
        touched = list(touches(tree.indexes, parts))
        if touched and touched[-1].record is None:
            return None, parts
        found = found_at(tree, path, opened.image.name, follow=False)  # raises, with the reason
    return found, found.parts


def _parts(tree: RootfsTree, path: bytes) -> tuple[bytes, ...]:
    """Return the parts of a *path* that does not exist, after following symbolic links in its existing part."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    for count in range(len(parts), -1, -1):
        try:
            found = resolve(tree, b"/".join(parts[:count]))
        except OSError:
            continue
        return (*found.parts, *parts[count:])
    return tuple(parts)


def _changes(opened: Opened, parts: Sequence[bytes]) -> Iterator[_Change]:
    tree, layers = opened.rootfs(), inspect(opened.image).layers
    before: tuple[LayerTree, int] | None = None
    for touch in touches(tree.indexes, parts):
        record, after = touch.record, None
        what: tuple[str, ...] = ()
        # A hard link into a lower layer is another file, whose bytes that layer has.
        if record is not None and not record.flags & LOWER_LINK:
            after = LayerTree(tree.files[touch.layer], transform_symlinks=False), record.number
            if before is not None:
                what = changed_properties(before, after) or changed_properties(before, after, times=True)
        yield _Change(touch, layers[touch.layer], what)
        before = after


def _removed(opened: Opened, parts: Sequence[bytes], changes: Sequence[_Change]) -> Unavailable:
    path, last = b"/" + b"/".join(parts), changes[-1].touch.layer
    kept, record = next((touch.layer, touch.record) for touch, _, _ in reversed(changes) if touch.record is not None)
    way = "cat" if stat.S_ISREG(record.mode) else "ls -ld"
    seen = f"imgfs {way} --layer {kept} {quoted(f'{opened.image.name}:{os.fsdecode(path)}')}"
    return Unavailable(f"{opened.shown} has no {printable(path)}: layer {last} removed it; {seen} shows it")


def _last(changes: Sequence[_Change]) -> InspectedLayer | None:
    """Return the layer that has the path; None if it is removed, or an implicit directory."""
    return changes[-1].layer if changes and changes[-1].touch.record is not None else None


def _write(changes: Sequence[_Change], count: int, output: Output) -> None:
    rows = [_row(change, count, output) for change in changes]
    widths = column_widths(rows)
    for row, (touch, layer, what) in zip(rows, changes, strict=True):
        line = clipped(f"  {aligned(row, widths, right=(2,))}".rstrip(), output.columns)
        output.line(line.replace(touch.deed.value, output.styled(touch.deed.value, _STYLES[touch.deed]), 1))
        if output.narrow:
            for text in filter(None, (", ".join(what), instruction(layer.step, short=True))):
                output.line(clipped(f"    {text}", output.columns))


def _row(change: _Change, count: int, output: Output) -> tuple[str, ...]:
    """Return the cells of a line: layer, change, size, and unless the terminal is narrow the rest."""
    touch, layer, what = change
    record = touch.record
    size = human_size(record.size) if record is not None and stat.S_ISREG(record.mode) else "-"
    number, deed = f"layer {touch.layer} of {count}", touch.deed.value
    if output.narrow:
        return number, deed, size
    deed += f" ({', '.join(what)})" if what else ""
    return number, deed, size, instruction(layer.step, short=output.terminal) or "-"


def _json(
    tree: RootfsTree, found: PathNode | None, parts: Sequence[bytes], changes: Sequence[_Change]
) -> dict[str, Any]:
    return (
        (_gone(parts) if found is None else file_json(tree, found))
        | _layer_json(_last(changes))
        | {"deleted": found is None}
        | {
            "history": [
                {"change": touch.deed.value, "size": touch.record.size if touch.record else None, "what": [*what]}
                | _layer_json(layer)
                for touch, layer, what in changes
            ]
        }
    )


def _gone(parts: Sequence[bytes]) -> dict[str, Any]:
    """Return the keys of a file, all but its path unknown."""
    unknown = dict.fromkeys(("type", "mode", "nlink", "uid", "gid", "size", "mtime"))
    return {"path": os.fsdecode(b"/" + b"/".join(parts)), **unknown}


def _layer_json(layer: InspectedLayer | None) -> dict[str, Any]:
    if layer is None:
        return {"layer": None, "diffId": None, "createdBy": None}
    return {
        "layer": layer.number,
        "diffId": str(layer.diff_id),
        "createdBy": None if layer.step is None else layer.step.created_by,
    }
