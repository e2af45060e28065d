"""The command line's grammar."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from fusefs import __version__
from fusefs.cli.imagearguments import CACHE_DIR, add_cache_options, add_image_options
from fusefs.cli.lookarguments import add_looks
from fusefs.cli.mountoptions import long_options, split_options
from fusefs.errors import UsageError

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
    add_looks(commands)
    _add_umount(commands)
    _add_cache(commands)
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
    add_image_options(parser)
    parser.add_argument("--log-file", metavar="FILE", help="where the mount logs; else syslog, else a file")


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


def _add_cache(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "cache",
        help="what is kept of images for the next mount",
        description="The cache: images that engines saved, and indexes of layers and archives.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show what is kept", description="Show what is kept.", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.add_argument("--cache-dir", **CACHE_DIR)
    what = "Remove what is broken, incomplete or over the limit. What is mounted is never removed."
    prune = actions.add_parser("prune", help="remove what is broken or too much", description=what, allow_abbrev=False)
    prune.add_argument("--all", action="store_true", help="remove everything that is not mounted")
    add_cache_options(prune)
    path = actions.add_parser("path", help="print where it is", description="Print where it is.", allow_abbrev=False)
    path.add_argument("--cache-dir", **CACHE_DIR)
