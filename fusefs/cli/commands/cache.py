"""imgfs cache: list the cache, and remove from it."""

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusefs.cache.location import unusable
from fusefs.cache.store import BLOBS, DEFAULT_LIMIT, FILES, SAVED, TAGS, Cache
from fusefs.cache.survey import ListedEntry
from fusefs.cli.output.ages import age, local_time
from fusefs.cli.output.messages import log_to_stderr
from fusefs.cli.output.stdout import BOLD, Output, human_size
from fusefs.cli.output.tables import cut_beginning, table
from fusefs.errors import MountError, Unavailable, UsageError
from fusefs.oci.reference import same_image
from fusefs.oci.transport import Holder, transport_of
from fusefs.sources.caching import cache_folder
from fusefs.text import listing, printable

_SHORT = 12
"""Characters of an image ID that are shown, as in docker."""
_ENGINE = 4
"""The column of the engine, which a terminal has if it says something."""
_LEAST_DIGITS = 4
"""Digits of an image ID that are enough to name it."""
_KINDS = {Holder.ENGINE: (SAVED,), Holder.REGISTRY: (BLOBS, TAGS), Holder.FILE: (FILES,)}
"""The kinds of entries of an image with a transport; those of other formats have a number after it."""
_SOCKETS = {"docker.sock": "docker", "podman.sock": "podman"}
"""Sockets of engines, and what to call these."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """List cache entries, remove some, or print the path of the cache."""
    log_to_stderr()
    output = Output(environment)
    path, _ = cache_folder(arguments.cache_dir, environment)
    with _using(path):
        match arguments.action:
            case "path":
                output.raw(os.fsencode(path) + b"\n")  # unchanged, for scripts
            case "list":
                _list(path, arguments, output)
            case "rm":
                _remove(path, arguments.images, output)
            case "prune":
                _prune(path, arguments, output)
    output.finish()


@contextlib.contextmanager
def _using(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from None


def _limit(arguments: argparse.Namespace) -> int:
    return DEFAULT_LIMIT if arguments.cache_size is None else int(arguments.cache_size)


def _entries(path: str, *, silent: bool = False) -> list[ListedEntry]:
    """Return the entries of the cache at *path*; a missing one has none, and is not created."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return []
    return Cache(path).entries(silent=silent)


def _list(path: str, arguments: argparse.Namespace, output: Output) -> None:
    entries = _entries(path)
    if arguments.json:
        output.json([_json(entry) for entry in entries])
        return
    if arguments.wide:
        header = ("ID", "PLATFORM", "SIZE", "LAST USED", "IN USE", "ENGINE", "IMAGE")
        lines = table([header, *map(_wide_row, entries)], (2,))
    else:
        rows = [("ID", "SIZE", "USED", "IN USE", "ENGINE", "IMAGE"), *map(_row, entries)]
        shorter = {printable(_image(entry)): printable(_place(entry)) for entry in entries}

        def cut(image: str, width: int) -> str:
            return image if len(image) <= width else cut_beginning(shorter.get(image, image), width)

        if output.columns is not None and not any(entry.about.get("engine") for entry in entries):
            rows = [(*row[:_ENGINE], *row[_ENGINE + 1 :]) for row in rows]
        lines = table(rows, (1,), output.columns, {len(rows[0]) - 1: cut})
    output.line(output.styled(lines[0], BOLD))
    for line in lines[1:]:
        output.line(line)
    count, size = _count(entries), human_size(sum(entry.size for entry in entries))
    output.line(f"{count}, {size}, of at most {human_size(_limit(arguments))}")


def _count(entries: Sequence[ListedEntry]) -> str:
    return f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"


def _row(entry: ListedEntry) -> tuple[str, ...]:
    about = entry.about
    engine = str(about.get("engine") or "")
    return tuple(
        printable(cell) or "-"
        for cell in (
            about.get("id", "").partition(":")[2][:_SHORT],
            human_size(entry.size),
            age(time.time() - entry.used_ns / 1e9),
            "yes" if entry.in_use else "no",
            _SOCKETS.get(engine.rpartition("/")[2], engine) if engine.startswith("unix:") else engine,
            _image(entry),
        )
    )


