"""Layers that are kept elsewhere, and what is no image at all."""

import json
from pathlib import Path

import pytest

from tests.conftest import TakeWarnings
from tests.support.builders import LAYERS, sha256
from tests.support.conformance import check_image, opened, stored
from tests.support.layouts import Layout

LAYER = sha256(LAYERS[1])

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def foreign(kind: str, media_type: str, *, urls: bool = True, there: bool = False) -> Layout:
    """Return a layout whose second layer is a foreign one."""
    layout = Layout(kind=kind)
    more = {"urls": ["https://example.org/layer"]} if urls else {}
    second = layout.blob(media_type, LAYERS[1], **more)
    layout.list(layout.image(LAYERS[:2], stored=[layout.blob("layer", LAYERS[0]), second]), "1")
    if not there:
        layout.remove(second)
    return layout


FOREIGN = {
    "oci": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "docker": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_layer_need_not_be_stored(take_warnings: TakeWarnings, kind: str) -> None:
    foreign(kind, FOREIGN[kind]).write("dir")
    with opened("oci:dir") as image:
        assert take_warnings() == [f"dir: layer 1 {LAYER} is a foreign layer and not stored"]
        check_image(image)
        assert [layer.content is None for layer in image.layers] == [False, True]
        listed = json.loads(image.oci_manifest.content.data)["layers"][1]
        # As containers/image converts it: what reads the mountpoint has to know that it is not there, and where it is.
        assert listed == {
            "mediaType": FOREIGN["oci"],
            "digest": sha256(LAYERS[1]),
            "size": len(LAYERS[1]),
            "urls": ["https://example.org/layer"],
        }


def test_a_foreign_layer_that_is_stored_is_shown() -> None:
    foreign("oci", "application/vnd.oci.image.layer.nondistributable.v1.tar", there=True).write("dir")
    with opened("oci:dir") as image:
        check_image(image)
        assert [stored(layer) for layer in image.layers] == list(LAYERS[:2])


@pytest.mark.parametrize("media_type", [FOREIGN["oci"], "layer", "gzip"])
def test_a_sparse_layout_shows_all_but_the_layer_that_is_not_stored(
    take_warnings: TakeWarnings, media_type: str
) -> None:
    Path("x.tar").write_bytes(foreign("oci", media_type, urls=False).tar())
    with opened("./x.tar") as image:
        assert take_warnings() == [f"./x.tar: layer 1 {LAYER} is not stored"]
        check_image(image)
        assert [layer.content is None for layer in image.layers] == [False, True]


@pytest.mark.parametrize("data", [b"{}", b"not JSON"])
def test_an_artifact_shows_its_config_and_has_no_diff_ids(data: bytes) -> None:
    layout = Layout()
    files = [layout.blob("text/plain", b"hello"), layout.blob("application/x-thing", b"\x1f\x8b\x08")]
    layout.list(layout.image(stored=files, config=layout.blob("application/vnd.example+json", data)), "1").write("dir")
    with opened("oci:dir") as image:
        check_image(image)
        assert image.config.content.data == data
        assert [(layer.diff_id, stored(layer)) for layer in image.layers] == [(None, b"hello"), (None, b"\x1f\x8b\x08")]
        assert (image.platform, image.created_ns, image.tag) == (None, 0, "1")
