"""An archive that changes: what was indexed of it is not what is there."""

import os
from pathlib import Path

import pytest

from fusefs.errors import Unavailable
from fusefs.image.lazy_layers import Layers
from tests.support.builders import Archive, layer
from tests.support.conformance import opened


def test_an_archive_that_has_changed_when_its_layer_is_indexed_has_no_index(tmp_path: Path) -> None:
    path = Archive(layers=[layer({"old": b"1"})]).write(tmp_path / "image.tar")
    os.utime(path, ns=(10**18, 10**18))
    with opened(str(path)) as image:
        layers = Layers(image, str(tmp_path))
        data = path.read_bytes().replace(b"old\0", b"new\0")
        with path.open("r+b") as file:
            file.write(Archive(layers=[layer({"new": b"1"})]).data()[: len(data)])
        with pytest.raises(Unavailable, match="was changed while it is in use"):
            layers.files(image.layers[0])
