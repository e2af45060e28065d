"""imgfs cat: print a file of an image, without a mount."""

import argparse
import codecs
from collections.abc import Mapping

from fusefs.cli.opening import image_and_paths, opening
from fusefs.cli.output.files import kind_of
from fusefs.cli.output.stdout import Output
from fusefs.content.protocol import Content, chunks
from fusefs.errors import Unavailable, UsageError
from fusefs.image.opened import Opened
from fusefs.layers.needed import Question
from fusefs.text import printable, quoted
from fusefs.tree.node import RegularFile, Tree, stat_of
from fusefs.tree.walk import found_at


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and write the file: unchanged, or with escapes if standard output is a terminal."""
    output = Output(environment)
    name, paths = image_and_paths(arguments.image, arguments.paths)
    if not paths:
        raise UsageError(f"PATH is missing; use imgfs cat {quoted(name)}:/PATH")
    with opening(arguments, environment) as open_image:
        opened = open_image(name)
        layer, questions = arguments.layer, map(Question, paths)
        tree: Tree = opened.layer(layer) if layer is not None else opened.rootfs_for(*questions)
        for content in [_content(opened, tree, path) for path in paths]:  # nothing is written if one is missing
            _write(content, output)
    output.finish()


def _content(opened: Opened, tree: Tree, path: bytes) -> Content:
    node = tree.node(found_at(tree, path, opened.image.name, follow=True).number)
    if not isinstance(node, RegularFile):
        raise Unavailable(f"{opened.shown}: {printable(path)} is a {kind_of(stat_of(node).mode)}, not a file")
    return node.content


def _write(content: Content, output: Output) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for chunk in chunks(content):
        if output.terminal:
            output.text(decoder.decode(bytes(chunk)))
        else:
            output.raw(chunk)
    output.text(decoder.decode(b"", final=True))
