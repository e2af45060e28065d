"""Entries of a cache for the tests, as other processes make and use them."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

from fusefs.cache.entry import CacheEntry
from fusefs.cache.store import Cache

ABOUT = {"names": ["x:1"], "id": "sha256:1", "platform": "", "storage": "", "created_ns": 0}


def claim(path: Path | Cache, key: str = "a") -> tuple[CacheEntry, dict[str, object] | None]:
    """Return what another process gets that asks for *key*."""
    cache = path if isinstance(path, Cache) else Cache(str(path))
    return cache.saved(key, nullcontext)


def make(path: Path | Cache, key: str = "a", data: bytes = b"the tar") -> CacheEntry:
    """Make the entry *key* with *data* as its tar, and use it."""
    entry, facts = claim(path, key)
    assert facts is None
    file = entry.new_file()
    os.write(file, data)
    entry.complete({"about": ABOUT}, file)
    os.close(file)
    return entry


def kept(path: Path, key: str = "a") -> bool:
    """Return whether *key* is kept; then nobody uses it afterwards."""
    entry, facts = claim(path, key)
    (entry.close if facts else entry.abandon)()
    return facts is not None


def fill(path: Path, number: int) -> None:
    """Keep what is known of *number* archives that are no more."""
    entry, _ = Cache(str(path)).archive("0")
    entry.complete({"about": {"path": "/gone.tar", "created_ns": 0}})
    entry.close()
    for key in range(1, number):
        shutil.copytree(path / "files" / "0", path / "files" / str(key))
