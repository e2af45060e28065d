"""imgfs as the helper of mount(8): the ways that calls it, and the exit status that it wants.

With the type ``fuse.imgfs`` mount.fuse3(8) runs ``imgfs SOURCE DIR -o OPTIONS``, with ``imgfs`` mount(8) itself runs
``mount.imgfs SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]``.
"""

import argparse
import getopt
import os
from collections.abc import Sequence

from fusefs.cli.parsing.program import COMPLETE, parse_arguments
from fusefs.errors import UsageError

COMMANDS = frozenset(
    {"mount", "umount", "list", "inspect", "ls", "cat", "diff", "which", "cache", "completion", f"__{COMPLETE}"}
)
"""The words that begin a command line, known without making its parser."""

FAILURE = 32
_USAGE = 1
_FUSE_WORDS = 4
"""``SOURCE DIR -o OPTIONS``: what mount.fuse3 passes, always."""


def is_helper(program: str, words: Sequence[str]) -> bool:
    """Return whether *program* with the arguments *words* is called as mount(8) does: by name, or without a command."""
    return _is_named(program) or _is_short(words)


def mount_status(status: int) -> int:
    """Return what mount(8) hands on to its caller for our exit *status*."""
    return {0: 0, UsageError.exit_code: _USAGE}.get(status, FAILURE)


def parse_call(program: str, words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments, however imgfs is called: ``as_helper``, and ``fake`` if there is only to be a check."""
    as_helper, fake = is_helper(program, words), False
    if _is_named(program):
        words, fake = _from_flags(words)
    elif _is_short(words):
        words = ["mount", *words]
    arguments = parse_arguments(words)
    arguments.as_helper, arguments.fake = as_helper, fake
    return arguments


def _is_named(program: str) -> bool:
    return os.path.basename(program).startswith("mount.")


def _is_short(words: Sequence[str]) -> bool:
    """Return whether *words* are ``SOURCE DIR …``, without a command.

    A command's word is a command.  But none of them takes ``-o``, except `mount` with two words before it: what
    mount.fuse3 passes for an image that is called ``list`` is no command.
    """
    if len(words) < 2 or (words[0].startswith("-") and words[0] != "-") or words[1].startswith("-"):
        return False
    if words[0] not in COMMANDS:
        return True
    by_fuse = len(words) == _FUSE_WORDS and words[1].startswith("/") and words[2] == "-o"
    return by_fuse and words[0] != "mount"


def _from_flags(words: Sequence[str]) -> tuple[list[str], bool]:
    """Return *words* with mount(8)'s flags as those of ``imgfs mount``, and whether one says to mount nothing."""
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
                raise UsageError(f"-N is not supported; nsenter --mount={value} mount … does it")
            # -n: there is no mtab; -t: there is one type; -f: below
    return [*arguments, *operands], "-f" in dict(flags)
