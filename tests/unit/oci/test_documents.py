"""The JSON documents of an image."""

import json
from typing import Any

import pytest

from fusefs.errors import InvalidImage, Unsupported
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA_1,
    LAYOUT,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    check_layout,
    media_type_of,
    parse_digest,
    parse_image_config,
    parse_index,
    parse_manifest,
    write_index,
    write_manifest,
)
from fusefs.oci.platform import Platform
from tests.support import builders
from tests.support.builders import CREATED_NS, LAYERS, image_config, sha256

A, B = (DiffID(Digest("sha256", letter * 64)) for letter in "ab")


def descriptor(media_type: str, data: bytes) -> Descriptor:
    """Return the descriptor of *data*."""
    return Descriptor(media_type, len(data), Digest.of([data]))


def created(text: object) -> int:
    """Return what an image config that says *text* is understood as."""
    return parse_image_config(image_config([], created=text), "config").created_ns


def test_an_image_config_says_diff_ids_and_age() -> None:
    diff_ids = [str(A), str(B), str(A)]
    data = image_config([], rootfs={"type": "layers", "diff_ids": diff_ids})
    assert parse_image_config(data, "x") == ImageConfig((A, B, A), CREATED_NS, Platform("linux", "amd64"))


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
    found = write_manifest(
        DOCKER_MANIFEST, descriptor(DOCKER_CONFIG, config), (descriptor(DOCKER_LAYER, data) for data in layers)
    )
    assert found == builders.schema2_manifest(config, layers)


def test_the_manifest_without_layers_is_this() -> None:
    digest = sha256(b"{}")
    assert write_manifest(DOCKER_MANIFEST, descriptor(DOCKER_CONFIG, b"{}"), ()) == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        b'"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,'
        b'"digest":"' + digest.encode() + b'"},"layers":[]}'
    )


CONFIG_JSON: dict[str, Any] = {"mediaType": OCI_CONFIG, "digest": str(A), "size": 7}
LAYER_JSON: dict[str, Any] = {"mediaType": OCI_LAYER, "digest": str(B), "size": 0}


def manifest_of(**changes: Any) -> bytes:
    """Return a manifest with a config and one layer, changed."""
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG_JSON, "layers": [LAYER_JSON]}
    return json.dumps(document | changes).encode()


def test_a_manifest_has_its_config_and_its_layers_in_order() -> None:
    layers = [LAYER_JSON, CONFIG_JSON, LAYER_JSON]
    config, layer = Descriptor(OCI_CONFIG, 7, A), Descriptor(OCI_LAYER, 0, B)
    assert parse_manifest(manifest_of(layers=layers), "x") == Manifest(OCI_MANIFEST, config, (layer, config, layer))


@pytest.mark.parametrize("layers", [None, []])
def test_a_manifest_may_have_no_layers(layers: object) -> None:
    assert parse_manifest(manifest_of(layers=layers), "x").layers == ()


@pytest.mark.parametrize("stated", [None, "", OCI_MANIFEST])
def test_a_manifest_that_states_no_media_type_is_oci(stated: object) -> None:
    assert parse_manifest(manifest_of(mediaType=stated), "x").media_type == OCI_MANIFEST


def test_a_schema_1_manifest_is_named_with_what_to_do() -> None:
    with pytest.raises(Unsupported) as caught:
        parse_manifest(b'{"schemaVersion":1,"fsLayers":[]}', "x")
    hint = "docker pull and docker save it with a newer engine"
    assert str(caught.value) == f"x: a Docker schema 1 manifest is not supported; {hint}"


