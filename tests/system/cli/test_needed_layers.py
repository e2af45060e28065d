"""One file of an image is read without decompressing the layers below its own."""

from pathlib import Path

import pytest

from tests.support.builders import Archive, compressed, image_config
from tests.support.changesets import changeset, file, folder, symlink, whiteout
from tests.support.looks import imgfs, printed, refused

BASE = changeset(folder("etc"), file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), file("etc/base", b"base\n"))
MIDDLE = changeset(folder("etc"), file("etc/motd", b"middle\n"), file("etc/passwd", b"me:x:0:0::/:/bin/sh\n"))
TOP = changeset(symlink("motd", "etc/motd"), file("top", b"top\n"), whiteout("etc/base"))
LAYERS = (BASE, MIDDLE, TOP)


@pytest.fixture
def image(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return an archive with gzip layers, of which so many of the lowest are damaged: an error if they are read."""
    damaged: int = request.param
    stored = [compressed(layer, "gzip") for layer in LAYERS]
    stored[:damaged] = [data[:-1] for data in stored[:damaged]]
    return Archive(stored, config=image_config(LAYERS)).write(tmp_path / "image.tar")


@pytest.mark.parametrize("image", [2], indirect=True)
def test_only_the_top_layer_is_decompressed(image: Path, tmp_path: Path) -> None:
    for cache in (["--no-cache"], ["--cache-dir", tmp_path / "cache"], ["--cache-dir", tmp_path / "cache"]):
        assert printed("cat", *cache, f"{image}:/top") == ["top"]
        assert printed("ls", *cache, f"{image}:/top") == ["/top"]
        assert printed("ls", "-ln", *cache, f"{image}:/motd")[0].endswith(" /motd -> etc/motd")
        assert refused("cat", *cache, f"{image}:/etc/base")[0] == 4
        assert refused("cat", *cache, f"{image}:/etc/motd")[0] == 5
        assert refused("ls", *cache, image)[0] == 5


@pytest.mark.parametrize("image", [1], indirect=True)
def test_links_and_names_of_accounts_need_the_layers_that_have_them(image: Path) -> None:
    assert printed("cat", f"{image}:/motd") == ["middle"]
    assert printed("cat", f"{image}:/etc/../motd") == ["middle"]
    assert refused("ls", "-l", f"{image}:/top")[0] == 5  # no known layer has /etc/group
    assert refused("cat", f"{image}:/no")[0] == 5


@pytest.mark.parametrize("image", [0], indirect=True)
def test_a_whole_image_is_as_before(image: Path) -> None:
    assert printed("ls", image) == ["etc", "motd", "top"]
    assert printed("ls", f"{image}:/etc") == ["motd", "passwd"]
    assert imgfs("ls", "-l", f"{image}:/top").out.split()[2] == "me"
    assert refused("cat", f"{image}:/no")[0] == 4
