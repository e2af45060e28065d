"""imgfs cache: list and prune the cache."""

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from fusefs.cache.location import unusable
from fusefs.cache.store import DEFAULT_LIMIT, Cache, ListedEntry
from fusefs.cli.cache_folder import cache_folder
from fusefs.cli.output.messages import log_to_stderr
from fusefs.cli.output.stdout import BOLD, Output, human_size, table
from fusefs.text import printable

_SHORT = 12
"""Characters of an image ID that are shown, as in docker."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """List cache entries, prune the cache, or print its path."""
    log_to_stderr()
    output = Output(environment)
    path, _ = cache_folder(arguments.cache_dir, environment)
    match arguments.action:
        case "path":
            output.raw(os.fsencode(path) + b"\n")  # unchanged, for scripts
        case "list":
            with _using(path):
                entries = Cache(path).entries() if _is_there(path) else []
            if arguments.json:
                output.json([_json(entry) for entry in entries])
            else:
                header, *lines = table(
                    [("ID", "PLATFORM", "SIZE", "LAST USED", "IN USE", "IMAGE"), *map(_row, entries)], (2,)
                )
                output.line(output.styled(header, BOLD))
                for line in lines:
                    output.line(line)
        case "prune":
            limit = DEFAULT_LIMIT if arguments.cache_size is None else arguments.cache_size
            with _using(path):
                freed = Cache(path, limit).prune(everything=arguments.all) if _is_there(path) else 0
            output.line(f"freed {human_size(freed)}")
    output.finish()


@contextlib.contextmanager
def _using(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from None


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _row(entry: ListedEntry) -> tuple[str, ...]:
    about = entry.about
    used = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.used_ns // 10**9))
    image = ", ".join(about.get("names") or [about.get("path") or "-"])
    if about.get("mediaType"):
        image += f" ({about['mediaType']})"
    cells = (
        about.get("id", "").partition(":")[2][:_SHORT] or "-",
        about.get("platform") or "-",
        human_size(entry.size),
        used,
        "yes" if entry.in_use else "no",
        image if entry.ours else f"{image} (of another version of imgfs)",
    )
    return tuple(map(printable, cells))


def _json(entry: ListedEntry) -> dict[str, Any]:
    about = entry.about
    what = {name: about.get(name) for name in ("names", "id", "platform", "storage", "path", "mediaType")}
    times = {"created": _time(about.get("created_ns", 0)), "used": _time(entry.used_ns)}
    return what | {"size": entry.size} | times | {"inUse": entry.in_use, "key": entry.key, "usable": entry.ours}


def _time(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 10**9))