def test_an_index_has_its_manifests_with_platforms_annotations_and_names() -> None:
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1"}
    annotations = {"org.opencontainers.image.ref.name": "1", "a": "b", "number": 7}
    data = json.dumps({"manifests": [CONFIG_JSON | {"platform": platform, "annotations": annotations}]}).encode()
    kept = {"org.opencontainers.image.ref.name": "1", "a": "b", "number": ""}
    found = Descriptor(OCI_CONFIG, 7, A, Platform("linux", "arm64", "v8", "1"), kept)
    assert parse_index(data, "x") == Index((found,))
    assert found.ref_name == "1"
    assert Descriptor(OCI_CONFIG, 7, A).ref_name == ""


@pytest.mark.parametrize("data", [b'{"manifests":null}', b'{"manifests":[]}', b"{}"])
def test_an_index_may_be_empty_as_engines_write_it(data: bytes) -> None:
    assert parse_index(data, "x") == Index(())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"null", "x is null or missing, not an image index"),
        (b"[]", "x is a list, not an image index"),
        (b'{"manifests":{}}', "x: manifests is an object, not a list"),
        (b'{"manifests":[null]}', "x: manifests[0] is null or missing, not a descriptor"),
    ],
)
def test_what_is_no_index_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        parse_index(data, "x")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": None}, "size is null or missing, not a number of bytes"),
        ({"size": "7"}, "size is a string, not a number of bytes"),
        ({"size": True}, "size is a boolean, not a number of bytes"),
        ({"size": 7.0}, "size is a number, not a number of bytes"),
        ({"size": -1}, "size is -1, not a number of bytes"),
        ({"size": 1 << 63}, "size is 9223372036854775808, not a number of bytes"),
        ({"digest": None}, "malformed digest ''"),
        ({"digest": "sha256:../../../../etc/passwd"}, "malformed digest 'sha256:../../../../etc/passwd'"),
        ({"digest": f"sha256:{'A' * 64}"}, f"malformed sha256 digest 'sha256:{'A' * 64}'"),
        ({"digest": f"sha512:{'a' * 64}"}, f"malformed sha512 digest 'sha512:{'a' * 64}'"),
        ({"digest": f"md5:{'a' * 32}"}, "unsupported digest algorithm 'md5'"),
        ({"digest": f"sha256+b64u:{'a' * 43}"}, "unsupported digest algorithm 'sha256+b64u'"),
    ],
)
def test_a_descriptor_that_makes_no_sense_is_named_with_its_place(changes: dict[str, Any], message: str) -> None:
    for data, where in [
        (manifest_of(config=CONFIG_JSON | changes), "x: config"),
        (manifest_of(layers=[LAYER_JSON, LAYER_JSON | changes]), "x: layers[1]"),
    ]:
        with pytest.raises(InvalidImage) as caught:
            parse_manifest(data, "x")
        assert str(caught.value) == f"{where}: {message}"


def test_what_nothing_depends_on_may_be_nonsense() -> None:
    strange = LAYER_JSON | {"mediaType": 1, "platform": [], "annotations": "a", "urls": []}
    assert parse_manifest(manifest_of(layers=[strange]), "x").layers == (Descriptor("", 0, B),)


def test_a_layer_with_urls_may_be_kept_elsewhere() -> None:
    (layer,) = parse_manifest(manifest_of(layers=[LAYER_JSON | {"urls": ["https://example.org/x"]}]), "x").layers
    assert layer.urls


def test_our_own_layout_file_is_one() -> None:
    check_layout(LAYOUT, "x")
    check_layout(b'{ "imageLayoutVersion" : "1.0.0", "more": 1 }\n', "x")


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"{}", "null"),
        (b'{"imageLayoutVersion":"2.0.0"}', '"2.0.0"'),
        (b'{"imageLayoutVersion":1}', "1"),
        (b'{"imageLayoutVersion":"\\u001b[2J"}', '"\\u001b[2J"'),
    ],
)
def test_another_version_of_the_layout_is_not_supported(data: bytes, shown: str) -> None:
    with pytest.raises(Unsupported) as caught:
        check_layout(data, "x: oci-layout")
    assert str(caught.value) == f"x: oci-layout: unsupported image layout version {shown}; 1.0.0 is supported"


