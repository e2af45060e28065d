"""imgfs diff: compare the files of two images, without a mount."""

import argparse
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from fusefs.cli.opening import opening, split_path
from fusefs.cli.output.files import found_at, kind_of
from fusefs.cli.output.stdout import GREEN, RED, YELLOW, Output, human_size
from fusefs.image.opened import Opened
from fusefs.layers.diff import Change, Difference, Side, compare
from fusefs.text import printable
from fusefs.tree.node import Stat

_STYLES = {Change.ADDED: GREEN, Change.REMOVED: RED, Change.CHANGED: YELLOW}
_SIZE_WIDTH = 12
"""Columns of a size: up to 999 GB in bytes."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open both images and list the differences."""
    output = Output(environment)
    with opening(arguments, environment) as open_image:
        old, new = (_side(argument, open_image) for argument in (arguments.image, arguments.other))
        differences = compare(old, new, times=arguments.times)
        if arguments.json:
            output.json_list(map(_json, differences))
        else:
            for difference in differences:
                _write(difference, output, human=arguments.human_readable)
    output.finish()


def _side(argument: str, open_image: Callable[[str], Opened]) -> Side:
    name, path = split_path(argument)
    opened = open_image(name)
    tree = opened.rootfs()
    keys = [opened.layers.bytes_key(layer) for layer in opened.layers.stack]
    return Side(tree, keys, opened.image.created_ns, found_at(tree, path or b"/", name, follow=True))


def _write(difference: Difference, output: Output, *, human: bool) -> None:
    before, after = (_size(side, human=human) for side in (difference.before, difference.after))
    path = b"/" + b"/".join(difference.path)
    status = difference.after or difference.before
    assert status is not None
    slash = "/" if stat.S_ISDIR(status.mode) and difference.path else ""
    what = f"  ({', '.join(difference.what)})" if difference.what else ""
    letter = output.styled(difference.change.value, _STYLES[difference.change])
    output.line(f"{letter} {before:>{_SIZE_WIDTH}} {after:>{_SIZE_WIDTH}}  {printable(path)}{slash}{what}")


def _size(status: Stat | None, *, human: bool) -> str:
    if status is None or not (stat.S_ISREG(status.mode) or stat.S_ISLNK(status.mode)):
        return "-"
    return human_size(status.size) if human else str(status.size)


def _json(difference: Difference) -> dict[str, Any]:
    return {
        "path": os.fsdecode(b"/" + b"/".join(difference.path)),
        "change": difference.change.name.lower(),
        "what": [*difference.what],
        "before": _side_json(difference.before),
        "after": _side_json(difference.after),
    }


def _side_json(status: Stat | None) -> dict[str, Any] | None:
    if status is None:
        return None
    mode = f"{stat.S_IMODE(status.mode):04o}"
    return {"type": kind_of(status.mode), "size": status.size, "mode": mode, "uid": status.uid, "gid": status.gid}
