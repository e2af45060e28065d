"""The options that say where an image comes from, and what is kept of it: those of all commands that open one."""

import argparse
import re
from typing import Any

from fusefs.cli.output.progress import AUTO, WAYS
from fusefs.text import printable


def add_image_options(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add them; return the group of the last, to which a command may add its own."""
    engine = parser.add_argument_group("the image and its engine")
    engine.add_argument("-H", "--host", metavar="URL", help="as in docker: unix:///path, tcp://host:port, ssh://host")
    engine.add_argument("--context", metavar="NAME", help="as in docker")
    engine.add_argument("--platform", metavar="OS/ARCH", help="of several, as linux/arm64/v8; else this machine's")
    engine.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, help="how long it may be silent; else 60, 0 for ever"
    )
    engine.add_argument("--verify", action="store_true", help="read an archive whole and compare its digests")
    files = parser.add_argument_group("where files go")
    files.add_argument("--tmpdir", metavar="DIR", help="for large files; else $IMGFS_TMPDIR, else /var/tmp")
    add_cache_options(files)
    files.add_argument("--no-cache", action="store_true", help="keep nothing; what is written goes into --tmpdir")
    messages = parser.add_argument_group("messages")
    messages.add_argument("-q", "--quiet", action="store_true", help="errors only")
    messages.add_argument(
        "--progress",
        metavar="HOW",
        choices=WAYS,
        default=AUTO,
        help="auto: bars on a terminal; plain: lines; none",
    )
    messages.add_argument("-v", "--verbose", action="store_true", help="say more")
    return messages


IMAGE_GROUPS = ("the image and its engine", "where files go", "messages")
"""The groups that this makes."""

CACHE_DIR: dict[str, Any] = {
    "metavar": "DIR",
    "help": "else $IMGFS_CACHE_DIR, else in /var/cache or ~/.cache",
}


def add_cache_options(parser: "argparse._ActionsContainer") -> None:
    """Add the options that say where the cache is, and how large."""
    parser.add_argument("--cache-dir", **CACHE_DIR)
    parser.add_argument(
        "--cache-size", metavar="SIZE", type=_size, help="how much may be kept, as 500M or 10GiB; else 10GiB"
    )


_SECONDS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,3})?")


def _seconds(text: str) -> float:
    """Return the seconds in *text*: no sign, no exponent, and no more than a socket can wait."""
    if not _SECONDS.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{printable(text)!r} is no number of seconds; expected one as 60 or 0.5, and below a million"
        )
    return float(text)


_SIZE = re.compile(r"([0-9]{1,15})(?:([KMGT])(i?)B?|B)?", re.IGNORECASE)


def _size(text: str) -> int:
    """Return the bytes in *text*: a number, maybe with ``K``, ``M``, ``G``, ``T`` or as ``GiB``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is no size; expected one as 500M, 10GiB or 1000000")
    base = 1024 if match[3] else 1000
    factor: int = base ** " KMGT".index((match[2] or " ").upper())
    return int(match[1]) * factor