def test_a_layout_file_that_is_no_object_is_damaged() -> None:
    with pytest.raises(InvalidImage, match=r"^x is a string, not an image layout's version$"):
        check_layout(b'"1.0.0"', "x")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b'{"mediaType":"a/b"}', "a/b"),
        (b'{"manifests":[]}', OCI_INDEX),
        (b'{"manifests":null}', OCI_INDEX),
        (b'{"layers":[]}', OCI_MANIFEST),
        (b'{"mediaType":1,"layers":[]}', OCI_MANIFEST),
        (b'{"schemaVersion":1,"fsLayers":[]}', DOCKER_SCHEMA_1),
        (b'{"schemaVersion":1,"mediaType":"a/b"}', "a/b"),
        (b'{"fsLayers":[]}', ""),
    ],
)
def test_a_document_that_nothing_describes_says_itself_what_it_is(data: bytes, media_type: str) -> None:
    assert media_type_of(data, "x") == media_type


def test_the_index_lists_one_manifest_with_its_name_and_platform() -> None:
    manifest = Descriptor(OCI_MANIFEST, 5, A, Platform("a", "b"), {"lost": "1"})
    assert write_index(manifest, Platform("linux", "arm64", "v8"), "1.27") == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":5,"digest":"' + str(A).encode() + b'",'
        b'"platform":{"architecture":"arm64","os":"linux","variant":"v8"},'
        b'"annotations":{"org.opencontainers.image.ref.name":"1.27"}}]}'
    )


@pytest.mark.parametrize("platform", [None, Platform("", "")])
def test_a_platform_that_nothing_states_is_left_out_of_the_index(platform: Platform | None) -> None:
    # OCI requires both `os` and `architecture` where there is a platform.
    (entry,) = json.loads(write_index(Descriptor(OCI_MANIFEST, 5, A), platform, "latest"))["manifests"]
    assert entry == {
        "mediaType": OCI_MANIFEST,
        "size": 5,
        "digest": str(A),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }


def test_names_of_fields_count_in_any_case_as_in_go() -> None:
    described = {"MEDIATYPE": "m", "Size": 5, "Digest": str(A), "urlS": ["u"], "Annotations": {"a": "b", "A": "c"}}
    descriptor = Descriptor("m", 5, A, annotations={"a": "b", "A": "c"}, urls=("u",))
    manifest = json.dumps({"Config": described, "LayerS": [described]}).encode()
    assert parse_manifest(manifest, "x") == Manifest(OCI_MANIFEST, descriptor, (descriptor,))
    assert parse_index(json.dumps({"Manifests": [described]}).encode(), "x") == Index((descriptor,))
    # "rootfS", as Microsoft's base images had it.
    config = {"OS": "windows", "Architecture": "amd64", "rootfS": {"Diff_IDs": [str(A)]}}
    assert parse_image_config(json.dumps(config).encode(), "x") == ImageConfig(
        (DiffID(A),), 0, Platform("windows", "amd64")
    )
    assert media_type_of(json.dumps({"Manifests": []}).encode(), "x") == OCI_INDEX
    check_layout(b'{"ImageLayoutVersion":"1.0.0"}', "x")


def test_the_version_of_an_operating_system_is_written_into_the_index() -> None:
    platform = Platform("windows", "amd64", os_version="10.0.1")
    (listed,) = json.loads(write_index(Descriptor(OCI_MANIFEST, 5, A), platform, "1"))["manifests"]
    assert listed["platform"] == {"architecture": "amd64", "os": "windows", "os.version": "10.0.1"}


def test_a_name_that_is_no_text_does_not_break_the_index() -> None:
    data = write_index(Descriptor(OCI_MANIFEST, 5, A), None, '"\ud800\n')
    assert parse_index(data, "x").manifests[0].ref_name == '"\ufffd\n'
