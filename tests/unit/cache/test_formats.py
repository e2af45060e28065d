"""Entries of other versions of imgfs in one cache, and locks that others hold."""

import fcntl
import hashlib
import json
import os
from pathlib import Path

import pytest

from fusefs.cache import store
from fusefs.cache.sealed_file import FORMAT
from fusefs.cache.store import Cache
from tests.conftest import TakeWarnings
from tests.support.caches import ABOUT, claim, kept, keys, make, refusal

MIB = 1 << 20


def document(about: object) -> bytes:
    """Return a document as the next format may have it."""
    data = json.dumps({"about": about, "members": "in a way of its own"}).encode()
    return b"imgfs cache %d %s\n%s" % (FORMAT + 1, hashlib.sha256(data).hexdigest().encode(), data)


def other(path: Path, key: str, used: int, data: bytes, kind: str = f"saved-{FORMAT + 1}") -> Path:
    """Make the entry *key* of 1 MiB as the next version does, with *data* as its document, used at second *used*."""
    folder = path / kind / key
    folder.mkdir(parents=True)
    (folder / "tar").write_bytes(b"x" * MIB)
    (folder / "index").write_bytes(data)
    os.utime(folder / "index", (used, used))
    return folder


def files(folder: Path) -> list[str]:
    """Return the names in a folder, if it is there."""
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_entries_of_another_version_are_left_alone_and_ours_by_it(path: Path) -> None:
    make(path).close()
    theirs = other(path, "a", 1, document(ABOUT))
    (theirs / "1.layer").write_bytes(b"without a seal")
    assert kept(path)
    make(path, "b").close()
    Cache(str(path)).trim()
    Cache(str(path)).prune(everything=False)
    assert files(theirs) == ["1.layer", "index", "tar"]
    assert keys(path) == ["a", "b"]


def test_they_are_listed_with_what_is_understood_of_them(path: Path) -> None:
    make(path).close()
    other(path, "a", 4, document(ABOUT | {"id": 7, "more": [1]}))
    other(path, "b", 3, document("another way"))
    other(path, "c", 2, b"imgfs cache 99 in another way", kind="files-99")
    other(path, "d", 1, b"")
    mine, *others = Cache(str(path)).entries()
    assert (mine.kind, mine.about, mine.ours) == ("saved", ABOUT, True)
    assert [(one.kind, one.key, one.used_ns // 10**9, one.ours, one.in_use) for one in others] == [
        ("saved-2", "a", 4, False, False), ("saved-2", "b", 3, False, False),
        ("files-99", "c", 2, False, False), ("saved-2", "d", 1, False, False),
    ]  # fmt: skip
    assert [one.about for one in others] == [{key: value for key, value in ABOUT.items() if key != "id"}, {}, {}, {}]
    assert all(one.size >= MIB for one in others)


def test_they_count_and_go_in_their_turn(path: Path) -> None:
    cache = Cache(str(path), 3 * MIB + MIB // 2)
    for number, key in enumerate("ab"):
        make(cache, key, bytes(MIB)).close()
        os.utime(path / "saved" / key / "index", (10 * number, 10 * number + 10))
    oldest, newest = other(path, "x", 5, b""), other(path, "y", 20, document(ABOUT))
    cache.trim()
    assert (keys(path), oldest.exists(), newest.exists()) == (["a", "b"], False, True)
    make(cache, "c", bytes(MIB)).close()
    assert (keys(path), newest.exists()) == (["b", "c"], True)


def test_one_that_is_in_use_stays(path: Path) -> None:
    cache = Cache(str(path), 0)
    theirs = other(path, "x", 1, document(ABOUT))
    user = os.open(theirs, os.O_RDONLY)
    fcntl.flock(user, fcntl.LOCK_SH)
    cache.trim()
    assert cache.prune(everything=True) == 0
    assert [one.in_use for one in cache.entries()] == [True]
    os.close(user)
    assert cache.prune(everything=True) > MIB
    assert not theirs.exists()


@pytest.mark.parametrize("name", ["saved-x", "saved-2.old", "mine", "saved-12345", "saved2"])
def test_other_folders_are_nobodys(path: Path, name: str) -> None:
    make(path).close()
    theirs = other(path, "x", 1, document(ABOUT), kind=name)
    assert [one.kind for one in Cache(str(path)).entries()] == ["saved"]
    Cache(str(path), 0).prune(everything=True)
    assert files(theirs) == ["index", "tar"]


def test_a_lock_on_the_directory_of_the_cache_keeps_nobody_waiting(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
    make(path).close()
    assert kept(path)


def test_a_process_that_keeps_the_lock_ends_the_use_of_the_cache(
    path: Path, monkeypatch: pytest.MonkeyPatch, take_warnings: TakeWarnings
) -> None:
    monkeypatch.setattr(store, "_LOCK_WAIT", 0.05)
    entry = make(path)
    with Cache(str(path)).deciding():
        assert refusal(path) == "another process holds its lock"
        assert entry.room(1) == 0
        entry.later(lambda: None)
    assert take_warnings() == [f"cannot make room in the cache {path}: another process holds its lock"]


def test_a_maker_that_never_ends_is_not_waited_for_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MAKER_WAIT", 0.05)
    maker, _ = claim(path)
    with pytest.raises(TimeoutError, match="another process holds its lock"):
        claim(path)
    maker.abandon()


def test_an_archives_entry_that_somebody_locks_is_not_waited_for(path: Path) -> None:
    cache = Cache(str(path))
    (path / "files" / "k").mkdir()
    fcntl.flock(os.open(path / "files" / "k", os.O_RDONLY), fcntl.LOCK_EX)
    with pytest.raises(TimeoutError):
        cache.archive("k")
