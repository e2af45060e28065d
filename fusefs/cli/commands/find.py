"""imgfs find: the files of an image by name, size and type, and the layers that have or had them."""

import argparse
import stat
from collections.abc import Mapping
from typing import Any

from fusefs.cli.opening import image_and_paths, opening
from fusefs.cli.output.files import file_json
from fusefs.cli.output.stdout import RED, YELLOW, Output
from fusefs.image.search import Found, Where, all_of, search
from fusefs.layers.fates import End
from fusefs.text import printable

_ENDS = {End.DELETED: ("deleted", RED), End.REPLACED: ("replaced", YELLOW)}


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and write a line for each file that passes all tests."""
    output = Output(environment)
    name, paths = image_and_paths(arguments.image, arguments.paths)
    wanted = all_of(arguments.name, arguments.type, arguments.size)
    where = Where(arguments.layer, arguments.all_layers, arguments.deleted)
    with opening(arguments, environment) as open_image:
        found = search(open_image(name), paths or [b"/"], where, wanted)
        if arguments.json:
            output.json_list(map(_json, found))
        else:
            for one in found:
                _write(one, output, arguments)
    output.finish()


def _write(found: Found, output: Output, arguments: argparse.Namespace) -> None:
    path = printable(found.node.path)
    if arguments.print:
        output.line(path)
        return
    status = found.tree.stat(found.node.number)
    size = output.size(status.size if stat.S_ISREG(status.mode) else None, human=arguments.human_readable)
    slash = "/" if stat.S_ISDIR(status.mode) and found.node.name else ""
    end = ""
    if found.fate is not None:
        word, style = _ENDS[found.fate.end]
        end = output.styled(f"  ({word} by layer {found.fate.layer})", style)
    output.line(f"layer {'-' if found.layer is None else found.layer:<3} {size}  {path}{slash}{end}")


def _json(found: Found) -> dict[str, Any]:
    fate = found.fate
    return file_json(found.tree, found.node) | {
        "layer": found.layer,
        "deletedBy": fate.layer if fate is not None and fate.end is End.DELETED else None,
        "replacedBy": fate.layer if fate is not None and fate.end is End.REPLACED else None,
    }