def _wide_row(entry: ListedEntry) -> tuple[str, ...]:
    about = entry.about
    return tuple(
        printable(cell) or "-"
        for cell in (
            about.get("id", "").partition(":")[2][:_SHORT],
            about.get("platform") or "",
            human_size(entry.size),
            local_time(entry.used_ns // 10**9),
            "yes" if entry.in_use else "no",
            about.get("engine") or "",
            _image(entry),
        )
    )


def _image(entry: ListedEntry) -> str:
    """Return the names of an image, the path of an archive, or the repository and the media type of a blob."""
    details = [entry.about["mediaType"]] if entry.about.get("mediaType") else []
    if entry.part is not None:
        details.append(f"{human_size(entry.part.present)} of {human_size(entry.part.total)}")
    return _named(entry, details)


def _place(entry: ListedEntry) -> str:
    """Return `_image` for few columns: the repository of a blob, and the part of it that is there."""
    part = entry.part
    return _named(entry, [] if part is None else [f"{100 * part.present // part.total}%"])


def _named(entry: ListedEntry, details: Sequence[str]) -> str:
    about = entry.about
    image = ", ".join(about.get("names") or [about.get("path") or "-"])
    if details:
        image += f" ({', '.join(details)})"
    return image if entry.ours else f"{image} (of another version of imgfs)"


def _json(entry: ListedEntry) -> dict[str, Any]:
    about = entry.about
    what = {name: about.get(name) for name in ("names", "id", "platform", "storage", "path", "mediaType")}
    times = {"created": _time(about.get("created_ns", 0)), "used": _time(entry.used_ns)}
    state = {"inUse": entry.in_use, "key": entry.key, "usable": entry.ours, "engine": about.get("engine")}
    part = None if entry.part is None else {"present": entry.part.present, "total": entry.part.total}
    return what | {"size": entry.size} | times | state | {"part": part}


def _time(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 10**9))


def _remove(path: str, images: Sequence[str], output: Output) -> None:
    """Remove what is cached of *images*; Unavailable if there is nothing, MountError if one is in use."""
    from fusefs.sources.registry.removal import CachedImages  # noqa: PLC0415 - the other actions need none of it

    if not images:
        raise UsageError("IMAGE is missing; imgfs cache list lists what can be removed")
    entries = _entries(path)
    if not entries:
        raise _not_cached(images[0])
    cache = Cache(path)
    cached = CachedImages(cache, entries)
    asked: list[ListedEntry] = []
    for image in images:
        found = [entry for entry in entries if _is_of(entry, image)]
        if not found:  # a name as the list shows it: docker://REPOSITORY
            found = [entry for entry in entries if image in (entry.about.get("names") or ())]
            if not found:
                raise _not_cached(image)
            own = cached.own((entry.kind, entry.key) for entry in found)
            found = [entry for entry in found if (entry.kind, entry.key) in own]
        asked += found
    doomed = cached.removable((entry.kind, entry.key) for entry in asked)
    output.line(f"freed {human_size(cache.remove(doomed))}")
    if used := [printable(_image(entry)) for entry in asked if (entry.kind, entry.key) not in doomed]:
        output.finish()
        raise MountError(f"kept {listing(used, ', ')}: a mount or a command uses it; imgfs list lists the mounts")


def _not_cached(image: str) -> Unavailable:
    return Unavailable(f"nothing is cached of {printable(image)}; imgfs cache list lists what is")


def _is_of(entry: ListedEntry, image: str) -> bool:
    """Return whether *entry* is of the image that a user calls *image*."""
    about = entry.about
    transport = transport_of(image)
    name = image.removeprefix(transport.prefix) if transport else image
    digits = name.removeprefix("sha256:")
    digest = name.partition("@")[2]
    if transport is not None and entry.kind.partition("-")[0] not in _KINDS.get(transport.holder, ()):
        return False
    if about.get("path") is not None:
        return bool(about["path"] == os.path.abspath(name))
    return (
        any(same_image(name, known) or known == name for known in about.get("names") or ())
        or (len(digits) >= _LEAST_DIGITS and about.get("id", "").partition(":")[2].startswith(digits))
        or (digest != "" and entry.kind == BLOBS and about["id"] == digest)
        or entry.key == name
    )


def _prune(path: str, arguments: argparse.Namespace, output: Output) -> None:
    limit, everything = _limit(arguments), arguments.all
    if arguments.dry_run:
        kept = _shown_removals(path, limit, output, everything=everything)
    else:
        freed = Cache(path, limit).prune(everything=everything) if os.path.lexists(path) else 0
        output.line(f"freed {human_size(freed)}")
        kept = _entries(path, silent=True)  # `prune` has warned
    for used, why in ((True, "in use"), (False, f"within the limit of {human_size(limit)}; --all removes them")):
        stay = [entry for entry in kept if entry.in_use is used]
        if stay:
            output.line(f"kept {_count(stay)}, {human_size(sum(entry.size for entry in stay))}: {why}")


def _shown_removals(path: str, limit: int, output: Output, *, everything: bool) -> list[ListedEntry]:
    """Print what `_prune` would remove; return the entries as they would be after it."""
    removals = Cache(path, limit).prunable(everything=everything) if os.path.lexists(path) else []
    kept = {(entry.kind, entry.key): entry for entry in _entries(path, silent=True)}
    for (kind, key, *_), size, names in removals:
        entry = kept.pop((kind, key), None)
        shown = "a broken or incomplete entry" if entry is None else printable(_image(entry))
        if entry is not None and names is not None:
            shown = f"the incomplete files of {shown}"
            kept[kind, key] = entry._replace(size=entry.size - size)
        output.line(f"would remove {shown} ({human_size(size)})")
    output.line(f"would free {human_size(sum(removal.size for removal in removals))}")
    return list(kept.values())
