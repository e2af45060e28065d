"""Whole trees, to compare with what another program makes of the same image."""

import hashlib
import io
import itertools
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class FileState(NamedTuple):
    """All that can be compared of one file; of a directory's size nothing can."""

    type: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes
    rdev: int
    xattrs: tuple[tuple[str, bytes], ...]
    sha256: str


class Tree(NamedTuple):
    """A whole tree: every file by its path, the root's is ``.``, and which paths are one file."""

    entries: dict[bytes, FileState]
    same: set[frozenset[bytes]]


def tree_at(root: Path, *, overlay: bool = False) -> Tree:
    """Return the tree below *root*; no link is followed.

    *overlay*: leave out names that are listed but not found, as overlayfs lists a whiteout of nothing.
    """
    top = os.fsencode(root)
    os.listdir(top)  # imgfs knows a layer's own attributes once someone has looked in
    entries: dict[bytes, FileState] = {}
    names: dict[tuple[int, int], set[bytes]] = {}
    queue = [b"."]
    for path in queue:  # grows while it is walked
        there = os.path.join(top, path)
        try:
            status = os.lstat(there)
        except FileNotFoundError:
            if not overlay:
                raise
            continue
        entries[path] = _entry(there, status)
        if stat.S_ISDIR(status.st_mode):
            queue += [name if path == b"." else path + b"/" + name for name in os.listdir(there)]
        else:
            names.setdefault((status.st_dev, status.st_ino), set()).add(path)
    return Tree(entries, {frozenset(paths) for paths in names.values() if len(paths) > 1})


def _entry(path: bytes, status: os.stat_result) -> FileState:
    kind = stat.S_IFMT(status.st_mode)
    regular = kind == stat.S_IFREG
    link = kind == stat.S_IFLNK
    names = os.listxattr(path, follow_symlinks=False)
    return FileState(
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if regular or link else 0,
        mtime_ns=status.st_mtime_ns,
        target=os.readlink(path) if link else b"",
        rdev=status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        xattrs=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)),
        sha256=_sha256(path) if regular else "",
    )


def _sha256(path: bytes) -> str:
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


Differences = dict[bytes, dict[str, tuple[Any, Any]]]
"""By path: ours and theirs of each field that differs; ``path`` where only one has it."""


def differences(ours: Mapping[bytes, FileState], theirs: Mapping[bytes, FileState]) -> Differences:
    """Return what differs; the first fifty, which say enough."""
    found = ((path, _difference(ours.get(path), theirs.get(path))) for path in sorted({*ours, *theirs}))
    return dict(itertools.islice(((path, fields) for path, fields in found if fields), 50))


def _difference(ours: FileState | None, theirs: FileState | None) -> dict[str, tuple[Any, Any]]:
    if ours is None or theirs is None:
        return {"path": (ours is not None, theirs is not None)}
    pairs = zip(FileState._fields, ours, theirs, strict=True)
    return {name: (one, other) for name, one, other in pairs if one != other}


def members(layer: Path | bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the normalised path of each member of *layer*, and whether it is a directory."""
    source = io.BytesIO(layer) if isinstance(layer, bytes) else layer.open("rb")
    with source, tarfile.open(fileobj=source) as tar:
        for one in tar:
            yield os.path.normpath(os.fsencode(one.name)), one.isdir()


def touched(layers: Sequence[Path | bytes]) -> dict[bytes, list[bool]]:
    """Return the directories of *layers*, each with whether a layer lists it, for every one that touches it."""
    found: dict[bytes, list[bool]] = {}
    for layer in layers:
        listed: dict[bytes, bool] = {b".": False}
        for path, is_directory in members(layer):
            if is_directory:
                listed[path] = True
            while path := os.path.dirname(path):
                listed.setdefault(path, False)
        for path, explicit in listed.items():
            found.setdefault(path, []).append(explicit)
    return found
