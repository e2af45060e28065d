"""The command line's grammar."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from fusefs import __version__
from fusefs.cli.mountoptions import long_options, split_options
from fusefs.errors import UsageError, printable

_IMAGE = """\
IMAGE is one of
  nginx  nginx:1.27  NAME@sha256:…  an image ID or its beginning
                                an image in Docker or Podman
  docker-daemon:NAME            the same
  docker-archive:PATH[:REF|:@INDEX]
                                an image in the archive that docker save wrote
  oci:DIR[:REF]  oci-archive:PATH[:REF]
                                an image in an OCI image layout
  ./PATH  ../PATH  /PATH  NAME.tar  NAME.tar.gz …
                                whichever of these it is, compressed or not
  -                             the same from a pipe: docker save nginx | imgfs mount - DIR
"""
_EXAMPLES = """
examples:
  imgfs mount nginx:latest /mnt/img
  imgfs mount ./nginx.tar /mnt/img
  imgfs umount /mnt/img
"""


class _Parser(argparse.ArgumentParser):
    """Reports a usage error as every other error: in one line."""

    def error(self, message: str) -> NoReturn:
        msg = f"{message}; see {self.prog} --help"
        raise UsageError(msg)

    def _parse_optional(self, arg_string: str) -> Any:
        """Take a path in the image on standard input, ``-:/etc``, for no option."""
        return None if arg_string.startswith("-:/") else super()._parse_optional(arg_string)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments; UsageError if they are wrong.  ``--help`` and ``--version`` exit."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "umount" and not arguments.mountpoint and not arguments.all:
        msg = "the following arguments are required: MOUNTPOINT; see imgfs umount --help"
        raise UsageError(msg)
    if arguments.command == "mount" and (spelled := long_options(arguments.options)):
        # A long option may be spelled in -o; the command line's own spelling comes later and wins.
        arguments = parser.parse_args([arguments.command, *spelled, *argv[1:]])
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="imgfs",
        description="Mount a container image as a read-only directory.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"imgfs {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_mount(commands)
    _add_umount(commands)
    _add_list(commands)
    _add_inspect(commands)
    _add_ls(commands)
    _add_cat(commands)
    _add_diff(commands)
    _add_which(commands)
    return parser


def _add_mount(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "mount",
        help="mount an image",
        description="Mount IMAGE on MOUNTPOINT, an empty directory; return when it is usable.",
        epilog=_IMAGE + _EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("image", metavar="IMAGE", help="see below")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-f", "--foreground", action="store_true", help="stay; Ctrl-C unmounts")
    parser.add_argument(
        "-o",
        dest="options",
        metavar="OPTION[,…]",
        type=split_options,
        action="extend",
        default=[],
        help="allow_other, allow_root, noexec, noatime; uid=N, gid=N, umask=N; transform_symlinks "
        "for layers/ and rootfs/; a long option without its dashes",
    )
    parser.add_argument("--no-trees", action="store_true", help="without layers/ and rootfs/")
    parser.add_argument("--index", action="store_true", help="index all layers first; else at the first look")
    engine = parser.add_argument_group("the engine")
    engine.add_argument("-H", "--host", metavar="URL", help="as in docker: unix:///path, tcp://host:port, ssh://host")
    engine.add_argument("--context", metavar="NAME", help="as in docker")
    parser.add_argument("--platform", metavar="OS/ARCH", help="of several, as linux/arm64/v8; else this machine's")
    files = parser.add_argument_group("files")
    files.add_argument("--tmpdir", metavar="DIR", help="for large files; else $IMGFS_TMPDIR, else /var/tmp")
    files.add_argument("--verify", action="store_true", help="read an archive whole and compare its digests")
    messages = parser.add_argument_group("messages")
    messages.add_argument("-q", "--quiet", action="store_true", help="errors only")
    messages.add_argument("-v", "--verbose", action="store_true", help="say more")
    messages.add_argument("--log-file", metavar="FILE", help="where the mount logs; else syslog, else a file")


def _add_umount(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "umount",
        help="unmount images",
        description="Unmount the image on each MOUNTPOINT, also when its process is dead or stuck. "
        "What is no image is refused.",
        allow_abbrev=False,
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="*")
    parser.add_argument("-l", "--lazy", action="store_true", help="at once, also while files in it are open")
    parser.add_argument("-a", "--all", action="store_true", help="all images that you have mounted; root: all")


def _add_list(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "list",
        help="list the images that are mounted",
        description="List the images that are mounted, dead mounts and those of others too.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="for programs; the keys are in docs/json.md")


def _add_inspect(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = _add_look(
        commands,
        "inspect",
        "show what an image says of itself",
        "Show what IMAGE says of itself: how it is run, and its layers with their sizes and what made them.",
        "examples:\n  imgfs inspect nginx:latest\n  imgfs inspect --json ./nginx.tar | jq .layers[0].diffId\n",
    )
    parser.add_argument("image", metavar="IMAGE", help="as in imgfs mount --help")
    parser.add_argument("--no-trunc", action="store_true", help="whole digests and commands, also on a terminal")


def _add_ls(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = _add_look(
        commands,
        "ls",
        "list files in an image",
        "List a directory, or a file, of an image's root file system; of / if no path is given.",
        f"{_PATHS}examples:\n  imgfs ls nginx:latest\n  imgfs ls -lA nginx:latest:/etc\n  imgfs ls ./nginx.tar:/usr\n",
        help_option=False,
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("-l", "--long", action="store_true", help="mode, links, owner, group, size and time as well")
    parser.add_argument("-a", "--all", action="store_true", help="names that begin with a dot too, and . and ..")
    parser.add_argument("-A", "--almost-all", action="store_true", help="the same without . and ..")
    parser.add_argument("-d", "--directory", action="store_true", help="a directory itself, not what is in it")
    parser.add_argument("-h", "--human-readable", action="store_true", help="sizes as 1.2 MB")
    parser.add_argument("-n", "--numeric-uid-gid", action="store_true", help="numbers of owners, not names")
    parser.add_argument("-R", "--recursive", action="store_true", help="directories below as well")
    parser.add_argument("--layer", metavar="N", type=_layer_number, help="of this layer's own files; 0 is the base")
    parser.add_argument("--help", action="help", help="show this help message and exit")


def _add_cat(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = _add_look(
        commands,
        "cat",
        "print a file of an image",
        "Print a file of an image's root file system. On a terminal its control characters are shown as escapes.",
        f"{_PATHS}example:\n  imgfs cat nginx:latest:/etc/nginx/nginx.conf\n",
        json=False,
    )
    parser.add_argument("image", metavar="IMAGE:/PATH")
    parser.add_argument("--layer", metavar="N", type=_layer_number, help="of this layer's own files; 0 is the base")


def _add_diff(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = _add_look(
        commands,
        "diff",
        "compare the files of two images",
        "List what the second IMAGE has added (A), deleted (D) and changed (C), with sizes before and after.",
        f"{_PATHS}example:\n  imgfs diff nginx:1.26 nginx:1.27\n  imgfs diff nginx:1.26:/etc nginx:1.27:/etc\n",
        help_option=False,
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("other", metavar="IMAGE[:/PATH]")
    parser.add_argument("-h", "--human-readable", action="store_true", help="sizes as 1.2 MB")
    parser.add_argument("--times", action="store_true", help="files of which only the time differs as well")
    parser.add_argument("--help", action="help", help="show this help message and exit")


def _add_which(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = _add_look(
        commands,
        "which",
        "say which layer a file comes from",
        "Say which layer of an image a file comes from, and what made that layer.",
        f"{_PATHS}example:\n  imgfs which nginx:latest /etc/nginx/nginx.conf\n",
    )
    parser.add_argument("image", metavar="IMAGE", help="or IMAGE:/PATH alone")
    parser.add_argument("path", metavar="PATH", nargs="?")


def _add_look(  # noqa: PLR0913 - what a parser is made of
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    summary: str,
    description: str,
    epilog: str,
    *,
    json: bool = True,
    help_option: bool = True,
) -> _Parser:
    """Add a command that looks at an image without mounting it, with the options that all of these have."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=help_option,
    )
    if json:
        parser.add_argument("--json", action="store_true", help="for programs; the keys are in docs/json.md")
    where = parser.add_argument_group("the image")
    where.add_argument("-H", "--host", metavar="URL", help="the engine, as in docker")
    where.add_argument("--context", metavar="NAME", help="as in docker")
    where.add_argument("--platform", metavar="OS/ARCH", help="of several, as linux/arm64/v8; else this machine's")
    where.add_argument("--tmpdir", metavar="DIR", help="for large files; else $IMGFS_TMPDIR, else /var/tmp")
    where.add_argument("--verify", action="store_true", help="read an archive whole and compare its digests")
    where.add_argument("-q", "--quiet", action="store_true", help="errors only")
    where.add_argument("-v", "--verbose", action="store_true", help="say more")
    return parser


_PATHS = """\
IMAGE is one as in imgfs mount --help.  The path in it begins at the first :/ that follows:
  nginx:/etc  nginx:1.27:/etc  localhost:5000/nginx:/etc  ./nginx.tar:/etc
  docker-archive:PATH:REF:/etc  oci:DIR:/etc  -:/etc
"""


def _layer_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        msg = f"'{printable(text)}' is no number of a layer; the base is 0"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
