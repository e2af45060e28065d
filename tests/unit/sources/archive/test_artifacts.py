"""Artifacts, and image configs over layers that are no tar: shown as far as they can be."""

import gzip
import json
from pathlib import Path

import pytest

from fusefs.errors import InvalidImage, Unavailable
from fusefs.image.opened import Opened
from fusefs.progress import Silent
from fusefs.sources import open_image
from tests.support.builders import COMPRESSIONS, LAYERS, archive_of, image_config, member, sha256
from tests.support.conformance import SETTINGS, check_image, opened, refusal, stored
from tests.support.layouts import Json, Layout, saved_layout

pytestmark = pytest.mark.usefixtures("in_tmp_path")
TAR = LAYERS[0]
EMPTY_CONFIG = b"{}"
OTHER_TYPE = "application/vnd.example.thing"


def with_layer(data: bytes, media_type: str, config: bytes | None = None, config_type: str = "config") -> Layout:
    """Return a layout of one image with a layer of this media type; its config has the diffID of *data*."""
    layout = Layout()
    described = None if config is None else layout.blob(config_type, config)
    layout.list(layout.image([data], config=described, stored=[layout.blob(media_type, data)]), "1").write("dir")
    Path("x.tar").write_bytes(layout.tar())
    return layout


@pytest.mark.parametrize("data", [b'{"critical":{}}', bytes(range(256)) * 4, b"hsqs" + bytes(600), b"\x1f\x8b broken"])
@pytest.mark.parametrize("media_type", [OTHER_TYPE, "application/vnd.oci.image.layer.v1.tar+encrypted", ""])
def test_a_layer_that_is_no_tar_is_a_blob_only(data: bytes, media_type: str) -> None:
    with_layer(data, media_type)
    for argument in ("./dir", "./x.tar"):
        with opened(argument) as image:
            check_image(image)
            (layer,) = image.layers
            assert (stored(layer), layer.readable, layer.compression) == (data, False, None)
            assert image.why_no_rootfs == f"layer 0 ({media_type}) is not a tar"
            assert not image.artifact


@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
def test_a_tar_with_another_media_type_is_a_layer(compression: str | None) -> None:
    layout = Layout()
    data = TAR if compression is None else COMPRESSIONS[compression](TAR)
    stored_layer = layout.blob("application/vnd.docker.image.rootfs.diff.tar+zstd", data)
    layout.list(layout.image([TAR], stored=[stored_layer]), "1").write("dir")
    with opened("./dir") as image:
        check_image(image)
        assert [layer.readable for layer in image.layers] == [True]
        assert image.why_no_rootfs == ""


def test_a_tar_by_its_media_type_is_not_hidden_for_its_damage() -> None:
    with_layer(b"garbage", "layer")
    with opened("./dir") as image:
        assert [layer.readable for layer in image.layers] == [True]


@pytest.mark.parametrize(
    ("config", "config_type"),
    [(b"{}", "config"), (b"{}", "application/vnd.oci.empty.v1+json"), (b"no JSON", OTHER_TYPE), (b"[]", OTHER_TYPE)],
)
def test_what_has_no_image_config_is_an_artifact(config: bytes, config_type: str) -> None:
    with_layer(TAR, "layer", config, config_type)
    with opened("./dir") as image:
        check_image(image)
        assert (image.artifact, [layer.readable for layer in image.layers]) == (True, [False])
        assert image.config.content.data == config
        assert image.why_no_rootfs.startswith("it is an artifact, its config is application/vnd.")


def test_an_image_config_with_another_media_type_is_one() -> None:
    with_layer(TAR, "layer", image_config([TAR]), OTHER_TYPE)
    with opened("./dir") as image:
        check_image(image)
        assert [layer.readable for layer in image.layers] == [True]


def test_without_diff_ids_layers_are_blobs() -> None:
    with_layer(gzip.compress(TAR, mtime=0), "gzip", image_config([]))
    with opened("./dir") as image:
        check_image(image)
        assert [layer.readable for layer in image.layers] == [False]
        assert image.why_no_rootfs == "its config states no diffIDs"


def artifact(layout: Layout) -> Json:
    """Put an artifact of one file in, with an empty object as its config."""
    title = {"org.opencontainers.image.title": "chart.tgz"}
    file = layout.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart", annotations=title)
    return layout.image([], config=layout.blob("application/vnd.cncf.helm.config.v1+json", b"{}"), stored=[file])


def test_a_saved_artifact_is_shown_with_its_stored_manifest() -> None:
    layout = Layout()
    described = artifact(layout)
    layout.list(described, "1", **{"io.containerd.image.name": "docker.io/test/image:1"})
    Path("x.tar").write_bytes(saved_layout(layout, described))
    for argument in ("./x.tar", "docker-archive:x.tar:test/image:1"):
        with opened(argument) as image:
            check_image(image)
            assert str(image.manifest.descriptor.digest) == described["digest"]
            assert (image.artifact, [stored(layer) for layer in image.layers]) == (True, [b"chart"])


def test_an_archive_whose_config_is_no_image_config_needs_a_stored_manifest() -> None:
    listed = [{"Config": "c", "RepoTags": None, "Layers": ["l"]}]
    parts = {"c": b"{}", "l": TAR, "manifest.json": json.dumps(listed).encode()}
    Path("x.tar").write_bytes(archive_of(*(member(name, data) for name, data in parts.items())))
    assert refusal("./x.tar") == (InvalidImage, "./x.tar: c has no rootfs: it is null or missing")


def test_an_artifact_has_no_root_file_system() -> None:
    layout = Layout()
    layout.list(artifact(layout), "1").write("dir")
    found = Opened(open_image("oci:dir", SETTINGS), "/nonexistent", Silent())
    why = "it is an artifact, its config is application/vnd.cncf.helm.config.v1+json"
    with pytest.raises(Unavailable, match=rf"^oci:dir has no root file system: {why.replace('+', '.')}$"):
        found.rootfs()
    found.close()


@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
def test_a_layer_of_no_bytes_is_an_empty_layer(tmp_path: Path, compression: str | None) -> None:
    layout = Layout()
    layout.list(layout.image([TAR, b""], compression), "1").write("dir")
    found = Opened(open_image("oci:dir", SETTINGS), str(tmp_path), Silent())
    assert str(found.image.layers[1].diff_id) == sha256(b"")
    assert [*found.layer(1).listing(0)] == []
    assert [*found.rootfs().listing(0)] != []
    found.close()


def test_an_image_without_layers_is_an_empty_root_file_system(tmp_path: Path) -> None:
    layout = Layout()
    layout.list(layout.image([]), "1").write("dir")
    found = Opened(open_image("oci:dir", SETTINGS), str(tmp_path), Silent())
    check_image(found.image)
    assert [*found.rootfs().listing(0)] == []
    assert found.index() != []
    found.close()
