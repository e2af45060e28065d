"""imgfs cache: what is kept of images, and its end."""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from fusefs.cache import DEFAULT_LIMIT, SAVED, Cache, Kept
from fusefs.cli.cachefolder import cache_folder
from fusefs.errors import printable


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """List, prune, or say where it is."""
    path, _ = cache_folder(arguments.cache_dir, environment)
    match arguments.action:
        case "path":
            sys.stdout.buffer.write(os.fsencode(path) + b"\n")  # for scripts, so as it is
        case "list":
            kept = Cache(path).kept() if os.path.lexists(path) else []
            print(json.dumps([_described(one) for one in kept], indent=2) if arguments.json else _table(kept))
        case "prune":
            limit = DEFAULT_LIMIT if arguments.cache_size is None else arguments.cache_size
            freed = Cache(path, limit).prune(everything=arguments.all) if os.path.lexists(path) else 0
            print(f"freed {_size(freed)}")


def _described(kept: Kept) -> dict[str, Any]:
    about = kept.about
    common = {"size": kept.size, "created": _time(about["created_ns"]), "used": _time(kept.used_ns)}
    if kept.kind == SAVED:
        what = {name: about[name] for name in ("names", "id", "platform", "storage")}
    else:
        what = {"path": about["path"]}
    return what | common | {"in_use": kept.in_use, "key": kept.key}


def _table(kept: list[Kept]) -> str:
    rows = [("SIZE", "CREATED", "LAST USED", "IN USE", "ID", "PLATFORM", "STORAGE", "IMAGE")]
    for one in kept:
        about = one.about
        is_image = one.kind == SAVED
        identity = about["id"].partition(":")[2][:12] if is_image else "-"
        image = ", ".join(about["names"]) if is_image else about["path"]
        times = (_time(about["created_ns"]), _time(one.used_ns))
        engine = (identity, about.get("platform") or "-", about.get("storage") or "-")
        cells = (_size(one.size), *times, "yes" if one.in_use else "no", *engine, image)
        rows.append(tuple(map(printable, cells)))  # type: ignore[arg-type]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _time(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 10**9))


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
