"""imgfs find: the files of an image by name, size and type, and the layers that have or had them."""

import argparse
import fnmatch
import operator
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fusefs.cli.opening import image_and_paths, opening
from fusefs.cli.output.files import file_json, found_at
from fusefs.cli.output.stdout import RED, YELLOW, Output, human_size
from fusefs.errors import Unavailable
from fusefs.image.opened import Opened
from fusefs.layers.fates import End, Fate, layer_files
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.text import printable
from fusefs.tree.node import Stat, Tree
from fusefs.tree.walk import PathNode, walk

_SIZE_WIDTH = 12
"""Columns of a size: up to 999 GB in bytes."""
_TYPES = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
}
"""Letters of find(1)."""
_ENDS = {End.DELETED: ("deleted", RED), End.REPLACED: ("replaced", YELLOW)}


class _Found(NamedTuple):
    """A file."""

    tree: Tree
    node: PathNode
    layer: int | None
    """None: no layer lists it."""
    fate: Fate | None = None


_Test = Callable[[bytes, Stat], bool]


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and write a line for each file that passes all tests."""
    output = Output(environment)
    name, paths = image_and_paths(arguments.image, arguments.paths)
    passes = _test(arguments)
    with opening(arguments, environment) as open_image:
        opened = open_image(name)
        found = _found(opened, paths or [b"/"], arguments)
        matching = (one for one in found if passes(one.node.name, one.tree.stat(one.node.number)))
        if arguments.json:
            output.json_list(map(_json, matching))
        else:
            for one in matching:
                _write(one, output, arguments)
    output.finish()


def _test(arguments: argparse.Namespace) -> _Test:
    """Return the function that tells whether a file, of which it gets name and attributes, passes all tests."""
    tests: list[_Test] = []
    if arguments.name is not None:
        pattern = re.compile(fnmatch.translate(_plain_glob(arguments.name)))
        tests.append(lambda name, _: pattern.match(os.fsdecode(name)) is not None)
    if arguments.type is not None:
        kinds = {_TYPES[letter] for letter in arguments.type}
        tests.append(lambda _, status: stat.S_IFMT(status.mode) in kinds)
    if arguments.size is not None:
        sign, count, unit = arguments.size
        # As find(1): in whole units, the last one begun.
        fits = {"+": operator.gt, "-": operator.lt, "": operator.eq}[sign]
        tests.append(lambda _, status: bool(fits(-(-status.size // unit), count)))
    return lambda name, status: all(test(name, status) for test in tests)


def _plain_glob(pattern: str) -> str:
    r"""Return a *pattern* of find(1) as `fnmatch` spells it, which knows neither ``\*`` nor ``[^a]``."""

    def plain(match: re.Match[str]) -> str:
        char = match[1]
        if char is None:
            return "[!"
        return f"[{char}]" if char in "*?[" else char

    return re.sub(r"\\(.)|\[\^", plain, pattern, flags=re.DOTALL)


def _found(opened: Opened, paths: list[bytes], arguments: argparse.Namespace) -> Iterator[_Found]:
    """Yield the files at *paths* and below, of the root file system or of layers."""
    if arguments.layer is not None or arguments.all_layers or arguments.deleted:
        if arguments.layer is not None:
            opened.layer(arguments.layer)  # raises, with the reason, if there is none
        for path in paths:
            yield from _in_layers(opened, path, arguments)
        return
    tree = opened.rootfs()
    for path in paths:
        top = found_at(tree, path, opened.image.name, follow=True)
        yield _Found(tree, top, _layer(tree, top))
        if stat.S_ISDIR(tree.stat(top.number).mode):
            for _, entries in walk(tree, top):
                yield from (_Found(tree, entry, _layer(tree, entry)) for entry in entries)


def _layer(tree: RootfsTree, node: PathNode) -> int | None:
    is_directory = stat.S_ISDIR(tree.stat(node.number).mode)
    return None if is_directory and tree.is_implicit(node.number) else tree.layer(node.number)


def _in_layers(opened: Opened, path: bytes, arguments: argparse.Namespace) -> Iterator[_Found]:
    tree = opened.rootfs()
    top = b"/" + b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))
    below = b"/" if top == b"/" else top + b"/"
    numbers = range(len(tree.files)) if arguments.layer is None else [arguments.layer]
    missing = True
    for number in numbers:
        shown = LayerTree(tree.files[number], transform_symlinks=False)
        for file in layer_files(tree.indexes, number):
            if file.path != top and not file.path.startswith(below):
                continue
            missing = False
            if not arguments.deleted or (file.fate is not None and file.fate.end is End.DELETED):
                above, _, name = file.path.rpartition(b"/")
                yield _Found(shown, PathNode(file.record.number, name, above), number, file.fate)
    if missing and top != b"/":
        raise Unavailable(
            f"no layer of {opened.shown} has {printable(path)}"
            if arguments.layer is None
            else f"layer {arguments.layer} of {opened.shown} has no {printable(path)}"
        )


def _write(found: _Found, output: Output, arguments: argparse.Namespace) -> None:
    path = printable(found.node.path)
    if arguments.print:
        output.line(path)
        return
    status = found.tree.stat(found.node.number)
    size = "-"
    if stat.S_ISREG(status.mode):
        size = human_size(status.size) if arguments.human_readable else str(status.size)
    slash = "/" if stat.S_ISDIR(status.mode) and found.node.name else ""
    end = ""
    if found.fate is not None:
        word, style = _ENDS[found.fate.end]
        end = output.styled(f"  ({word} by layer {found.fate.layer})", style)
    output.line(f"layer {'-' if found.layer is None else found.layer:<3} {size:>{_SIZE_WIDTH}}  {path}{slash}{end}")


def _json(found: _Found) -> dict[str, Any]:
    fate = found.fate
    return file_json(found.tree, found.node) | {
        "layer": found.layer,
        "deletedBy": fate.layer if fate is not None and fate.end is End.DELETED else None,
        "replacedBy": fate.layer if fate is not None and fate.end is End.REPLACED else None,
    }
