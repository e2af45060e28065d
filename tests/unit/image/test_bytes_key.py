"""Keys of layers: equal ones stand for equal bytes, so a digest that was only stated is none."""

import gzip
import shutil
from collections.abc import Hashable
from pathlib import Path

import pytest

from fusefs.errors import Unavailable
from fusefs.image.lazy_layers import Layers
from fusefs.image.model import Image
from fusefs.oci.digest import DiffID, Digest
from fusefs.sources.settings import Settings
from tests.support.builders import LAYERS, Archive, compressed, image_config, two_images
from tests.support.changesets import changeset, file
from tests.support.conformance import SETTINGS, opened
from tests.support.images import image_of
from tests.support.layouts import Layout

VERIFYING = SETTINGS._replace(verify=True)

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def _keys(image: Image) -> list[Hashable]:
    layers = Layers(image, ".")
    found = [layers.bytes_key(layer) for layer in layers.stack]
    layers.close()
    return found


def _keys_of(name: str, settings: Settings = SETTINGS) -> list[Hashable]:
    with opened(name, settings) as image:
        return _keys(image)


def test_a_stated_digest_is_no_key_and_the_place_in_one_file_is() -> None:
    Path("x.tar").write_bytes(two_images())
    shutil.copy("x.tar", "copy.tar")
    first, second = _keys_of("docker-archive:x.tar:@0"), _keys_of("docker-archive:x.tar:@1")
    assert first[:1] == second
    assert first[1] == first[3]  # one layer, twice
    assert len(set(first)) == 3
    assert not set(first) & set(_keys_of("docker-archive:copy.tar:@0"))


def test_a_checked_digest_is_a_key() -> None:
    plain = Archive().write(Path("x.tar"))
    Path("x.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    stored = [compressed(data, "gzip") for data in LAYERS]
    Archive(stored, config=image_config(LAYERS), config_name="c").write(Path("gzip.tar"))
    digests = [Digest.of([data]) for data in LAYERS]
    assert _keys_of("./x.tar", VERIFYING) == digests
    assert _keys_of("./x.tar.gz", SETTINGS._replace(tmpdir=".")) == digests
    assert _keys_of("./gzip.tar") == digests  # compared when it is decompressed
    assert not set(_keys_of("./x.tar")) & set(digests)


def test_blobs_of_one_directory_are_the_same_in_two_images() -> None:
    layout = Layout()
    layout.list(layout.image(), "1").list(layout.image(LAYERS[:1], "gzip"), "2").list(layout.image(LAYERS[2:3]), "3")
    layout.write("one")
    layout.write("other")
    first = _keys_of("oci:one:1")
    assert _keys_of("oci:one:2") == [Digest.of([LAYERS[0]])]
    assert _keys_of("oci:one:3") == first[2:3]
    assert not set(first) & set(_keys_of("oci:other:1"))


def test_the_diff_id_of_a_plain_layer_is_no_key_if_its_digest_has_another_algorithm() -> None:
    data = changeset(file("x"))
    with image_of(data) as image:
        lie = DiffID(Digest.of([b"another tar"], "sha512"))
        layers = tuple(layer._replace(diff_id=lie) for layer in image.layers)
        assert _keys(image._replace(layers=layers, verified=True)) == [Digest.of([data])]


def test_a_file_that_has_changed_has_no_key() -> None:
    path = Archive().write(Path("x.tar"))
    with opened("./x.tar") as image:
        first = _keys(image)
        with path.open("r+b") as written:
            written.write(path.read_bytes()[:1])
        with pytest.raises(Unavailable, match="was changed while it is in use"):
            _keys(image)
    assert not set(first) & set(_keys_of("./x.tar"))
