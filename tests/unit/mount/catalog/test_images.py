"""Images of a catalog: shared by their directories, and what happens when they cannot be opened."""

from pathlib import Path

import pytest

from fusefs.cli.catalogs.folder import FolderProvider
from fusefs.cli.catalogs.saves import Saves
from fusefs.errors import InvalidImage, Unavailable
from fusefs.mount.catalog.at_once import ListedAtOnce
from fusefs.mount.catalog.images import CatalogImage, Images
from fusefs.mount.catalog.provider import Listed
from tests.support.builders import Archive
from tests.support.conformance import SETTINGS


def provider_of(folder: Path) -> tuple[ListedAtOnce, Listed]:
    """Return the provider of a folder with one archive, and that archive."""
    Archive().write(folder / "a.tar")
    lister = FolderProvider(str(folder), SETTINGS, None, Saves(1))
    listing = lister.listing()
    return ListedAtOnce(lister, listing), listing.images[0]


def test_two_names_of_an_image_share_it_before_anyone_has_looked_into_them(tmp_path: Path) -> None:
    provider, listed = provider_of(tmp_path)
    images = Images(provider)
    first, second = images.image(listed), images.image(listed._replace(path=(b"other",)))
    assert first is second
    images.enter(first)
    opened = second.open()
    assert first.open() is opened
    images.enter(second)
    images.leave(first)
    assert first.is_open
    images.leave(second)
    assert not first.is_open


def test_an_image_whose_view_fails_is_one_that_cannot_be_opened(tmp_path: Path) -> None:
    provider, listed = provider_of(tmp_path)
    now = 0.0
    image = CatalogImage(listed, provider, lambda: now)
    image.open()
    message = r"^cannot open a\.tar: no view$"
    with pytest.raises(Unavailable, match=message), image.failing():
        raise InvalidImage("no view")
    assert image.error == "no view"
    with pytest.raises(Unavailable, match=message):
        image.open()
    now = 3.0
    image.open()
    with image.failing():
        pass
    assert image.error == ""
