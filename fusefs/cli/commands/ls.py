"""imgfs ls: list files in an image, without a mount."""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from fusefs.cli.opening import image_and_paths, opening
from fusefs.cli.output.files import ACCOUNT_FILES, Accounts, arrow, file_json, long_columns
from fusefs.cli.output.stdout import Output, aligned, column_widths
from fusefs.image.opened import Opened
from fusefs.layers.needed import Question
from fusefs.sources.argument import public_name
from fusefs.text import printable
from fusefs.tree.node import Tree
from fusefs.tree.walk import ROOT, PathNode, children, found_at, is_directory, walk


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and list the file or directory at the path."""
    output = Output(environment)
    name, paths = image_and_paths(arguments.image, arguments.paths)
    with opening(arguments, environment) as open_image:
        opened = open_image(name)
        # As in ls(1): a symbolic link on the command line is followed, unless with -l or -d.
        follow = not (arguments.long or arguments.directory)
        asked = [Question(path, follow) for path in paths or [b"/"]]
        tree = _tree(opened, asked, arguments)
        found = [found_at(tree, question.path, public_name(name), follow=follow) for question in asked]
        lists = chain.from_iterable(_lists(tree, top, arguments) for top in found)
        if arguments.json:
            output.json_list(file_json(tree, file) for _, files in lists for _, file in files)
        else:
            _write_lists(tree, lists, arguments, output, titles=arguments.recursive or len(asked) > 1)
    output.finish()


def _tree(opened: Opened, asked: Sequence[Question], arguments: argparse.Namespace) -> Tree:
    if arguments.layer is not None:
        return opened.layer(arguments.layer)
    names = arguments.long and not (arguments.numeric_uid_gid or arguments.json)
    return opened.rootfs_for(*asked, *(map(Question, ACCOUNT_FILES) if names else ()))


_Files = list[tuple[str, PathNode]]
"""Files, each with the name under which it is listed."""


def _write_lists(
    tree: Tree,
    lists: Iterable[tuple[PathNode | None, _Files]],
    arguments: argparse.Namespace,
    output: Output,
    *,
    titles: bool,
) -> None:
    accounts = Accounts({}, {}) if arguments.numeric_uid_gid or not arguments.long else Accounts.of(tree)
    for number, (directory, files) in enumerate(lists):
        if titles and directory is not None:
            if number:
                output.line()
            output.line(f"{printable(directory.path)}:")
        _write(tree, files, arguments, accounts, output)


def _lists(tree: Tree, found: PathNode, arguments: argparse.Namespace) -> Iterator[tuple[PathNode | None, _Files]]:
    """Yield each list with its directory; None if the list is the path of the command line itself."""
    if arguments.directory or not is_directory(tree, found.number):
        yield None, [(printable(found.path), found)]
        return
    hidden = arguments.all or arguments.almost_all
    directories = walk(tree, found, hidden=hidden) if arguments.recursive else [(found, children(tree, found))]
    for directory, entries in directories:
        files = [(printable(file.name), file) for file in entries if hidden or not file.name.startswith(b".")]
        if arguments.all and not arguments.json:
            files[:0] = [(".", directory), ("..", ROOT._replace(number=tree.parent(directory.number)))]
        _sort(tree, files, arguments)
        yield directory, files


def _sort(tree: Tree, files: _Files, arguments: argparse.Namespace) -> None:
    """Sort *files*, which are in the order of their names, as ls(1) does: the newest or the largest first."""
    if arguments.sort_time:
        files.sort(key=lambda item: -tree.stat(item[1].number).mtime_ns)
    elif arguments.sort_size:
        files.sort(key=lambda item: -tree.stat(item[1].number).size)
    if arguments.reverse:
        files.reverse()


def _write(tree: Tree, files: _Files, arguments: argparse.Namespace, accounts: Accounts, output: Output) -> None:
    if not arguments.long:
        for name, _ in files:
            output.line(name)
        return
    rows = [long_columns(tree, file, accounts, human=arguments.human_readable) for _, file in files]
    widths = column_widths(rows)
    for (name, file), row in zip(files, rows, strict=True):
        target = arrow(tree, file) if row[0].startswith("l") else ""
        output.line(f"{aligned(row, widths, right=(1, 4))}  {name}{target}".rstrip())
