"""imgfs du: the sizes of directories of an image, without a mount."""

import argparse
import os
from collections.abc import Iterator, Mapping
from typing import Any

from fusefs.cli.opening import image_and_paths, opening
from fusefs.cli.output.stdout import Output, human_size
from fusefs.cli.output.steps import instruction
from fusefs.cli.output.tables import cut_end, table
from fusefs.image.inspection import inspect
from fusefs.image.opened import Opened
from fusefs.layers.usage import Amount, Usage, usage
from fusefs.sources.argument import public_name
from fusefs.text import printable
from fusefs.tree.walk import found_at


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and write a line for each directory below the paths."""
    output = Output(environment)
    name, paths = image_and_paths(arguments.image, arguments.paths)
    with opening(arguments, environment) as open_image:
        opened = open_image(name)
        tree = opened.rootfs() if arguments.layer is None else opened.layer(arguments.layer)
        tops = [found_at(tree, path, public_name(name), follow=True) for path in paths or [b"/"]]
        found = usage(tree, tops)
        number = arguments.layer or 0
        shown = (_numbered(one, number) for one in found if _is_shown(one, arguments))
        if arguments.json:
            output.json_list(map(_json, shown))
        elif arguments.layers:
            for count, one in enumerate(shown):
                if count:
                    output.line()
                _write_layers(one, opened, arguments, output)
        else:
            for one in shown:
                size = output.size(one.total.size, human=arguments.human_readable)
                output.line(f"{size}  {printable(one.path.path)}")
    output.finish()


def _is_shown(found: Usage, arguments: argparse.Namespace) -> bool:
    """Return whether there is a line, or with ``--layers`` a table, for *found*."""
    deep = arguments.max_depth is not None and found.depth > arguments.max_depth
    tables = arguments.layers and not arguments.json
    few = arguments.summarize or (tables and arguments.max_depth is None and not arguments.all)
    return found.depth == 0 or not (deep or (few) or not (found.is_directory or arguments.all))


def _numbered(found: Usage, number: int) -> Usage:
    """Return *found* with the *number* of the only layer that was looked at; of all layers, it is 0."""
    return found if not number else found._replace(layers={number: found.total} if found.layers else {})


def _size(amount: Amount, arguments: argparse.Namespace) -> str:
    return human_size(amount.size) if arguments.human_readable else str(amount.size)


def _write_layers(found: Usage, opened: Opened, arguments: argparse.Namespace, output: Output) -> None:
    """Write a table of the layers in which the files below a path are."""
    rows = [("SIZE", "FILES", "LAYER", "CREATED BY"), *_layer_rows(found, opened, arguments, short=output.terminal)]
    output.line(f"{printable(found.path.path)}:")
    for line in table(rows, (0, 1, 2), output.columns, {3: cut_end}):
        output.line(line)


def _layer_rows(
    found: Usage, opened: Opened, arguments: argparse.Namespace, *, short: bool
) -> Iterator[tuple[str, ...]]:
    layers = inspect(opened.image).layers
    for number, amount in sorted(found.layers.items()):
        made_by = instruction(layers[number].step, short=short) or "-"
        yield _size(amount, arguments), str(amount.files), str(number), made_by
    yield _size(found.total, arguments), str(found.total.files), "all", "-"


def _json(found: Usage) -> dict[str, Any]:
    total = found.total
    return {
        "path": os.fsdecode(found.path.path),
        "type": "directory" if found.is_directory else "file",
        "size": total.size,
        "files": total.files,
        "layers": [
            {"layer": number, "size": amount.size, "files": amount.files}
            for number, amount in sorted(found.layers.items())
        ],
    }
