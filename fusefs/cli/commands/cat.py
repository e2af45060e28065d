"""imgfs cat: print a file of an image, without a mount."""

import argparse
import codecs
from collections.abc import Mapping

from fusefs.cli.opening import opening, split_path
from fusefs.cli.output.files import found_at, kind_of
from fusefs.cli.output.stdout import Output
from fusefs.content.protocol import Content, chunks
from fusefs.errors import Unavailable, UsageError
from fusefs.layers.needed import Question
from fusefs.text import printable
from fusefs.tree.node import RegularFile, Tree, stat_of


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and write the file: unchanged, or with escapes if standard output is a terminal."""
    output = Output(environment)
    name, path = split_path(arguments.image)
    if path is None:
        raise UsageError(f"PATH is missing; use imgfs cat {printable(name)}:/PATH")
    with opening(arguments, environment) as open_image:
        opened = open_image(name)
        tree: Tree = opened.layer(arguments.layer) if arguments.layer is not None else opened.rootfs_for(Question(path))
        node = tree.node(found_at(tree, path, name, follow=True).number)
        if not isinstance(node, RegularFile):
            raise Unavailable(f"{opened.shown}: {printable(path)} is a {kind_of(stat_of(node).mode)}, not a file")
        _write(node.content, output)
    output.finish()


def _write(content: Content, output: Output) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for chunk in chunks(content):
        if output.terminal:
            output.text(decoder.decode(bytes(chunk)))
        else:
            output.raw(chunk)
    output.text(decoder.decode(b"", final=True))
