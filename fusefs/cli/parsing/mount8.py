"""imgfs as a helper of mount(8): its command lines and exit status.

With the type ``fuse.imgfs`` mount.fuse3(8) runs ``imgfs SOURCE DIR -o OPTIONS``, with ``imgfs`` mount(8) itself runs
``mount.imgfs SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]``.
"""

import argparse
import os
from collections.abc import Sequence

from fusefs.cli.parsing.nearest import meant_command
from fusefs.cli.parsing.program import COMMANDS, REPORT, parse_arguments
from fusefs.errors import UsageError

_OF_NO_COMMAND = frozenset("/:.@")
"""Characters of images; no command has one."""

FAILURE = 32
_USAGE = 1
_FUSE_WORDS = 4
"""``SOURCE DIR -o OPTIONS``, which mount.fuse3 always passes."""


def is_helper(program: str, words: Sequence[str]) -> bool:
    """Return whether mount(8) calls *program* with the arguments *words*: as ``mount.…``, or without a command."""
    return _is_named(program) or _is_short(words)


def mount_status(status: int) -> int:
    """Return the status of mount(8) that corresponds to the exit *status* of imgfs."""
    return {0: 0, UsageError.exit_code: _USAGE}.get(status, FAILURE)


def parse_call(program: str, words: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments, with two more: ``as_helper``, and ``fake`` (``mount -f``: only check)."""
    as_helper, fake = is_helper(program, words), False
    if _is_named(program):
        words, fake = _from_flags(words)
    elif _is_short(words):
        words = ["mount", *words]
    arguments = parse_arguments(words)
    if as_helper and arguments.command == "mount" and arguments.mountpoint is None:
        raise UsageError("the following arguments are required: MOUNTPOINT; see imgfs mount --help")
    arguments.as_helper, arguments.fake = as_helper, fake
    return arguments


def _is_named(program: str) -> bool:
    return os.path.basename(program).startswith("mount.")


def _is_short(words: Sequence[str]) -> bool:
    """Return whether *words* are ``SOURCE DIR …``, without a command.

    A first word that is a command is one, except in ``list /DIR -o OPTIONS``: mount.fuse3 passes that for an image
    called ``list``, and no command but `mount` and `report` has ``-o``.  A mistyped command is no image: without
    ``-o``, the first word must look like an image, or the second one must be a directory.
    """
    if len(words) < 2 or (words[0].startswith("-") and words[0] != "-") or words[1].startswith("-"):
        return False
    if words[0] in COMMANDS:
        by_fuse = len(words) == _FUSE_WORDS and words[1].startswith("/") and words[2] == "-o"
        options = words[3].split(",") if by_fuse else []  # mount(8) passes one of these two always
        return by_fuse and words[0] != "mount" and (words[0] != REPORT or bool({"rw", "ro"} & {*options}))
    if words[0] == "-" or _OF_NO_COMMAND & {*words[0]} or any(word.startswith("-o") for word in words[2:]):
        return True
    return os.path.isdir(words[1]) and meant_command(words[0], COMMANDS) is None


def _from_flags(words: Sequence[str]) -> tuple[list[str], bool]:
    """Translate *words* with flags of mount(8) for ``imgfs mount``; also return whether ``-f`` (fake) is among them."""
    import getopt  # noqa: PLC0415 - only mount(8) passes flags

    try:
        flags, operands = getopt.gnu_getopt(list(words), "sfnvo:t:N:")
    except getopt.GetoptError as error:
        raise UsageError(f"{error.msg}; mount(8) passes -s, -f, -n, -v, -o, -t") from None
    arguments = ["mount"]
    for flag, value in flags:
        match flag:
            case "-o":
                arguments += ["-o", value]
            case "-s":
                arguments += ["-o", "sloppy"]
            case "-v":
                arguments.append("-v")
            case "-N":
                raise UsageError(f"-N is not supported; use nsenter --mount={value} mount …")
            # -n: there is no mtab; -t: there is one type; -f: below
    return [*arguments, *operands], "-f" in dict(flags)
