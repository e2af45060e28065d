"""The grammar of the read-only commands: those that inspect an image without a mount, and `list`."""

import argparse
from collections.abc import Sequence

from fusefs.cli.parsing.image_options import IMAGE_GROUPS, add_image_options
from fusefs.cli.parsing.parser import Commands, Parser
from fusefs.text import printable


def add_looks(commands: Commands) -> None:
    """Add the commands that inspect an image without a mount."""
    _add_inspect(commands)
    _add_ls(commands)
    _add_cat(commands)
    _add_diff(commands)
    _add_which(commands)


def _add_inspect(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "inspect",
        "show the configuration and layers of an image",
        "Show the configuration of IMAGE, and its layers with their sizes and the commands that made them.",
        ("imgfs inspect nginx:latest", "imgfs inspect --json ./nginx.tar | jq '.layers[0].diffId'"),
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--no-trunc", action="store_true", help="do not shorten digests and commands on a terminal")
    parser.add_argument(
        "--referrers", action="store_true", help="ask the registry for signatures, SBOMs and attestations, too"
    )
    parser.add_help_last()


def _add_ls(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "ls",
        "list files in an image",
        "List a directory or a file of an image's root file system (default: /).",
        ("imgfs ls -lA nginx:latest:/etc",),
        sizes=True,
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("-l", "--long", action="store_true", help="show mode, links, owner, group, size and time")
    parser.add_argument("-a", "--all", action="store_true", help="include . and .. and names that begin with a dot")
    parser.add_argument("-A", "--almost-all", action="store_true", help="like --all, but without . and ..")
    parser.add_argument("-d", "--directory", action="store_true", help="list a directory itself, not its contents")
    parser.add_argument("-n", "--numeric-uid-gid", action="store_true", help="show numeric user and group IDs")
    parser.add_argument("-R", "--recursive", action="store_true", help="list subdirectories recursively")
    parser.add_argument(
        "--layer", metavar="N", type=_layer_number, help="use only the files of layer N (0 is the base)"
    )
    parser.add_help_last()


def _add_cat(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "cat",
        "print a file of an image",
        "Print a file of an image's root file system, with control characters escaped on a terminal. "
        "PATH begins at the first :/.",
        ("imgfs cat nginx:latest:/etc/nginx/nginx.conf",),
        json=False,
    )
    parser.add_argument("image", metavar="IMAGE:/PATH")
    parser.add_argument(
        "--layer", metavar="N", type=_layer_number, help="use only the files of layer N (0 is the base)"
    )
    parser.add_help_last()


def _add_diff(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "diff",
        "compare the files of two images",
        "List files that the second image adds (A), deletes (D) and changes (C), with sizes before and after. "
        "PATH begins at the first :/.",
        ("imgfs diff nginx:1.26 nginx:1.27", "imgfs diff nginx:1.26:/etc nginx:1.27:/etc"),
        sizes=True,
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("other", metavar="IMAGE[:/PATH]")
    parser.add_argument("--times", action="store_true", help="include files that differ only in their time")
    parser.add_help_last()


def _add_which(commands: Commands) -> None:
    parser = _add_look(
        commands,
        "which",
        "show which layer a file comes from",
        "Show which layer of an image a file comes from, and the command that made that layer.",
        ("imgfs which nginx:latest /etc/nginx/nginx.conf",),
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("path", metavar="PATH", nargs="?")
    parser.add_help_last()


def add_list(commands: Commands) -> None:
    """Add the command that lists mounts."""
    parser = commands.add_parser(
        "list",
        help="list mounted images",
        description="List mounted images, including dead mounts and mounts of other users.",
        examples=("imgfs list", "imgfs list --json | jq -r '.[].mountpoint'"),
    )
    parser.add_argument("--json", action="store_true", help="print JSON; docs/json.md describes the keys")
    parser.add_help_last()


def _add_look(  # noqa: PLR0913 - the parts of a parser
    commands: Commands,
    name: str,
    summary: str,
    description: str,
    examples: Sequence[str],
    *,
    json: bool = True,
    sizes: bool = False,
) -> Parser:
    """Add a command that inspects an image without a mount, with the options that all of these commands have.

    *sizes*: the command shows sizes, so ``-h`` means human-readable as in ls, and only ``--help`` shows help.
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
        parser.add_argument("-h", "--human-readable", action="store_true", help="show sizes with units, such as 1.2 MB")
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON; docs/json.md describes the keys")
    add_image_options(parser)
    return parser


def _layer_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is not a layer number; the base is 0")
    return int(text)
