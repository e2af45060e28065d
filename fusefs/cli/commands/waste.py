"""imgfs waste: the bytes of an image that upper layers delete, overwrite or repeat."""

import argparse
import os
from collections.abc import Mapping
from typing import Any

from fusefs.cli.opening import opening
from fusefs.cli.output.stdout import BOLD, GREEN, RED, Output, human_size
from fusefs.cli.output.steps import instruction
from fusefs.cli.output.tables import cut_beginning, cut_end, table
from fusefs.errors import TooWasteful
from fusefs.image.inspection import InspectedLayer, inspect
from fusefs.layers.waste import Waste, WastedFile, at_fault, waste
from fusefs.text import printable

_MOST = 20
"""Files that are listed."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and write its waste; TooWasteful if that is more than ``--fail-above``."""
    output = Output(environment)
    with opening(arguments, environment) as open_image:
        opened = open_image(arguments.image)
        found, layers = waste(opened.rootfs()), inspect(opened.image).layers
    if arguments.json:
        output.json(_json(found, layers))
    else:
        _write(found, layers, arguments, output)
    output.finish()
    if arguments.fail_above is not None:
        number, unit = arguments.fail_above
        limit = number if unit == "B" else found.total * number / 100
        if found.size > limit:
            shown = human_size(number) if unit == "B" else f"{number:g}%"
            raise TooWasteful(f"{opened.shown} wastes {human_size(found.size)} ({_share(found)}), more than {shown}")


def _share(found: Waste) -> str:
    return f"{found.size / found.total:.1%}" if found.total else "0.0%"


def _write(found: Waste, layers: tuple[InspectedLayer, ...], arguments: argparse.Namespace, output: Output) -> None:
    wasted = f"{human_size(found.size)} of {human_size(found.total)} ({_share(found)})"
    output.line(output.styled("Wasted      ", BOLD) + output.styled(wasted, RED if found.size else GREEN))
    output.line(output.styled("Efficiency  ", BOLD) + f"{found.efficiency:.1%}")
    if not found.files:
        return
    output.line()
    rows = [("LAYER", "WASTED", "HIDES", "CREATED BY")]
    for layer, (lost, hides) in zip(layers, at_fault(found.files, len(layers)), strict=True):
        if lost or hides:
            made_by = instruction(layer.step, short=output.terminal) or "-"
            rows.append((str(layer.number), human_size(lost), human_size(hides), made_by))
    _table(rows, (0, 1, 2), {3: cut_end}, output)
    output.line()
    shown = found.files if arguments.all else found.files[:_MOST]
    files = [("WASTED", "LAYER", "WHY", "PATH")]
    by = "by" if output.narrow else "by layer"
    files += [
        (human_size(file.size), str(file.layer), f"{file.how} {by} {file.by}", printable(file.path)) for file in shown
    ]
    _table(files, (0, 1), {3: cut_beginning}, output)
    if len(shown) < len(found.files):
        output.line(f"and {len(found.files) - len(shown)} more; --all lists them")


def _table(rows: list[tuple[str, str, str, str]], right: tuple[int, ...], cuts: dict[int, Any], output: Output) -> None:
    header, *lines = table(rows, right, output.columns, cuts)
    output.line(output.styled(header, BOLD))
    for line in lines:
        output.line(line)


def _json(found: Waste, layers: tuple[InspectedLayer, ...]) -> dict[str, Any]:
    return {
        "size": found.total,
        "wasted": found.size,
        "efficiency": round(found.efficiency, 6),
        "layers": [
            {
                "layer": layer.number,
                "diffId": str(layer.diff_id),
                "createdBy": None if layer.step is None else layer.step.created_by,
                "wasted": lost,
                "hides": hides,
            }
            for layer, (lost, hides) in zip(layers, at_fault(found.files, len(layers)), strict=True)
        ],
        "files": list(map(_file_json, found.files)),
    }


def _file_json(file: WastedFile) -> dict[str, Any]:
    return {"path": os.fsdecode(file.path), "layer": file.layer, "size": file.size, "by": file.by, "how": file.how}
