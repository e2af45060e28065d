"""The grammar of the commands that look: at images without mounting them, and at what is mounted."""

import argparse
from collections.abc import Sequence

from fusefs.cli.parsing.image_options import IMAGE_GROUPS, add_image_options
from fusefs.cli.parsing.parser import Commands, Parser
from fusefs.text import printable


def add_looks(commands: Commands) -> None:
    """Add these commands."""
    _add_inspect(commands)
    _add_ls(commands)
    _add_cat(commands)
    _add_diff(commands)
    _add_which(commands)


def _add_inspect(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "inspect",
        "show what an image says of itself",
        "Show what IMAGE says of itself: how it is run, and its layers with their sizes and what made them.",
        ("imgfs inspect nginx:latest", "imgfs inspect --json ./nginx.tar | jq '.layers[0].diffId'"),
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--no-trunc", action="store_true", help="whole digests and commands, also on a terminal")
    parser.add_help_last()


def _add_ls(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "ls",
        "list files in an image",
        "List a directory, or a file, of an image's root file system; / without a path.",
        ("imgfs ls nginx:latest", "imgfs ls -lA nginx:latest:/etc"),
        sizes=True,
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("-l", "--long", action="store_true", help="mode, links, owner, group, size and time as well")
    parser.add_argument("-a", "--all", action="store_true", help="names that begin with a dot too, and . and ..")
    parser.add_argument("-A", "--almost-all", action="store_true", help="the same without . and ..")
    parser.add_argument("-d", "--directory", action="store_true", help="a directory itself, not what is in it")
    parser.add_argument("-n", "--numeric-uid-gid", action="store_true", help="numbers of owners, not names")
    parser.add_argument("-R", "--recursive", action="store_true", help="directories below as well")
    parser.add_argument("--layer", metavar="N", type=_layer_number, help="of this layer's own files; 0 is the base")
    parser.add_help_last()


def _add_cat(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "cat",
        "print a file of an image",
        "Print a file of an image's root file system. On a terminal its control characters are shown as escapes. "
        "The path begins at the first :/.",
        ("imgfs cat nginx:latest:/etc/nginx/nginx.conf",),
        json=False,
    )
    parser.add_argument("image", metavar="IMAGE:/PATH")
    parser.add_argument("--layer", metavar="N", type=_layer_number, help="of this layer's own files; 0 is the base")
    parser.add_help_last()


def _add_diff(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "diff",
        "compare the files of two images",
        "List what the second IMAGE has added (A), deleted (D) and changed (C), with sizes before and after. "
        "A path in IMAGE begins at the first :/.",
        ("imgfs diff nginx:1.26 nginx:1.27", "imgfs diff nginx:1.26:/etc nginx:1.27:/etc"),
        sizes=True,
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("other", metavar="IMAGE[:/PATH]")
    parser.add_argument("--times", action="store_true", help="files of which only the time differs as well")
    parser.add_help_last()


def _add_which(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "which",
        "say which layer a file comes from",
        "Say which layer of an image a file comes from, and what made that layer.",
        ("imgfs which nginx:latest /etc/nginx/nginx.conf",),
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("path", metavar="PATH", nargs="?")
    parser.add_help_last()


def add_list(commands: Commands) -> None:
    """Add the command that looks at what is mounted."""
    parser = commands.add_parser(
        "list",
        help="list the images that are mounted",
        description="List the images that are mounted, dead mounts and those of others too.",
        examples=("imgfs list", "imgfs list --json | jq -r '.[].mountpoint'"),
    )
    parser.add_argument("--json", action="store_true", help="for programs; the keys are in docs/json.md")
    parser.add_help_last()


def _add_look(  # noqa: PLR0913 - what a parser is made of
    commands: Commands,
    name: str,
    summary: str,
    description: str,
    examples: Sequence[str],
    *,
    json: bool = True,
    sizes: bool = False,
) -> Parser:
    """Add a command that looks at an image without mounting it, with the options that all of these have.

    *sizes*: it shows sizes, so ``-h`` is as in ls, and only ``--help`` asks for help.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        examples=examples,
        help_option=("--help",) if sizes else ("-h", "--help"),
        named_only=IMAGE_GROUPS,
    )
    if sizes:
        parser.add_argument("-h", "--human-readable", action="store_true", help="sizes as 1.2 MB")
    if json:
        parser.add_argument("--json", action="store_true", help="for programs; the keys are in docs/json.md")
    add_image_options(parser)
    return parser


def _layer_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is no number of a layer; the base is 0")
    return int(text)
