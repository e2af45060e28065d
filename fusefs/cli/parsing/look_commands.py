"""The grammar of the read-only commands: those that inspect an image without a mount, and `list`."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusefs.cli.parsing.image_options import IMAGE_GROUPS, add_image_options, size_named
from fusefs.cli.parsing.parser import Commands, Parser
from fusefs.pattern import pattern
from fusefs.text import printable

if TYPE_CHECKING:
    from fusefs.image.search import Size


def add_looks(commands: Commands) -> None:
    """Add the commands that inspect an image without a mount."""
    _add_inspect(commands)
    _add_ls(commands)
    _add_cat(commands)
    _add_diff(commands)
    _add_which(commands)
    _add_du(commands)
    _add_find(commands)
    _add_waste(commands)


def _add_inspect(commands: Commands) -> None:
    parser = add_look(
        commands,
        "inspect",
        "show the configuration and layers of an image",
        "Show the configuration of IMAGE, and its layers with their sizes and the commands that made them; "
        "of an image in a registry also its signatures, SBOMs and attestations.",
        ("imgfs inspect nginx:latest", "imgfs inspect --json ./nginx.tar | jq '.layers[0].diffId'"),
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--no-trunc", action="store_true", help="do not shorten digests and commands on a terminal")
    parser.add_argument(
        "--digests", action="store_true", help="read an image that is not cached, for its digests and exact sizes"
    )
    parser.add_argument(
        "--no-referrers",
        dest="referrers",
        action="store_false",
        help="do not ask the registry for signatures, SBOMs and attestations",
    )
    parser.add_argument("--referrers", action="store_true", default=True, help="ask the registry for them (default)")
    parser.add_help_last()


def _add_ls(commands: Commands) -> None:
    parser = add_look(
        commands,
        "ls",
        "list files in an image",
        "List directories or files of an image's root file system (default: /).",
        ("imgfs ls -lA nginx:latest:/etc", "imgfs ls -lS nginx:latest /etc /usr/bin"),
        sizes=True,
        last_operand="paths",
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("paths", metavar="PATH", nargs="*")
    parser.add_argument("-l", "--long", action="store_true", help="show mode, links, owner, group, size and time")
    parser.add_argument("-a", "--all", action="store_true", help="include . and .. and names that begin with a dot")
    parser.add_argument("-A", "--almost-all", action="store_true", help="like --all, but without . and ..")
    parser.add_argument("-d", "--directory", action="store_true", help="list a directory itself, not its contents")
    parser.add_argument("-n", "--numeric-uid-gid", action="store_true", help="show numeric user and group IDs")
    parser.add_argument("-R", "--recursive", action="store_true", help="list subdirectories recursively")
    parser.add_argument("-t", dest="sort_time", action="store_true", help="sort by time, the newest first")
    parser.add_argument("-S", dest="sort_size", action="store_true", help="sort by size, the largest first")
    parser.add_argument("-r", "--reverse", action="store_true", help="reverse the order")
    parser.add_argument("-1", dest="one", action="store_true", help="one name a line, as always")
    add_layer(parser)
    parser.add_help_last()


def _add_cat(commands: Commands) -> None:
    parser = add_look(
        commands,
        "cat",
        "print files of an image",
        "Print files of an image's root file system, with control characters escaped on a terminal. "
        "PATH begins at the first :/.",
        ("imgfs cat nginx:latest:/etc/nginx/nginx.conf", "imgfs cat nginx:latest /etc/passwd /etc/group"),
        json=False,
        last_operand="paths",
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("paths", metavar="PATH", nargs="*")
    add_layer(parser)
    parser.add_help_last()


def _add_diff(commands: Commands) -> None:
    parser = add_look(
        commands,
        "diff",
        "compare two images: files, configuration, packages",
        "List what the second image changes in the configuration, and the files that it adds (A), deletes (D) and "
        "changes (C), with sizes before and after. PATH begins at the first :/.",
        ("imgfs diff nginx:1.26 nginx:1.27", "imgfs diff -u nginx:1.26:/etc nginx:1.27:/etc"),
        sizes=True,
        last_operand="other",
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("other", metavar="IMAGE[:/PATH]", nargs="?")
    parser.add_argument("-u", "--unified", action="store_true", help="show the lines of text files that differ")
    parser.add_argument("--stat", action="store_true", help="count the files that differ in each directory")
    parser.add_argument("-d", "--max-depth", metavar="N", type=_depth, help="with --stat: to this depth (default: 2)")
    parser.add_argument("--config", action="store_true", help="show only the configuration")
    parser.add_argument("--packages", action="store_true", help="show only the packages of dpkg, apk and rpm")
    parser.add_argument(
        "--layer", metavar="N", type=_layer_number, help="of one image: what layer N (0 is the base) changes"
    )
    parser.add_argument("--times", action="store_true", help="include files that differ only in their time")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if anything differs")
    parser.add_help_last()


def _add_which(commands: Commands) -> None:
    parser = add_look(
        commands,
        "which",
        "show which layer a file comes from",
        "Show which layer of an image a file comes from, and the command that made that layer.",
        ("imgfs which nginx:latest /etc/nginx/nginx.conf",),
        last_operand="path",
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("path", metavar="PATH", nargs="?")
    parser.add_help_last()


def _add_du(commands: Commands) -> None:
    parser = add_look(
        commands,
        "du",
        "show how large the directories of an image are",
        "Show the bytes of the files in each directory of an image's root file system (default: /), with all that is "
        "below it. A file with several names counts once.",
        ("imgfs du -h -d 1 nginx:latest", "imgfs du --layers nginx:latest:/usr"),
        sizes=True,
        last_operand="paths",
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("paths", metavar="PATH", nargs="*")
    parser.add_argument("-d", "--max-depth", metavar="N", type=_depth, help="show directories down to this depth")
    parser.add_argument("-s", "--summarize", action="store_true", help="show only a total for each PATH")
    parser.add_argument("-a", "--all", action="store_true", help="show files, too")
    parser.add_argument("--layers", action="store_true", help="show in which layers they are (default: as with -s)")
    add_layer(parser)
    parser.add_help_last()


def _add_find(commands: Commands) -> None:
    parser = add_look(
        commands,
        "find",
        "find files in the layers of an image",
        "List the files of an image's root file system at PATH and below (default: /) that pass all tests, with layer "
        "and size; with --layer, --all-layers or --deleted those of layers, with the layer above that hides them.",
        ("imgfs find nginx:latest /etc -name '*.conf'", "imgfs find nginx:latest --deleted -type f -size +1M"),
        sizes=True,
        last_operand="paths",
        values_of=("-name", "-size", "-type"),
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("paths", metavar="PATH", nargs="*")
    parser.add_argument("-print", action="store_true", help="print only the paths")
    tests = parser.add_argument_group("tests, as in find(1)")
    tests.add_argument("-name", metavar="GLOB", help="the name matches this pattern of the shell")
    tests.add_argument("-size", metavar="[+|-]N[UNIT]", type=_find_size, help="size: blocks, or c, k, M or G; +: more")
    tests.add_argument("-type", metavar="TYPES", type=_find_types, help="types, of f, d, l, b, c, p, s, as in f,l")
    layers = parser.add_argument_group("layers")
    add_layer(layers)
    layers.add_argument("--all-layers", action="store_true", help="all files of all layers, also hidden ones")
    layers.add_argument("--deleted", action="store_true", help="files of layers that an upper layer deletes")
    parser.add_help_last()


def _find_size(text: str) -> "Size":
    from fusefs.image.search import size_of  # noqa: PLC0415 - no other command needs it

    try:
        return size_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _find_types(text: str) -> list[str]:
    from fusefs.image.search import types_of  # noqa: PLC0415

    try:
        return types_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_waste(commands: Commands) -> None:
    parser = add_look(
        commands,
        "waste",
        "show the bytes of an image that no program sees",
        "Show the files of layers that upper layers delete, overwrite or repeat, the layers at fault, and the "
        "efficiency as dive counts it.",
        ("imgfs waste nginx:latest", "imgfs waste --fail-above 5% ./app.tar"),
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("-a", "--all", action="store_true", help="list all files (default: the 20 largest)")
    parser.add_argument(
        "--fail-above", metavar="LIMIT", type=_limit, help="exit with 11 if more than LIMIT (50M or 5%%) is wasted"
    )
    parser.add_help_last()


_PER_CENT = pattern(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")


def _limit(text: str) -> tuple[float, str]:
    """Return a limit and its unit: ``B`` or ``%``."""
    if match := _PER_CENT.fullmatch(text):
        return float(match[1]), "%"
    return size_named(text), "B"


def add_list(commands: Commands) -> None:
    """Add the command that lists mounts."""
    parser = commands.add_parser(
        "list",
        help="list mounted images",
        description="List mounted images, including dead mounts and mounts of other users.",
        examples=("imgfs list", "imgfs list --json | jq -r '.[].mountpoint'"),
    )
    parser.add_argument("--json", action="store_true", help="print JSON; docs/json.md describes the keys")
    parser.add_argument("--wide", action="store_true", help="show ID, source, process and time, and cut nothing")
    parser.add_help_last()


def add_look(  # noqa: PLR0913 - the parts of a parser
    commands: Commands,
    name: str,
    summary: str,
    description: str,
    examples: Sequence[str],
    *,
    json: bool = True,
    sizes: bool = False,
    last_operand: str = "",
    values_of: Sequence[str] = (),
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
        last_operand=last_operand,
        values_of=values_of,
    )
    if sizes:
        parser.add_argument("-h", "--human-readable", action="store_true", help="show sizes with units, such as 1.2 MB")
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON; docs/json.md describes the keys")
    add_image_options(parser)
    return parser


def add_layer(parser: "argparse._ActionsContainer") -> None:
    """Add the option to use one layer."""
    parser.add_argument(
        "--layer", metavar="N", type=_layer_number, help="use only the files of layer N (0 is the base)"
    )


def _depth(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is not a number of directories")
    return int(text)


def _layer_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is not a layer number; the base is 0")
    return int(text)
