"""Where a cache may be, and where it refuses to be."""

import os
from pathlib import Path

import pytest

from fusefs.cache.store import Cache
from tests.support.caches import claim, kept, make, refusal


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720, 0o1777])
def test_a_directory_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)
    assert refusal(path) == "other users may write there"
    assert os.listdir(path) == []


def test_a_symbolic_link_is_refused(path: Path) -> None:
    (path.parent / "real").mkdir()
    path.symlink_to("real")
    assert refusal(path) == "it is a symbolic link"
    path.unlink()
    path.symlink_to("dangling")
    assert refusal(path) == "it is a symbolic link"


def test_a_directory_with_something_else_in_it_is_refused(path: Path) -> None:
    (path / "saved").mkdir(parents=True)
    assert refusal(path) == "it is not empty and not a cache of imgfs"
    (path / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# another program\n")
    assert refusal(path) == "it is not empty and not a cache of imgfs"


def test_a_file_is_refused_and_so_is_what_is_below_it(path: Path) -> None:
    path.touch()
    assert refusal(path) == "Not a directory"
    assert refusal(path / "below") in ("Not a directory", "File exists")


def test_a_link_in_the_place_of_a_folder_is_not_followed(path: Path) -> None:
    make(path).close()
    victim = path.parent / "victim"
    (path / "saved").rename(victim)
    (path / "saved").symlink_to(victim)
    assert refusal(path) in ("Not a directory", "Too many levels of symbolic links")


def test_a_link_in_the_place_of_an_entry_is_not_followed(path: Path) -> None:
    make(path).close()
    victim = path.parent / "victim"
    (path / "saved" / "a").rename(victim)
    (path / "saved" / "a").symlink_to(victim)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        claim(path)
    Cache(str(path)).prune(everything=True)
    assert sorted(os.listdir(victim)) == ["index", "tar"]


def test_a_directory_of_ones_own_may_be_there_already(path: Path) -> None:
    path.mkdir(0o755)
    make(path)
    assert kept(path)
