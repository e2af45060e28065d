"""The options of all commands that open an image: its source, the cache, and messages."""

import argparse
import re
from typing import Any

from fusefs.cli.output.progress import AUTO, WAYS
from fusefs.pattern import pattern
from fusefs.text import printable


def add_image_options(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add these options; return the group of messages, the last one, for options of the command."""
    engine = parser.add_argument_group("image, engine and registry")
    engine.add_argument("-H", "--host", metavar="URL", help="engine: unix:///path, tcp://host:port or ssh://host")
    engine.add_argument("--context", metavar="NAME", help="Docker context that names the engine")
    engine.add_argument("--platform", metavar="OS/ARCH", help="such as linux/arm64 (default: the engine's or host's)")
    engine.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, help="seconds to wait for a server (default: 60, 0: no limit)"
    )
    engine.add_argument("--shared-blob-dir", metavar="DIR", help="directory of the blobs of oci:DIR")
    engine.add_argument("--verify", action="store_true", help="read the whole image and check its digests")
    engine.add_argument("--authfile", metavar="FILE", help="credentials for registries (default: see man imgfs)")
    engine.add_argument(
        "--insecure", action="store_true", help="check no certificate of registries and URLs; allow plain HTTP"
    )
    engine.add_argument("--strict", action="store_true", help="verify whole layers of registries before they are used")
    engine.add_argument("--offline", action="store_true", help="ask no registry: use what is cached")
    files = parser.add_argument_group("temporary files and cache")
    files.add_argument("--tmpdir", metavar="DIR", help="temporary files (default: $IMGFS_TMPDIR or /var/tmp)")
    add_cache_options(files)
    files.add_argument("--no-cache", action="store_true", help="do not use the cache; spool the image in --tmpdir")
    messages = parser.add_argument_group("messages")
    messages.add_argument("-q", "--quiet", action="store_true", help="show only errors")
    messages.add_argument(
        "--progress",
        metavar="HOW",
        choices=WAYS,
        default=AUTO,
        help="auto (default), plain (lines) or none",
    )
    messages.add_argument("-v", "--verbose", action="store_true", help="show more messages")
    return messages


IMAGE_GROUPS = ("image, engine and registry", "temporary files and cache", "messages")
"""Titles of the groups that `add_image_options` adds."""

CACHE_DIR: dict[str, Any] = {
    "metavar": "DIR",
    "help": "cache (default: $IMGFS_CACHE_DIR; see man imgfs)",
}


def add_cache_options(parser: "argparse._ActionsContainer") -> None:
    """Add the options for the directory and the size of the cache."""
    parser.add_argument("--cache-dir", **CACHE_DIR)
    parser.add_argument(
        "--cache-size", metavar="SIZE", type=size_named, help="limit of the cache, such as 500M (default: 10GiB)"
    )


_SECONDS = pattern(r"[0-9]{1,6}(?:\.[0-9]{1,3})?")


def seconds(text: str) -> float:
    """Return *text* as seconds: no sign, no exponent, and below a million, since a socket accepts that as a timeout."""
    if not _SECONDS.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{printable(text)!r} is not a number of seconds; use a number below a million, such as 60 or 0.5"
        )
    return float(text)


_SIZE = pattern(r"([0-9]{1,15})(?:([KMGT])(i?)B?|B)?", re.IGNORECASE)


def size_named(text: str) -> int:
    """Return *text* as bytes: a number with or without a unit, ``M`` or ``MB`` (powers of 1000), ``MiB`` (of 1024)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is not a size; use one such as 500M, 10GiB or 1000000")
    base = 1024 if match[3] else 1000
    factor: int = base ** " KMGT".index((match[2] or " ").upper())
    return int(match[1]) * factor
