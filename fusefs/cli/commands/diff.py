"""imgfs diff: the files of two images, compared without a mount."""

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
_SIZE = 12
"""Columns of a size: a GB in bytes, or any in words."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open both images and list what differs."""
    output = Output(environment)
    with opening(arguments, environment) as open_image:
        old, new = (_side(one, open_image) for one in (arguments.image, arguments.other))
        differences = compare(old, new, times=arguments.times)
        if arguments.json:
            output.json([_json(one) for one in differences])
        else:
            for one in differences:
                _write(one, output, human=arguments.human_readable)
    output.finish()


def _side(argument: str, open_image: Callable[[str], Opened]) -> Side:
    name, path = split_path(argument)
    opened = open_image(name)
    tree = opened.rootfs()
    return Side(tree, [layer.diff_id for layer in opened.image.layers], found_at(tree, path or b"/", name, follow=True))


def _write(one: Difference, output: Output, *, human: bool) -> None:
    before, after = (_size(said, human=human) for said in (one.before, one.after))
    path = b"/" + b"/".join(one.path)
    said = one.after or one.before
    assert said is not None
    slash = "/" if stat.S_ISDIR(said.mode) and one.path else ""
    what = f"  ({', '.join(one.what)})" if one.what else ""
    letter = output.styled(one.change.value, _STYLES[one.change])
    output.line(f"{letter} {before:>{_SIZE}} {after:>{_SIZE}}  {printable(path)}{slash}{what}")


def _size(said: Stat | None, *, human: bool) -> str:
    if said is None or not (stat.S_ISREG(said.mode) or stat.S_ISLNK(said.mode)):
        return "-"
    return human_size(said.size) if human else str(said.size)


def _json(one: Difference) -> dict[str, Any]:
    return {
        "path": os.fsdecode(b"/" + b"/".join(one.path)),
        "change": one.change.name.lower(),
        "what": [*one.what],
        "before": _side_json(one.before),
        "after": _side_json(one.after),
    }


def _side_json(said: Stat | None) -> dict[str, Any] | None:
    if said is None:
        return None
    mode = f"{stat.S_IMODE(said.mode):04o}"
    return {"type": kind_of(said.mode), "size": said.size, "mode": mode, "uid": said.uid, "gid": said.gid}
