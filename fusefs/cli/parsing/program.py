"""The grammar of the whole command line."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from fusefs import __version__
from fusefs.cli.parsing.image_forms import forms
from fusefs.cli.parsing.image_options import CACHE_DIR, IMAGE_GROUPS, add_cache_options, add_image_options, seconds
from fusefs.cli.parsing.look_commands import add_list, add_looks
from fusefs.cli.parsing.mount_options import ALL, AUTO, BACKGROUND, EROFS, FUSE, long_options, split_options
from fusefs.cli.parsing.parser import Commands, HelpRequested, OneCommand, Parser
from fusefs.cli.parsing.use_commands import add_uses
from fusefs.errors import UsageError
from fusefs.oci.transport import DOCKER_DAEMON, REGISTRY, url_start
from fusefs.text import printable, without_password

SHELLS = ("bash", "zsh", "fish")
"""Shells that have completions."""
COMPLETE = "complete"
"""The internal command that completion scripts call; its words are not parsed."""
REPORT = "report"
"""The command that has an option ``-o`` for something else than mount(8)."""
SHELL = "shell"
"""The command behind whose ``--`` another command line begins."""
HELP, VERSION = "help", "version"
"""Commands that do the same as options."""
COMMANDS = frozenset(
    {
        "mount",
        "umount",
        "list",
        "inspect",
        "ls",
        "cat",
        "diff",
        "which",
        "du",
        "find",
        "waste",
        "cp",
        "shell",
        "report",
        "cache",
        "completion",
    }
    | {HELP, VERSION, f"__{COMPLETE}"}
)
"""The commands, listed here because building the parser takes longer."""


OPTIONS = "options"
"""The topic of help that is no command."""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments; raise UsageError if they are wrong, SystemExit for ``--help`` and ``--version``."""
    try:
        return _parsed(argv)
    except HelpRequested as request:
        from fusefs.cli.parsing.help import help_text  # noqa: PLC0415 - no other call needs it

        with suppress(OSError):
            sys.stdout.write(help_text(request.parser))
        raise SystemExit(0) from None


def _parsed(argv: Sequence[str]) -> argparse.Namespace:  # noqa: C901 - a case for each command
    if argv[:1] == [f"__{COMPLETE}"]:
        return argparse.Namespace(command=COMPLETE, words=argv[1:])
    if argv[:1] in (["-v"], ["--version"]):
        argv = [VERSION, *argv[1:]]
    parser = program_parser(argv[0] if argv and argv[0] in COMMANDS - {HELP} else None)
    arguments = _parsed_shell(parser, argv) if argv[:1] == [SHELL] else parser.parse_args(argv)
    match arguments.command:
        case None:
            raise HelpRequested(parser)
        case "help":
            if arguments.words == [OPTIONS]:
                raise HelpRequested(_options_topic())
            parser.parse_args([*arguments.words, "--help"])
        case "cache" if arguments.action is None:
            parser.parse_args(["cache", "--help"])
    if arguments.command == "umount" and not arguments.mountpoint and not arguments.all:
        raise UsageError("the following arguments are required: MOUNTPOINT; see imgfs umount --help")
    if arguments.command == "mount" and (in_o := long_options(arguments.options)):
        # Long options in -o come first, so that those of the command line win.
        arguments = parser.parse_args([arguments.command, *in_o, *argv[1:]])
    if arguments.command == "mount":
        _arrange_all(arguments)
    for name in ("mountpoint", "subdir", "tmpdir", "shared_blob_dir", "cache_dir", "log_file", "keep", "output"):
        value = getattr(arguments, name, None)
        if value == "" or (isinstance(value, list) and "" in value):  # abspath() would return the current directory
            shown = name.upper() if name == "mountpoint" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{shown} is empty")
    return arguments


