"""Entries of a cache for the tests, as other processes make and use them."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from fusefs.cache.entry import CacheEntry
from fusefs.cache.store import Cache
from fusefs.errors import NoSpace

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


def layer(entry: CacheEntry, name: str = "1.layer", data: bytes = b"index") -> None:
    """Keep a file besides the tar."""
    file = entry.new_file()
    os.write(file, data)
    entry.add(name, file)
    os.close(file)


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


def keys(path: Path) -> list[str]:
    """Return the keys of what there is."""
    return sorted(os.listdir(path / "saved"))


def refusal(path: Path) -> str:
    """Return why no cache can be at *path*, without what every such message says."""
    with pytest.raises(NoSpace) as caught:
        Cache(str(path))
    message = str(caught.value)
    end = "; choose another directory with --cache-dir, or --no-cache"
    assert message.startswith(f"cannot use the cache {path}: ")
    assert message.endswith(end)
    return message.removeprefix(f"cannot use the cache {path}: ").removesuffix(end)
