"""OCI image layouts: what is shown of an image, and where its blobs and documents lie."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.errors import InvalidImage
from fusefs.oci.digest import Digest
from fusefs.oci.documents import DOCKER_MANIFEST, OCI_MANIFEST
from tests.support.builders import COMPRESSIONS, CREATED_NS, DECOMPRESSIONS, LAYERS, archive_of, member
from tests.support.conformance import SETTINGS, check_image, open_descriptors, opened, refusal, stored
from tests.support.layouts import HOST, IMAGE_LAYOUTS, Layout, two_platforms
from tests.support.named_images import A, B, layers_of, named

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.mark.parametrize("argument", ["oci:dir", "oci:dir:1", "./dir", "oci-archive:x", "oci-archive:x:1", "./x"])
@pytest.mark.parametrize("build", IMAGE_LAYOUTS.values(), ids=IMAGE_LAYOUTS.keys())
def test_every_layout_shows_the_stored_image(build: Callable[[], Layout], argument: str) -> None:
    layout = build()
    layout.write("dir")
    Path("x").write_bytes(layout.tar())
    with opened(argument) as image:
        check_image(image)
        plain = [DECOMPRESSIONS[one.compression.value](stored(one)) if one.compression else stored(one)
                 for one in image.layers]  # fmt: skip
        assert plain == list(LAYERS)
        assert image.manifest.content.data in layout.files.values()
        assert image.config.content.data in layout.files.values()
        assert (image.name, image.tag, image.platform, image.created_ns) == (argument, "1", HOST, CREATED_NS)


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_every_index_on_the_way_is_a_document_of_the_image(kind: str) -> None:
    layout, index, own, _ = two_platforms(kind)
    outer = layout.index(index)
    layout.list(outer, "1").write("dir")
    with opened("oci:dir") as image:
        check_image(image)
        assert [str(one.descriptor.digest) for one in image.documents] == [outer["digest"], index["digest"]]
        assert str(image.manifest.descriptor.digest) == own["digest"]
        assert image.manifest.descriptor.media_type == {"oci": OCI_MANIFEST, "docker": DOCKER_MANIFEST}[kind]


def test_an_archive_may_begin_its_names_with_a_dot() -> None:
    layout = named("1")
    Path("x.tar").write_bytes(archive_of(*(member(f"./{name}", data) for name, data in layout.all_files.items())))
    with opened("./x.tar") as image:
        check_image(image)


@pytest.mark.parametrize("layers", [(), (b"",), (b"\x1f\x8b",), LAYERS], ids=["none", "empty", "short", "four"])
def test_an_image_may_have_any_layers(layers: tuple[bytes, ...]) -> None:
    layout = Layout()
    assert layers_of(layout.list(layout.image(layers))) == list(layers)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_layers_are_shown_as_they_are_stored(compression: str) -> None:
    layout = Layout()
    found = layers_of(layout.list(layout.image(LAYERS, compression)))
    assert found == [COMPRESSIONS[compression](data) for data in LAYERS]


def test_the_documents_of_a_directory_are_read_and_only_its_layers_stay_open() -> None:
    # Else a mirror with some hundred images without platforms has no descriptor left.
    layout, index, _, _ = two_platforms()
    layout.list(index).write("dir")
    before = open_descriptors()
    with opened("oci:dir") as image:
        layers = {layer.descriptor.digest for layer in image.layers}
        assert len(open_descriptors() - before) == len(layers)


def test_a_blob_by_sha512_lies_in_its_own_folder() -> None:
    layout = Layout(algorithm="sha512")
    layout.list(layout.image(A)).write("dir")
    with opened("oci:dir") as image:
        found = {descriptor.digest.algorithm for descriptor, _ in image.blobs()}
        assert found == {"sha512"}
        assert image.layers[0].descriptor.digest == Digest.of([A[0]], "sha512")


@pytest.mark.parametrize("argument", ["oci:dir", "./dir", "./x.tar", "oci-archive:x.tar"])
def test_a_layout_without_the_file_oci_layout_is_read(argument: str) -> None:
    layout = named("1")
    del layout.files["oci-layout"]
    layout.write("dir")
    Path("x.tar").write_bytes(layout.tar())
    with opened(argument) as image:
        check_image(image)


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_what_an_entry_without_a_media_type_is_the_stored_document_says(kind: str) -> None:
    layout, index, own, other = two_platforms(kind)
    nested = layout.index({**index, "mediaType": ""})
    del nested["mediaType"]
    assert layers_of(layout.list(nested, "1")) == layers_of(layout, "oci:dir:1", str(HOST))
    with opened("oci:dir") as image:
        assert image.manifest.descriptor.media_type == {"oci": OCI_MANIFEST, "docker": DOCKER_MANIFEST}[kind]
        assert str(image.manifest.descriptor.digest) in (own["digest"], other["digest"])
        assert [str(document.descriptor.digest) for document in image.documents] == [nested["digest"], index["digest"]]


def test_documents_and_layers_may_be_embedded_in_their_descriptors() -> None:
    layout = Layout()

    def embedded(descriptor: dict[str, object]) -> dict[str, object]:
        data = layout.files.pop(f"blobs/{str(descriptor['digest']).replace(':', '/')}")
        text = base64.b64encode(data).decode()
        return descriptor | {"data": f"{text[:8]}\n{text[8:]}"}

    config = layout.image(A)
    manifest = json.loads(layout.files.pop(f"blobs/{config['digest'].replace(':', '/')}"))
    stored_layers = [embedded(layer) for layer in manifest["layers"]]
    image = layout.image(A, config=embedded(manifest["config"]), stored=stored_layers)
    layout.list(embedded(layout.index(embedded(image))), "1")
    assert list(layout.files) == ["oci-layout"]
    layout.write("dir")
    with opened("oci:dir") as found:
        check_image(found)
        assert [stored(layer) for layer in found.layers] == list(A)


def test_blobs_may_be_in_a_directory_that_layouts_share() -> None:
    for path, layers in (("dir", A), ("other", B)):
        layout = Layout()
        layout.list(layout.image(layers)).write(path)
    for path in ("dir", "other"):
        shutil.copytree(f"{path}/blobs", "shared", dirs_exist_ok=True)
        shutil.rmtree(f"{path}/blobs")
    for path, layers in (("dir", A), ("other", B)):
        with opened(f"oci:{path}", SETTINGS._replace(shared_blobs="shared")) as image:
            check_image(image)
            assert [stored(layer) for layer in image.layers] == list(layers)


def test_a_shared_directory_is_the_only_place_of_blobs() -> None:
    named("1").write("dir")
    Path("shared").mkdir()
    kind, message = refusal("oci:dir", SETTINGS._replace(shared_blobs="shared"))
    assert (kind, message.endswith(" is missing")) == (InvalidImage, True)


def test_a_link_may_not_lead_out_of_a_shared_directory() -> None:
    layout = named("1")
    layout.write("dir")
    Path("shared").mkdir()
    Path("shared/sha256").symlink_to("../dir/blobs/sha256")
    kind, message = refusal("oci:dir", SETTINGS._replace(shared_blobs="shared"))
    assert (kind, "leads out of the layout" in message) == (InvalidImage, True)
