"""Where a cache may be, and where it refuses to be."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.cache.store import Cache
from fusefs.errors import NoSpace
from tests.support.caches import claim, kept, make
from tests.support.conformance import closing_what_is_opened
from tests.support.file_systems import tmpfs
from tests.support.requirements import ROOT, need


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


@pytest.fixture(name="path")
def cache_path(tmp_path: Path) -> Path:
    """Where the cache is to be."""
    return tmp_path / "cache"


def _refusal(path: Path) -> str:
    with pytest.raises(NoSpace) as caught:
        Cache(str(path))
    message = str(caught.value)
    end = "; choose another directory with --cache-dir, or --no-cache"
    assert message.startswith(f"cannot use the cache {path}: ")
    assert message.endswith(end)
    return message.removeprefix(f"cannot use the cache {path}: ").removesuffix(end)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720, 0o1777])
def test_a_directory_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)
    assert _refusal(path) == "others may write there"
    assert os.listdir(path) == []


def test_a_directory_of_someone_else_is_refused(path: Path) -> None:
    need(ROOT)
    path.mkdir(0o700)
    os.chown(path, 1234, 0)
    assert _refusal(path) == "it belongs to another user"


def test_a_symbolic_link_is_refused(path: Path) -> None:
    (path.parent / "real").mkdir()
    path.symlink_to("real")
    assert _refusal(path) == "it is a symbolic link"
    path.unlink()
    path.symlink_to("dangling")
    assert _refusal(path) == "it is a symbolic link"


def test_a_directory_with_something_else_in_it_is_refused(path: Path) -> None:
    (path / "saved").mkdir(parents=True)
    assert _refusal(path) == "it is not empty, and no cache of imgfs"
    (path / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# another program\n")
    assert _refusal(path) == "it is not empty, and no cache of imgfs"


def test_a_file_is_refused_and_so_is_what_is_below_it(path: Path) -> None:
    path.touch()
    assert _refusal(path) == "Not a directory"
    assert _refusal(path / "below") in ("Not a directory", "File exists")


def test_a_link_in_the_place_of_a_folder_is_not_followed(path: Path) -> None:
    make(path).close()
    victim = path.parent / "victim"
    (path / "saved").rename(victim)
    (path / "saved").symlink_to(victim)
    assert _refusal(path) in ("Not a directory", "Too many levels of symbolic links")


def test_a_link_in_the_place_of_an_entry_is_not_followed(path: Path) -> None:
    make(path).close()
    victim = path.parent / "victim"
    (path / "saved" / "a").rename(victim)
    (path / "saved" / "a").symlink_to(victim)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        claim(path)
    Cache(str(path)).prune(everything=True)
    assert sorted(os.listdir(victim)) == ["index", "tar"]


def test_a_file_system_that_is_read_only_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with tmpfs(folder):
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        assert _refusal(folder / "cache") == "Read-only file system"


def test_a_directory_of_ones_own_may_be_there_already(path: Path) -> None:
    path.mkdir(0o755)
    make(path)
    assert kept(path)
