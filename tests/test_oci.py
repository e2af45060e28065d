"""The JSON documents of an image."""

import json

import pytest

from fusefs.digest import DiffID, Digest
from fusefs.errors import InvalidImage
from fusefs.oci import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    Descriptor,
    ImageConfig,
    ManifestItem,
    parse_digest,
    parse_image_config,
    parse_manifest_list,
    schema2_manifest,
)
from tests import builders
from tests.builders import CREATED_NS, LAYERS, image_config, sha256

A, B = (DiffID(Digest("sha256", letter * 64)) for letter in "ab")


def descriptor(media_type: str, data: bytes) -> Descriptor:
    """Return the descriptor of *data*."""
    return Descriptor(media_type, len(data), Digest.of([data]))


def created(text: object) -> int:
    """Return what an image config that says *text* is understood as."""
    return parse_image_config(image_config([], created=text), "config").created_ns


def test_a_manifest_list_has_all_its_images_in_order() -> None:
    document = [
        {"Config": "c", "RepoTags": ["a:1", "b:2"], "Layers": ["1/layer.tar", "é"], "LayerSources": {"x": {}}},
        {"Config": "d", "RepoTags": None, "Layers": None, "Parent": "sha256:0"},
    ]
    assert parse_manifest_list(json.dumps(document).encode(), "x") == (
        ManifestItem(b"c", ("a:1", "b:2"), (b"1/layer.tar", "é".encode())),
        ManifestItem(b"d", (), ()),
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("..", "'..'"),
        ("a/../b", "'a/../b'"),
        ("", "''"),
        ("\ud800", "'\\\\ud800'"),
    ],
)
def test_a_layer_that_can_be_no_member_is_refused(name: str, shown: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        parse_manifest_list(json.dumps([{"Config": "c", "Layers": [name]}]).encode(), "x")
    assert str(caught.value) == f"x: image 0: Layers: refused: {shown} names no member"


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "null or missing"), (True, "a boolean"), (1.5, "a number"), ("a", "a string"), ({}, "an object")],
)
def test_what_is_no_list_is_called_what_it_is(value: object, kind: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        parse_manifest_list(json.dumps(value).encode(), "x: manifest.json")
    assert str(caught.value) == f"x: manifest.json is {kind}, not a list of images"


@pytest.mark.parametrize(
    "data",
    [b"", b"[] []", b"\xff", b"[" * 50000, b"9" * 5000, b"\0" * 100, b'["\x00"]', b'[{"Config": "c"},]'],
    ids=range(8),
)
def test_what_is_no_json_is_an_error_of_one_line(data: bytes) -> None:
    with pytest.raises(InvalidImage, match=r"^x is not JSON: [ -~]+$"):
        parse_manifest_list(data, "x")


def test_an_image_config_says_diff_ids_and_age() -> None:
    diff_ids = [str(A), str(B), str(A)]
    data = image_config([], rootfs={"type": "layers", "diff_ids": diff_ids})
    assert parse_image_config(data, "x") == ImageConfig((A, B, A), CREATED_NS)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01t00:00:01z", 1_000_000_000),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T22:30:00.000000001-01:30", 1),
        ("2024-02-29T12:34:56.123456789Z", CREATED_NS),
        ("2024-02-29T12:34:56.1234567899Z", CREATED_NS),
        ("2016-12-31T23:59:60Z", 1483228799 * 10**9),
        ("9999-12-31T23:59:59.999999999Z", 253402300799 * 10**9 + 999999999),
    ],
)
def test_a_time_is_read_to_the_nanosecond(text: str, nanoseconds: int) -> None:
    assert created(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        0,
        1700000000,
        "yesterday",
        "0001-01-01T00:00:00Z",
        "0000-00-00T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "2023-02-29T00:00:00Z",
        "2024-02-29T24:00:00Z",
        "2024-02-29T12:34:56",
        "2024-02-29 12:34:56Z",
        "2024-02-29T12:34:56Z\n",
        "٢٠٢٤-02-29T12:34:56Z",
        {"seconds": 1},
    ],
)
def test_a_time_that_is_missing_or_senseless_is_0(text: object) -> None:
    assert created(text) == 0


def test_a_digest_that_is_none_is_named_with_its_place() -> None:
    with pytest.raises(InvalidImage, match=r"^x: layers\[0\]: malformed digest 'abc'$"):
        parse_digest("abc", "x: layers[0]")


@pytest.mark.parametrize("layers", [(), LAYERS[:1], LAYERS, (b"",)], ids=["none", "one", "four", "an empty one"])
def test_the_manifest_is_what_containers_image_generates(layers: tuple[bytes, ...]) -> None:
    config = image_config(layers)
    found = schema2_manifest(descriptor(DOCKER_CONFIG, config), (descriptor(DOCKER_LAYER, data) for data in layers))
    assert found == builders.schema2_manifest(config, layers)


def test_the_manifest_without_layers_is_this() -> None:
    digest = sha256(b"{}")
    assert schema2_manifest(descriptor(DOCKER_CONFIG, b"{}"), ()) == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        b'"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,'
        b'"digest":"' + digest.encode() + b'"},"layers":[]}'
    )