def _parsed_shell(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the words up to the first ``--``; those behind it are a command, which may have options of its own."""
    end = argv.index("--") if "--" in argv else len(argv)
    arguments: argparse.Namespace = parser.parse_args(argv[:end])
    arguments.words += argv[end + 1 :]
    return arguments


def _arrange_all(arguments: argparse.Namespace) -> None:
    """Check the options of ``--all``, with which IMAGE may be left out: that of the engine."""
    if not arguments.all:
        for name in ("filter", "max_saves", "idle"):
            if getattr(arguments, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} needs --all")
        return
    if url_start(arguments.image) is not None:
        from fusefs.sources.argument import public_name  # noqa: PLC0415 - only this mistake needs it

        shown = printable(without_password(public_name(arguments.image)))
        raise UsageError(
            "--all takes a folder, a registry (docker://HOST) or nothing for the images of an engine, "
            f"but no URL: {shown}"
        )
    if arguments.mountpoint is None and not arguments.image.startswith(REGISTRY.prefix):
        arguments.image, arguments.mountpoint = DOCKER_DAEMON.prefix, arguments.image
    for name in ("subdir", "index"):
        if getattr(arguments, name):
            raise UsageError(f"--all and --{name} exclude each other")
    if arguments.driver == EROFS:
        raise UsageError("--all needs the driver fuse: images come and go")


def _positive(text: str) -> int:
    """Return *text* as a number from 1 on."""
    if not (text.isascii() and text.isdigit() and int(text[:6]) > 0 and len(text) < 6):
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is not a number from 1 to 99999")
    return int(text)


def program_parser(called: str | None = None) -> Parser:
    """Return the parser of the program with all its commands, or only with the one that is *called*."""
    parser = Parser(
        prog="imgfs",
        description="Mount and inspect container images without unpacking; see imgfs COMMAND --help.",
        examples=(
            "imgfs mount nginx:latest /mnt/img; ls /mnt/img/rootfs; imgfs umount /mnt/img",
            "imgfs ls -l ./nginx.tar:/etc",
        ),
    )
    every = parser.add_subparsers(dest="command", metavar="COMMAND", prog="imgfs")
    commands = every if called is None else cast("Commands", OneCommand(every, called))
    _add_mount(commands)
    _add_umount(commands)
    add_list(commands)
    add_looks(commands)
    add_uses(commands)
    _add_cache(commands)
    _add_completion(commands)
    # Without a summary, these are listed nowhere.
    helping = commands.add_parser(
        HELP,
        description="Show the help of COMMAND; imgfs help options, of what all commands have.",
        last_operand="words",
    )
    helping.add_argument("words", metavar="COMMAND", nargs="*")
    helping.add_help_last()
    version = commands.add_parser(VERSION, description="Show the version.")
    version.add_argument("--verbose", action="store_true", help="show what a bug report needs: versions, drivers")
    version.add_help_last()
    parser.add_help_last()
    shown = "show the version; with --verbose, of all parts"
    parser.add_argument("-v", "--version", action="version", version=f"imgfs {__version__}", help=shown)
    return parser


def _options_topic() -> Parser:
    """Return what `imgfs help options` shows: the forms of IMAGE, and the options of all commands that have one."""
    topic = Parser(
        prog=f"imgfs {HELP} {OPTIONS}",
        description="Options of all commands that open an image.",
        notes=forms(),
        help_option=(),
        is_topic=True,
    )
    add_image_options(topic)
    return topic


def _add_mount(commands: Commands) -> None:
    parser = commands.add_parser(
        "mount",
        help="mount an image",
        description="Mount IMAGE on the empty directory MOUNTPOINT and return when it is usable. "
        "Without MOUNTPOINT, make one, print its path, and remove it again at the unmount.",
        notes=forms(),
        examples=(
            "imgfs mount nginx:latest /mnt/img",
            "d=$(imgfs mount nginx)",
            "imgfs mount --all /mnt/images",
            "imgfs mount --all docker://registry.example.com/team /mnt/team",
            "imgfs mount -o uid=1000 ./nginx.tar /mnt/img",
        ),
        named_only=IMAGE_GROUPS,
        last_operand="mountpoint",
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?")
    mount = parser.add_argument_group("mounting")
    mount.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground; Ctrl-C unmounts")
    mount.add_argument(
        "-o",
        dest="options",
        metavar="OPTION[,…]",
        type=split_options,
        action="extend",
        default=[],
        help="allow_other, allow_root, noexec, noatime, uid=N, gid=N, umask=N, "
        "transform_symlinks, or long options (no --)",
    )
    mount.add_argument(
        "--driver",
        metavar="DRIVER",
        choices=(AUTO, FUSE, EROFS),
        default=AUTO,
        help="auto (default; FUSE, then the kernel if root mounts), fuse or erofs (the kernel at once)",
    )
    mount.add_argument("--subdir", metavar="PATH", help="show this directory alone, such as rootfs or layers/0")
    mount.add_argument(
        "--all", action="store_true", help="show all images of an engine, a folder or a registry, each in a directory"
    )
    mount.add_argument("--filter", metavar="GLOB", help="with --all: only images with such a name")
    mount.add_argument(
        "--max-saves", metavar="N", type=_positive, help="with --all: images saved at a time (default: 2)"
    )
    mount.add_argument(
        "--idle", metavar="SECONDS", type=seconds, help="with --all: let go of unused images (default: 600)"
    )
    mount.add_argument("--no-trees", action="store_true", help="mount without layers/ and rootfs/")
    mount.add_argument("--index", action="store_true", help="index all layers first (default: each at first access)")
    mount.add_argument(
        "--prefetch",
        action="store_const",
        const=BACKGROUND,
        help="fetch the layers of a registry in the background",
    )
    mount.add_argument(
        f"--prefetch={ALL}",
        dest="prefetch",
        action="store_const",
        const=ALL,
        help="fetch them, or the file at a URL, before the mount",
    )
    mount.add_argument("--log-file", metavar="FILE", help="write the log to FILE (default: syslog; see man imgfs)")
    add_image_options(parser)
    parser.add_help_last(mount)


def _add_umount(commands: Commands) -> None:
    parser = commands.add_parser(
        "umount",
        help="unmount images",
        description="Unmount the image on each MOUNTPOINT, even if its process is dead or stuck. "
        "An IMAGE that is mounted once may be named instead. Refuse mounts of other programs.",
        examples=("imgfs umount /mnt/img", "imgfs umount nginx", "imgfs umount --all"),
        last_operand="mountpoint",
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="*")
    parser.add_argument("-l", "--lazy", action="store_true", help="detach at once, even while files in it are open")
    parser.add_argument("-a", "--all", action="store_true", help="unmount all your images; as root, those of all users")
    parser.add_help_last()


def _add_cache(commands: Commands) -> None:
    parser = commands.add_parser(
        "cache",
        help="list the cache, or remove from it",
        description="List or prune the cache: images of engines and registries, indexes of layers and archives.",
        examples=("imgfs cache list", "imgfs cache prune --all"),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", prog="imgfs cache")
    parser.add_help_last()
    listing = actions.add_parser(
        "list",
        help="list cache entries",
        description="List cache entries, most recently used first.",
        examples=("imgfs cache list",),
    )
    listing.add_argument("--json", action="store_true", help="print JSON; docs/json.md describes the keys")
    listing.add_argument("--wide", action="store_true", help="show platform, engine and time, and cut nothing")
    add_cache_options(listing)
    listing.add_help_last()
    remove = actions.add_parser(
        "rm",
        help="remove what is cached of an image",
        description="Remove what is cached of IMAGE: a name as cache list shows it, docker://NAME[:TAG][@DIGEST], an "
        "image ID or the path of an archive. Layers that other cached images need stay, and so do images in use.",
        examples=("imgfs cache rm nginx:latest", "imgfs cache rm 4f06b3c65a5d"),
        last_operand="images",
    )
    remove.add_argument("images", metavar="IMAGE", nargs="*")
    remove.add_argument("--cache-dir", **CACHE_DIR)
    remove.add_help_last()
    prune = actions.add_parser(
        "prune",
        help="remove broken entries and shrink the cache to its limit",
        description="Remove broken and incomplete entries. Then, while the cache is over its limit, remove those least "
        "recently used. Entries in use are never removed. Those of kernel mounts do not count as in use; what such a "
        "mount reads stays on disk until it is unmounted.",
        examples=("imgfs cache prune --cache-size 2GiB",),
    )
    prune.add_argument("--all", action="store_true", help="remove all entries that are not in use")
    prune.add_argument("-n", "--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    add_cache_options(prune)
    prune.add_help_last()
    path = actions.add_parser(
        "path",
        help="print the path of the cache",
        description="Print the path of the cache.",
        examples=('du -sh "$(imgfs cache path)"',),
    )
    path.add_argument("--cache-dir", **CACHE_DIR)
    path.add_help_last()


def _add_completion(commands: Commands) -> None:
    parser = commands.add_parser(
        "completion",
        help="print a completion script for a shell",
        description="Print a script that makes the shell complete commands, options, images and mountpoints.",
        examples=(
            "source <(imgfs completion bash)               # in ~/.bashrc",
            "source <(imgfs completion zsh)                # in ~/.zshrc, after compinit",
            "imgfs completion fish | source                # in ~/.config/fish/config.fish",
            "imgfs completion bash > /etc/bash_completion.d/imgfs      # for all users",
        ),
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.add_help_last()
