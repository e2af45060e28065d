"""imgfs which: show the layer that a file comes from."""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fusefs.cli.opening import opening, split_path
from fusefs.cli.output.files import file_json, found_at
from fusefs.cli.output.stdout import BOLD, Output, clipped, human_size
from fusefs.errors import Unavailable, UsageError
from fusefs.image.inspection import InspectedLayer, inspect
from fusefs.image.opened import Opened
from fusefs.layers.index import LayerIndex
from fusefs.layers.provenance import Touch, touches
from fusefs.layers.rootfs import RootfsTree
from fusefs.text import printable
from fusefs.tree.walk import PathNode, resolve

_SHORT = 12
"""Characters of a digest on a terminal, as in docker."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and print the layers that added, changed or removed the path."""
    output = Output(environment)
    name, path = _image_and_path(arguments)
    with opening(arguments, environment) as open_image:
        opened = open_image(name)
        tree = opened.rootfs()
        layers = inspect(opened.image).layers
        indexes = [opened.layers.files(layer).index for layer in opened.image.layers]
        found = _found(tree, path, indexes, layers, opened)
        history = list(touches(indexes, found.parts))
        if arguments.json:
            output.json(_json(tree, found, history, layers))
        else:
            _write(found, history, layers, output)
    output.finish()


def _image_and_path(arguments: argparse.Namespace) -> tuple[str, bytes]:
    if arguments.path is not None:
        path = os.fsencode(arguments.path)
        return arguments.image, path if path.startswith(b"/") else b"/" + path
    name, path_in_image = split_path(arguments.image)
    if path_in_image is None:
        raise UsageError(f"PATH is missing; use imgfs which {printable(name)} PATH")
    return name, path_in_image


def _found(
    tree: RootfsTree, path: bytes, indexes: Sequence[LayerIndex], layers: Sequence[InspectedLayer], opened: Opened
) -> PathNode:
    try:
        return resolve(tree, path, follow=False)
    except OSError:
        gone = list(touches(indexes, _parts(tree, path)))
        if gone and gone[-1].record is None:
            raise _removed(opened.shown, path, gone, layers) from None
        return found_at(tree, path, opened.image.name, follow=False)  # raises, with the reason


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


def _removed(shown: str, path: bytes, gone: Sequence[Touch], layers: Sequence[InspectedLayer]) -> Unavailable:
    last = gone[-1]
    return Unavailable(
        f"{shown} has no {printable(path)}: layer {last.layer}, {_made_by(layers[last.layer])}, removed it"
    )


def _made_by(layer: InspectedLayer) -> str:
    step = layer.step
    created_by = " ".join(step.created_by.split()) if step else ""
    return f"made by {printable(created_by)}" if created_by else "made by an unknown command"


def _last(history: Sequence[Touch]) -> Touch | None:
    """Return the last change of an existing path; None for an implicit directory."""
    return history[-1] if history and history[-1].record is not None else None


def _write(found: PathNode, history: Sequence[Touch], layers: Sequence[InspectedLayer], output: Output) -> None:
    output.line(output.styled(printable(found.path), BOLD))
    last = _last(history)
    if last is None:
        output.line("  implicit directory (not listed by any layer)")
        return
    layer = layers[last.layer]
    diff_id = str(layer.layer.diff_id)
    if output.terminal:
        diff_id = diff_id.partition(":")[2][:_SHORT]
    size = human_size(layer.layer.descriptor.size)
    output.line(f"  layer {layer.number} of 0 to {len(layers) - 1}: {diff_id}, {size}")
    output.line(clipped(f"  {_made_by(layer)}", output.columns))
    if len(history) > 1:
        for touch in history:
            text = f"  layer {touch.layer} {touch.deed.value} it, {_made_by(layers[touch.layer])}"
            output.line(clipped(text, output.columns))


def _json(
    tree: RootfsTree, found: PathNode, history: Sequence[Touch], layers: Sequence[InspectedLayer]
) -> dict[str, Any]:
    last = _last(history)
    return (
        file_json(tree, found)
        | _layer_json(None if last is None else layers[last.layer])
        | {
            "history": [
                {"change": touch.deed.value, "size": touch.record.size if touch.record else None}
                | _layer_json(layers[touch.layer])
                for touch in history
            ]
        }
    )


def _layer_json(layer: InspectedLayer | None) -> dict[str, Any]:
    if layer is None:
        return {"layer": None, "diffId": None, "createdBy": None}
    return {
        "layer": layer.number,
        "diffId": str(layer.layer.diff_id),
        "createdBy": None if layer.step is None else layer.step.created_by,
    }
