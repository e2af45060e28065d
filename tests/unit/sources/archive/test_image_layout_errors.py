"""Everything that can be wrong with an OCI image layout, each with its whole message."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.errors import DigestMismatch, ImgfsError, InvalidImage, Unavailable, Unsupported
from fusefs.oci.documents import OCI_CONFIG, OCI_INDEX
from tests.support.builders import CREATED_NS, LAYERS, image_config, sha256
from tests.support.conformance import SETTINGS, check_image, opened, refusal, stored
from tests.support.layouts import HOST, Json, Layout, platform_json
from tests.support.processes import unprivileged

VERIFYING = SETTINGS._replace(verify=True)
GONE = sha256(b"gone")
NO_CONFIG = b'{"rootfs":1}'
Refused = tuple[type[ImgfsError], str]

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def one(layers: tuple[bytes, ...] = LAYERS[:2], **more: object) -> Layout:
    """Return a layout of one image."""
    layout = Layout()
    return layout.list(layout.image(layers, **more))  # type: ignore[arg-type]


def with_file(name: str, data: bytes) -> Layout:
    """Return a layout in which the file *name* has other *data*."""
    layout = one()
    layout.files[name] = data
    return layout


def with_entry(**changes: object) -> Layout:
    """Return a layout with a changed entry in its index."""
    layout = one()
    layout.entries[0] |= changes
    return layout


def manifest_of(layout: Layout) -> Json:
    """Return the manifest of the only image."""
    found: Json = json.loads(layout.files[f"blobs/{layout.entries[0]['digest'].replace(':', '/')}"])
    return found


def listing(document: object) -> Layout:
    """Return a layout whose only entry is this manifest."""
    layout = one()
    layout.entries = [layout.document("manifest", document)]  # type: ignore[arg-type]
    return layout


def changed(**changes: object) -> Layout:
    """Return a layout whose manifest is changed."""
    return listing(manifest_of(one()) | changes)


def nested(depth: int) -> Layout:
    """Return an image below so many indexes."""
    layout = Layout()
    descriptor = layout.image(LAYERS[:2], platform=platform_json(HOST))
    for _ in range(depth):
        descriptor = layout.index(descriptor)
    return layout.list(descriptor)


def without(part: str) -> Layout:
    """Return a layout without the blob of a part of the manifest."""
    layout = one()
    manifest = manifest_of(layout)
    layout.remove(manifest["config"] if part == "config" else manifest["layers"][1])
    return layout


def with_config(data: bytes) -> Layout:
    """Return a layout of an image with another config."""
    layout = Layout()
    return layout.list(layout.image(LAYERS[:2], config=layout.blob("config", data)))


def huge() -> Layout:
    """Return a layout whose manifest is too big."""
    layout = Layout()
    return layout.list(layout.blob("manifest", b" " * ((4 << 20) + 1)))


def with_size(part: str) -> Layout:
    """Return a layout in which a descriptor says another size."""
    manifest = manifest_of(one())
    if part == "config":
        return changed(config=manifest["config"] | {"size": 1})
    return changed(layers=[manifest["layers"][0], manifest["layers"][1] | {"size": 1}])


def with_digests(*layers: bytes) -> Layout:
    """Return an image whose config has the diffIDs of other *layers*, none of which is stored compressed."""
    return with_config(image_config(layers))


MANIFEST = one().entries[0]["digest"]
NO_SCHEMA_1 = "a Docker schema 1 manifest is not supported; docker pull and docker save it with a newer engine"
CONFIG = manifest_of(one())["config"]
LAYER = manifest_of(one())["layers"][1]["digest"]
INNERMOST = nested(1).entries[0]["digest"]

REFUSED: dict[str, tuple[Callable[[], Layout], type[ImgfsError], str]] = {
    # The layout.
    "version": (
        lambda: with_file("oci-layout", b'{"imageLayoutVersion":"1.1.0"}'),
        Unsupported,
        'oci-layout: unsupported image layout version "1.1.0"; 1.0.0 is supported',
    ),
    "layout is no JSON": (
        lambda: with_file("oci-layout", b"1.0.0"),
        InvalidImage,
        "oci-layout is not JSON: Extra data: line 1 column 4 (char 3)",
    ),
    "index is a list": (
        lambda: with_file("index.json", b"[]"),
        InvalidImage,
        "index.json is a list, not an image index",
    ),
    "index is too big": (
        lambda: with_file("index.json", b" " * ((4 << 20) + 1)),
        InvalidImage,
        "index.json has 4194305 bytes, more than 4194304",
    ),
    "index is null": (lambda: with_file("index.json", b'{"manifests":null}'), InvalidImage, "{} holds no image"),
    "nothing is listed": (Layout, InvalidImage, "{} holds no image"),
    # Descriptors.
    "algorithm": (
        lambda: with_entry(digest=f"blake3:{'a' * 64}"),
        InvalidImage,
        "index.json: manifests[0]: unsupported digest algorithm 'blake3'",
    ),
    "path as a digest": (
        lambda: with_entry(digest="sha256:../../../etc/passwd"),
        InvalidImage,
        "index.json: manifests[0]: malformed digest 'sha256:../../../etc/passwd'",
    ),
    "media type": (
        lambda: with_entry(mediaType="text/plain\x1b"),
        Unsupported,
        f"unsupported media type 'text/plain\\x1b' of {MANIFEST} ({HOST})",
    ),
    "schema 1": (
        lambda: with_entry(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"),
        Unsupported,
        f"{MANIFEST} ({HOST}): {NO_SCHEMA_1}",
    ),
    "no media type and nothing stored": (
        lambda: with_entry(mediaType=None, digest=GONE),
        Unsupported,
        f"unsupported media type '' of {GONE}",
    ),
    "manifest's size": (
        lambda: with_entry(size=3),
        InvalidImage,
        f"the manifest {MANIFEST} has {one().entries[0]['size']} bytes, its descriptor says 3",
    ),
    "manifest missing": (lambda: with_entry(digest=GONE), InvalidImage, f"the manifest {GONE} is missing"),
    "manifest too big": (
        huge,
        InvalidImage,
        f"blobs/sha256/{huge().entries[0]['digest'][7:]} has 4194305 bytes, more than 4194304",
    ),
    "nested too deep": (lambda: nested(9), InvalidImage, f"the index {INNERMOST} is nested more than 8 deep"),
    # The manifest.
    "manifest is a list": (
        lambda: listing([]),
        InvalidImage,
        f"the manifest {sha256(b'[]')} is a list, not an image manifest",
    ),
    "manifest without config": (
        lambda: listing({}),
        InvalidImage,
        f"the manifest {sha256(b'{}')}: config is null or missing, not a descriptor",
    ),
    "embedded config of another size": (
        lambda: changed(config=CONFIG | {"digest": GONE, "data": "AAA="}),
        InvalidImage,
        f"the image config {GONE} has 2 bytes, its descriptor says {CONFIG['size']}",
    ),
    "embedded config with another digest": (
        lambda: changed(config=CONFIG | {"digest": GONE, "data": "AAA=", "size": 2}),
        DigestMismatch,
        f"the image config has the digest {sha256(bytes(2))}, its descriptor says {GONE}",
    ),
    "embedded config that is no base64": (
        lambda: changed(config=CONFIG | {"data": "e30"}),
        InvalidImage,
        f"the manifest {changed(config=CONFIG | {'data': 'e30'}).entries[0]['digest']}: config: data is not base64",
    ),
    "config missing": (lambda: without("config"), InvalidImage, f"the image config {CONFIG['digest']} is missing"),
    "config's size": (
        lambda: with_size("config"),
        InvalidImage,
        f"the image config {CONFIG['digest']} has {CONFIG['size']} bytes, its descriptor says 1",
    ),
    "config is no config": (
        lambda: with_config(NO_CONFIG),
        InvalidImage,
        f"{sha256(NO_CONFIG)}: rootfs is a number, not an object",
    ),
    "config is no JSON": (
        lambda: with_config(b""),
        InvalidImage,
        f"{sha256(b'')} is not JSON: Expecting value: line 1 column 1 (char 0)",
    ),
    "layer's size": (
        lambda: with_size("layer"),
        InvalidImage,
        f"layer 1 {LAYER} has {len(LAYERS[1])} bytes, its descriptor says 1",
    ),
    "a plain layer with another diffID": (
        lambda: with_digests(LAYERS[0], LAYERS[2]),
        InvalidImage,
        f"layer 1 is not compressed, but its digest {LAYER} is not its diffID {sha256(LAYERS[2])}",
    ),
}


def refused(layout: Layout) -> list[Refused]:
    """Return the classes and messages of the errors for a layout as a tar and as a directory."""
    layout.write("dir")
    Path("x.tar").write_bytes(layout.tar())
    found = [refusal("./x.tar")]
    with pytest.raises(ImgfsError) as caught, opened("./dir"):
        pass
    return [*found, (type(caught.value), str(caught.value))]


@pytest.mark.parametrize(("build", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_named(build: Callable[[], Layout], error: type[ImgfsError], message: str) -> None:
    layout = build()
    whole = message if "{}" in message else f"{{}}: {message}"
    assert refused(layout) == [(error, whole.format(name)) for name in ("./x.tar", "./dir")]


def test_layer_counts_that_differ_are_both_named() -> None:
    layout = with_config(image_config(LAYERS[:1]))
    message = f"the manifest {layout.entries[0]['digest']} lists 2 layers, the config 1"
    assert refused(layout) == [(InvalidImage, f"{name}: {message}") for name in ("./x.tar", "./dir")]


def test_eight_indexes_are_not_too_many() -> None:
    nested(8).write("dir")
    with opened("oci:dir") as image:
        check_image(image)
        assert len(image.documents) == 8


def test_an_index_that_lists_itself_cannot_keep_its_digest() -> None:
    layout = Layout()
    index = layout.index()
    layout.replace(index, json.dumps({"manifests": [index | {"size": index["size"]}]}).encode())
    itself = layout.files[f"blobs/{index['digest'].replace(':', '/')}"]
    layout.list(index | {"size": len(itself)})
    message = f"the index has the digest {sha256(itself)}, its descriptor says {index['digest']}"
    assert refused(layout) == [(DigestMismatch, f"{name}: {message}") for name in ("./x.tar", "./dir")]


@pytest.mark.parametrize("part", ["manifest", "config", "index"])
def test_a_document_with_another_digest_is_always_refused(part: str) -> None:
    layout = nested(1)
    index = layout.entries[0]
    manifest = json.loads(layout.files[f"blobs/{index['digest'].replace(':', '/')}"])["manifests"][0]
    config = json.loads(layout.files[f"blobs/{manifest['digest'].replace(':', '/')}"])["config"]
    descriptor = {"manifest": manifest, "config": config, "index": index}[part]
    lie = layout.files[f"blobs/{descriptor['digest'].replace(':', '/')}"].replace(b'"', b"'")
    layout.replace(descriptor, lie)
    what = {"manifest": "the manifest", "config": "the image config", "index": "the index"}[part]
    message = f"{what} has the digest {sha256(lie)}, its descriptor says {descriptor['digest']}"
    assert refused(layout) == [(DigestMismatch, f"{name}: {message}") for name in ("./x.tar", "./dir")]


def test_a_layer_with_another_digest_is_found_when_that_is_asked_for() -> None:
    layout = one()
    lie = LAYERS[1][:-1] + b"x"
    layout.replace(manifest_of(layout)["layers"][1], lie)
    layout.write("dir")
    Path("x.tar").write_bytes(layout.tar())
    for name in ("./x.tar", "./dir"):
        with opened(name) as image:
            assert [stored(layer) for layer in image.layers] == [LAYERS[0], lie]
        with pytest.raises(DigestMismatch) as caught, opened(name, VERIFYING):
            pass
        assert str(caught.value) == f"{name}: layer 1 ({LAYER}) has the digest {sha256(lie)}, the image says {LAYER}"


def test_an_honest_layout_is_verified() -> None:
    one().write("dir")
    with opened("oci:dir", VERIFYING) as image:
        check_image(image)


def test_what_is_no_layout_is_named() -> None:
    os.mkdir("dir")
    with pytest.raises(InvalidImage, match=r"^dir: not an OCI image layout: index.json is missing$"), opened("oci:dir"):
        pass
    Path("dir/oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    with pytest.raises(InvalidImage, match=r"^./dir: not an OCI image layout: index.json is missing$"), opened("./dir"):
        pass


def test_an_image_with_an_oci_config_says_when_it_was_made() -> None:
    layout = one()
    assert manifest_of(layout)["config"]["mediaType"] == OCI_CONFIG
    layout.write("dir")
    with opened("oci:dir") as image:
        assert image.created_ns == CREATED_NS


def test_an_index_that_says_it_is_a_manifest_is_none() -> None:
    layout = nested(1)
    assert layout.entries[0]["mediaType"] == OCI_INDEX
    digest = layout.entries[0]["digest"]
    layout.entries[0]["mediaType"] = layout.types["manifest"]
    message = f"the manifest {digest}: config is null or missing, not a descriptor"
    assert refused(layout) == [(InvalidImage, f"{name}: {message}") for name in ("./x.tar", "./dir")]


def test_a_layout_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    one().write("layout")
    Path("layout/blobs").chmod(0)
    tmp_path.chmod(0o755)
    with unprivileged():
        kind, why = refusal("oci:layout")
    assert kind is Unavailable
    assert re.fullmatch(r"layout: cannot open blobs/sha256/[0-9a-f]{64}: Permission denied", why)
