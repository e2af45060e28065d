"""An image, and the comparison of its layers with their digests."""

import json
from pathlib import Path

import pytest

from fusefs.content.protocol import Content, Literal, chunks
from fusefs.errors import DigestMismatch
from fusefs.image.model import Document, Image, Layer
from fusefs.oci.digest import Digest
from fusefs.oci.documents import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_MANIFEST, Descriptor
from fusefs.oci.platform import Platform
from tests.support.builders import COMPRESSIONS, LAYERS, Archive, image_config, schema2_manifest, sha256
from tests.support.conformance import SETTINGS, SOURCE, Noted, check_image, literal_layer, opened, refusal, stored

VERIFYING = SETTINGS._replace(verify=True)
LIE = Archive(layers=[LAYERS[0], b"a lie"], config=image_config(LAYERS[:2]), config_name="c", layer_names=["a", "b"])
MESSAGE = f"./x.tar: layer 1 (b) has the digest {sha256(b'a lie')}, the image says {sha256(LAYERS[1])}"

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def image(*layers: Layer) -> Image:
    """Return an image with *layers*."""
    config = Document.of(DOCKER_CONFIG, image_config([]))
    manifest = Document.of(DOCKER_MANIFEST, schema2_manifest(config.content.data, []))
    return Image(SOURCE, "latest", Platform("linux", "amd64"), 0, config, manifest, layers)


class Hashing:
    """Computes digests, and remembers of what."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, str]] = []

    def __call__(self, content: Content, algorithm: str) -> Digest:
        data = b"".join(chunks(content))
        self.asked.append((data, algorithm))
        return Digest.of([data], algorithm)


def test_a_document_is_described_by_its_bytes() -> None:
    document = Document.of(DOCKER_CONFIG, b"{}")
    assert document.descriptor == Descriptor(DOCKER_CONFIG, 2, Digest("sha256", sha256(b"{}")[7:]))
    assert document.content.data == b"{}"


def test_the_blobs_are_config_manifests_and_each_layer_as_often_as_it_is_listed() -> None:
    a, b = literal_layer(b"a"), literal_layer(b"b")
    whole = image(a, b, a)
    manifests = (whole.manifest, whole.oci_manifest)
    assert [(descriptor, content.read_at(0, 10000)) for descriptor, content in whole.blobs()] == [
        (whole.config.descriptor, whole.config.content.data),
        *((manifest.descriptor, manifest.content.data) for manifest in manifests),
        (a.descriptor, b"a"),
        (b.descriptor, b"b"),
        (a.descriptor, b"a"),
    ]


def test_a_stored_oci_manifest_is_the_one_to_list() -> None:
    own = Document.of(OCI_MANIFEST, b"{}")
    whole = image()
    assert whole._replace(manifest=own).oci_manifest == own
    assert whole._replace(documents=(whole.config, own)).oci_manifest == own


def test_the_oci_manifest_that_is_generated_says_how_layers_are_stored() -> None:
    layers = [literal_layer(b"a"), *(literal_layer(b"a", compression=name) for name in COMPRESSIONS)]
    whole = image(*layers)
    found = json.loads(whole.oci_manifest.content.data)
    assert whole.oci_manifest.descriptor.media_type == found["mediaType"] == OCI_MANIFEST
    assert found == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": len(whole.config.content.data),
            "digest": str(whole.config.descriptor.digest),
        },
        "layers": [
            {
                "mediaType": f"application/vnd.oci.image.layer.v1.tar{ending}",
                "size": layer.descriptor.size,
                "digest": str(layer.descriptor.digest),
            }
            for layer, ending in zip(layers, ["", "+gzip", "+zstd", "", ""], strict=True)
        ],
    }


def test_a_layer_that_is_not_stored_is_no_blob_and_not_verified() -> None:
    foreign = literal_layer(b"b")._replace(content=None)
    hashing = Hashing()
    whole = image(foreign)
    assert foreign.descriptor not in [descriptor for descriptor, _ in whole.blobs()]
    whole.verify(hashing)
    assert hashing.asked == []


def test_each_layer_is_verified_once_by_its_own_algorithm() -> None:
    hashing = Hashing()
    image(
        literal_layer(b"a"), literal_layer(b"b", "sha512"), literal_layer(b"a"), literal_layer(b"a", "sha512")
    ).verify(hashing)
    assert hashing.asked == [(b"a", "sha256"), (b"b", "sha512"), (b"a", "sha512")]


def test_the_first_wrong_layer_is_named_with_both_digests() -> None:
    wrong = literal_layer(b"b")._replace(content=Literal(b"c"), where="x: layer 1 (b.tar)")
    hashing = Hashing()
    with pytest.raises(DigestMismatch) as caught:
        image(literal_layer(b"a"), wrong, literal_layer(b"d")).verify(hashing)
    assert str(caught.value) == f"x: layer 1 (b.tar) has the digest {sha256(b'c')}, the image says {sha256(b'b')}"
    assert hashing.asked == [(b"a", "sha256"), (b"c", "sha256")]


def test_an_archive_is_not_read_whole_unless_that_is_asked_for() -> None:
    LIE.write(Path("x.tar"))
    with opened("./x.tar") as found:
        assert [stored(layer) for layer in found.layers] == [LAYERS[0], b"a lie"]


def test_a_lie_in_an_archive_is_found_when_it_is_verified() -> None:
    LIE.write(Path("x.tar"))
    assert refusal("./x.tar", VERIFYING) == (DigestMismatch, MESSAGE)


def test_an_honest_archive_is_verified() -> None:
    Archive().write(Path("x.tar"))
    with opened("./x.tar", VERIFYING) as found:
        check_image(found)


def test_the_progress_of_a_verification_ends_at_its_total() -> None:
    LIE.write(Path("x.tar"))
    Archive(layers=LAYERS).write(Path("honest.tar"))
    total = sum(len(data) for data in set(LAYERS))
    noted = Noted()
    with opened("./honest.tar", VERIFYING._replace(progress=noted)):
        assert (noted.transfers, noted.done) == ([("verifying ./honest.tar", total)], total)
    noted = Noted()
    assert refusal("./x.tar", VERIFYING._replace(progress=noted)) == (DigestMismatch, MESSAGE)
    assert noted.done == len(LAYERS[0]) + len(b"a lie")
