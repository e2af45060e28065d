"""imgfs ls: list files in an image, without a mount."""

import argparse
from collections.abc import Iterable, Iterator, Mapping

from fusefs.cli.opening import opening, split_path
from fusefs.cli.output.files import ACCOUNT_FILES, Accounts, arrow, file_json, found_at, long_columns
from fusefs.cli.output.stdout import Output, aligned, column_widths
from fusefs.image.opened import Opened
from fusefs.layers.needed import Question
from fusefs.text import printable
from fusefs.tree.node import Tree
from fusefs.tree.walk import ROOT, PathNode, children, is_directory, walk


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and list the file or directory at the path."""
    output = Output(environment)
    name, path = split_path(arguments.image)
    with opening(arguments, environment) as open_image:
        opened = open_image(name)
        # As in ls(1): a symbolic link on the command line is followed, unless with -l or -d.
        asked = Question(path or b"/", follow=not (arguments.long or arguments.directory))
        tree = _tree(opened, asked, arguments)
        found = found_at(tree, asked.path, name, follow=asked.follow)
        lists = _lists(tree, found, arguments)
        if arguments.json:
            output.json_list(file_json(tree, file) for _, files in lists for _, file in files)
        else:
            _write_lists(tree, lists, arguments, output)
    output.finish()


def _tree(opened: Opened, asked: Question, arguments: argparse.Namespace) -> Tree:
    if arguments.layer is not None:
        return opened.layer(arguments.layer)
    names = arguments.long and not (arguments.numeric_uid_gid or arguments.json)
    return opened.rootfs_for(asked, *(map(Question, ACCOUNT_FILES) if names else ()))


_Files = list[tuple[str, PathNode]]
"""Files, each with the name under which it is listed."""


def _write_lists(
    tree: Tree, lists: Iterable[tuple[PathNode | None, _Files]], arguments: argparse.Namespace, output: Output
) -> None:
    accounts = Accounts({}, {}) if arguments.numeric_uid_gid or not arguments.long else Accounts.of(tree)
    for number, (directory, files) in enumerate(lists):
        if arguments.recursive and directory is not None:
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
        yield directory, files


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
