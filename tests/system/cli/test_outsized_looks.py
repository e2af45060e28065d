"""Commands print as they go: their memory does not grow with what they print."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.changesets import changeset, file, hard_link, symlink
from tests.support.mounts import COMMAND

DEPTH, LINKS = 6000, 15000
LONG = symlink("target", "x" * 4095)


def peak(*words: str | Path) -> int:
    """Return the most memory in MiB that the command had, which must succeed."""
    process = subprocess.Popen([COMMAND, *map(str, words), "--no-cache"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss >> 10


@pytest.fixture(name="nested", scope="module")
def nested_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of many directories in each other: their paths are 36 MB."""
    layers = [changeset(file("a/" * DEPTH + "f"))]
    return Archive(layers).write(tmp_path_factory.mktemp("nested") / "nested.tar")


def test_paths_are_not_collected(nested: Path, tmp_path: Path) -> None:
    flat = Archive([changeset(file("f"))]).write(tmp_path / "flat.tar")
    least = peak("ls", flat)
    assert peak("ls", "-R", "--json", nested) < least + 24
    assert peak("ls", "-lR", nested) < least + 24
    assert peak("diff", "--json", flat, nested) < least + 24


def test_targets_of_links_are_not_collected(tmp_path: Path) -> None:
    links = [hard_link(f"{number}", "target") for number in range(LINKS)]
    image = Archive([changeset(LONG, *links)]).write(tmp_path / "links.tar")
    assert peak("ls", "-l", image) < peak("ls", image) + 24  # 61 MB are printed
