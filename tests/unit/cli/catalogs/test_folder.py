"""The images in a folder."""

import json
import os
from pathlib import Path

import pytest

from fusefs.cli.catalogs.folder import FolderProvider
from fusefs.cli.catalogs.saves import Saves
from fusefs.errors import Unavailable
from tests.support.builders import LAYERS, Archive, archive_of, member
from tests.support.conformance import SETTINGS, open_descriptors


def test_a_file_that_takes_the_place_of_a_listed_one_is_not_its_image(tmp_path: Path) -> None:
    Archive().write(tmp_path / "a.tar")
    provider = FolderProvider(str(tmp_path), SETTINGS, None, Saves(1))
    (listed,) = provider.listing().images
    before = open_descriptors()
    Archive(layers=LAYERS[:1]).write(tmp_path / "b")
    os.replace(tmp_path / "b", tmp_path / "a.tar")
    with pytest.raises(Unavailable, match=r"^a\.tar was replaced or written to$") as caught:
        provider.open(listed)
    del caught
    assert open_descriptors() <= before


def test_a_name_in_a_file_makes_a_limited_number_of_directories(tmp_path: Path) -> None:
    first, second = Archive(tags=["x/" * 100_000 + "y"]), Archive(layers=LAYERS[:1], tags=["b:1"])
    parts = dict.fromkeys([*first.blobs(), *second.blobs()])
    manifest = member("manifest.json", json.dumps([first.item(), second.item()]).encode())
    (tmp_path / "a.tar").write_bytes(archive_of(*parts, manifest))
    provider = FolderProvider(str(tmp_path), SETTINGS, None, Saves(1))
    with pytest.raises(Unavailable):
        provider.open(provider.listing().images[0])
    depths = [len(listed.path) for listed in provider.listing().images]
    assert depths == [1 + 512 + 1, 2]
