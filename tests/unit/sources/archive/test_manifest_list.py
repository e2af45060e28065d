"""The list of images in a Docker archive."""

import json

import pytest

from fusefs.errors import InvalidImage
from fusefs.sources.archive.manifest_list import ManifestItem, parse_manifest_list


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
    ("config", "kind"), [("", "a string"), (1, "a number"), ([], "a list"), (None, "null or missing")]
)
def test_an_image_without_a_config_is_refused(config: object, kind: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        parse_manifest_list(json.dumps([{"Config": "c"}, {"Config": config}]).encode(), "x")
    assert str(caught.value) == f"x: image 1 names no config: Config is {kind}"


@pytest.mark.parametrize(
    "data",
    [b"", b"[] []", b"\xff", b"[" * 50000, b"9" * 5000, b"\0" * 100, b'["\x00"]', b'[{"Config": "c"},]'],
    ids=range(8),
)
def test_what_is_no_json_is_an_error_of_one_line(data: bytes) -> None:
    with pytest.raises(InvalidImage, match=r"^x is not JSON: [ -~]+$"):
        parse_manifest_list(data, "x")


def test_names_of_fields_count_in_any_case_as_in_go() -> None:
    # As Jib before 2.3.0 wrote them.
    document = [{"config": "c", "repoTags": ["a:1"], "LAYERS": ["l.tar"]}]
    assert parse_manifest_list(json.dumps(document).encode(), "x") == (ManifestItem(b"c", ("a:1",), (b"l.tar",)),)


def test_half_a_character_in_a_name_is_the_character_for_what_is_unreadable() -> None:
    document = [{"Config": "c", "Layers": ["\ud800", "a"]}]
    (item,) = parse_manifest_list(json.dumps(document).encode(), "x")
    assert item.layers == ("\ufffd".encode(), b"a")
