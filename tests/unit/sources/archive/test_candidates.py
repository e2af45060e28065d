"""The choice of one of several images: by name, place, digest and platform."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fusefs.errors import Unavailable
from fusefs.oci.platform import Platform
from tests.conftest import TakeWarnings
from tests.support.builders import LAYERS, sha256
from tests.support.conformance import SETTINGS, opened, refusal
from tests.support.layouts import HOST, OTHER, Layout, attestation, platform_json
from tests.support.named_images import A, B, C, layers_of, named

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def unavailable(layout: Layout, argument: str = "oci:dir", platform: str | None = None) -> str:
    """Return why no image is picked."""
    Path("x.tar").write_bytes(layout.tar())
    wanted = None if platform is None else Platform.parse(platform)
    error, message = refusal(argument.replace("oci:dir", "oci-archive:x.tar"), SETTINGS._replace(platform=wanted))
    assert error is Unavailable
    return message


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("1.27", "1.27"),
        ("latest", "latest"),
        ("nginx:1", "nginx:1"),
        ("docker.io/library/nginx:1", "nginx:1"),
        ("docker.io/library/nginx:latest", "nginx"),
        ("nginx", "docker.io/library/nginx:latest"),
        ("Any Text! é", "Any Text! é"),
        ("@x", "@x"),
        ("localhost/nginx:latest", "nginx"),
    ],
)
def test_an_image_is_chosen_by_its_name_however_that_is_spelled(name: str, ref: str) -> None:
    assert layers_of(named("first", name), f"oci:dir:{ref}") == list(B)


@pytest.mark.parametrize(
    ("ref", "tag"), [("1.27", "1.27"), ("docker.io/library/nginx:1.27", "1.27"), ("nginx@strange", "nginx@strange")]
)
@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "the only one"])
def test_the_tag_is_that_of_the_name(ref: str, tag: str, *, asked: bool) -> None:
    named(ref).write("dir")
    with opened(f"oci:dir:{ref}" if asked else "oci:dir") as image:
        assert image.tag == tag


def test_an_image_without_a_name_is_the_latest() -> None:
    named(None).write("dir")
    with opened("oci:dir") as image:
        assert image.tag == "latest"


def containerd(*names: str) -> Layout:
    """Return what containerd and docker write: the full name besides the tag alone."""
    layout = Layout()
    for name, layers in zip(names, (A, B, C), strict=False):
        layout.list(layout.image(layers), name.rpartition(":")[2], **{"io.containerd.image.name": name})
    return layout


@pytest.mark.parametrize("ref", ["b", "b:latest", "docker.io/library/b:latest"])
def test_an_image_is_chosen_by_the_name_that_containerd_gives_it(ref: str) -> None:
    layout = containerd("docker.io/library/a:latest", "docker.io/library/b:latest")
    assert layers_of(layout, f"oci:dir:{ref}") == list(B)


@pytest.mark.parametrize("ref", [None, "latest"])
def test_two_images_with_one_tag_are_told_apart_by_their_full_names(ref: str | None) -> None:
    layout = containerd("docker.io/library/a:latest", "docker.io/library/b:latest")
    message = unavailable(layout, "oci:dir" if ref is None else f"oci:dir:{ref}")
    choices = f"docker.io/library/a:latest ({HOST}); docker.io/library/b:latest ({HOST})"
    assert message == f"x.tar holds several images; choose one with its name: there are {choices}"


def test_several_names_without_a_choice_are_listed_with_their_platforms() -> None:
    layout = Layout()
    layout.list(layout.image(A), "1").list(layout.image(B, runs_on=OTHER), "2")
    layout.list(layout.index(layout.image(C)), "3\x1b[2J")
    choices = f"1 ({HOST}); 2 ({OTHER}); 3\\x1b[2J ({HOST})"
    assert unavailable(layout) == f"x.tar holds several images; choose one with its name: there are {choices}"


def test_two_images_without_names_are_no_choice_for_a_guess() -> None:
    # containers/image: "more than one image in oci, choose an image".
    layout = named(None, None)
    first, second = (entry["digest"] for entry in layout.entries)
    choices = f"{first} ({HOST}); {second} ({HOST})"
    assert unavailable(layout) == f"x.tar holds several images; choose one with its name: there are {choices}"


@pytest.mark.parametrize("number", [0, 1])
def test_every_choice_that_is_listed_can_be_chosen(number: int) -> None:
    layout = named("1", None)
    choice = unavailable(layout).partition("there are ")[2].split("; ")[number].partition(" ")[0]
    assert layers_of(layout, f"oci:dir:{choice}") == list((A, B)[number])


def test_one_image_under_two_names_is_one_image_with_the_first_name() -> None:
    layout = Layout()
    image = layout.image(A)
    assert layers_of(layout.list(image, "1.27").list(image, "latest")) == list(A)
    with opened("oci:dir") as found:
        assert found.tag == "1.27"


@pytest.mark.parametrize("argument", ["oci:dir:v1", "oci:dir"])
def test_the_first_of_two_images_with_one_name_counts(argument: str) -> None:
    # OCI, "Image Layout": of several matching descriptors the first SHOULD be used.
    assert layers_of(named("v1", "v1"), argument) == list(A)


def test_two_images_with_one_name_are_listed_with_their_digests() -> None:
    layout = named("v1", "v1")
    first, second = (f"v1 {entry['digest']} ({HOST})" for entry in layout.entries)
    assert unavailable(layout, "oci:dir:v2") == f"x.tar has no image v2; there are {first}; {second}"


@pytest.mark.parametrize(("index", "layers"), [(0, A), (1, B), (2, C)])
def test_an_entry_is_chosen_by_its_place(index: int, layers: tuple[bytes, ...]) -> None:
    # As in containers/image: oci:DIR:@INDEX.
    assert layers_of(named("1", None, "1"), f"oci:dir:@{index}") == list(layers)


def test_a_place_that_is_not_there_lists_the_choices() -> None:
    assert unavailable(named("1", "2"), "oci:dir:@2") == f"x.tar has no image @2; there are 1 ({HOST}); 2 ({HOST})"


def artifact(layout: Layout, data: bytes, **more: object) -> dict[str, Any]:
    """Put an artifact of one file in and return its manifest's descriptor, as ORAS writes it."""
    config = layout.blob("application/vnd.oci.empty.v1+json", b"{}")
    manifest = {
        "schemaVersion": 2,
        "artifactType": "text/plain",
        "config": config,
        "layers": [layout.blob("t/p", data)],
    }
    return layout.document("manifest", manifest | more)


def test_an_artifact_without_a_name_beside_an_image_is_no_choice() -> None:
    layout = Layout()
    image = layout.image(A)
    sbom = artifact(layout, b"sbom", subject=image)
    layout.list(sbom).list(image, "v1").list(sbom | {"artifactType": "text/plain"})
    assert layers_of(layout) == list(A)


def test_an_artifact_with_a_name_is_a_choice() -> None:
    layout = Layout()
    choices = f"x.tar holds several images; choose one with its name: there are v1 ({HOST}); signature"
    assert unavailable(layout.list(layout.image(A), "v1").list(artifact(layout, b"s"), "signature")) == choices


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_every_manifest_is_chosen_by_its_digest_at_any_depth(take_warnings: TakeWarnings, depth: int) -> None:
    layout = Layout()
    image = layout.image(A, platform=platform_json(HOST))
    wanted = {"image": image, "attestation": attestation(layout, image), "artifact": artifact(layout, b"one")}
    outer = [*wanted.values(), artifact(layout, b"two"), layout.image(B, runs_on=OTHER, platform=platform_json(OTHER))]
    for _ in range(depth):
        outer = [layout.index(*outer)]
    for descriptor in outer:
        layout.list(descriptor, "many")
    layout.write("dir")
    for name, descriptor in wanted.items():
        with opened(f"oci:dir:{descriptor['digest']}") as found:
            assert str(found.manifest.descriptor.digest) == descriptor["digest"], name
    take_warnings()


@pytest.mark.parametrize("what", ["config", "layer", "nothing"])
def test_a_digest_of_no_manifest_is_no_image(what: str) -> None:
    layout = named("1")
    manifest = json.loads(layout.files[f"blobs/{layout.entries[0]['digest'].replace(':', '/')}"])
    digest = {"config": manifest["config"]["digest"], "layer": manifest["layers"][0]["digest"]}.get(what, sha256(b"no"))
    assert unavailable(layout, f"oci:dir:{digest}") == f"x.tar has no image {digest}; there are 1 ({HOST})"


@pytest.mark.parametrize(
    "changes",
    [
        {"artifactType": "application/vnd.amazon.soci.index.v2+json"},
        {"platform": platform_json(HOST) | {"os.features": ["nydus.remoteimage.v1"]}},
    ],
    ids=["SOCI", "nydus"],
)
@pytest.mark.parametrize("first", [True, False])
def test_an_entry_that_cannot_be_run_never_wins(changes: dict[str, Any], *, first: bool) -> None:
    layout = Layout()
    plain = layout.image(A, platform=platform_json(HOST))
    other = layout.image(B, platform=platform_json(HOST)) | changes
    layout.list(layout.index(*((other, plain) if first else (plain, other))), "1")
    assert layers_of(layout) == list(A)
    assert layers_of(layout, platform=str(HOST)) == list(A)


def test_layers_of_another_kind_never_win_over_those_that_a_machine_runs() -> None:
    layout = Layout()
    blob = layout.blob("application/vnd.oci.image.layer.nydus.blob.v1", LAYERS[1])
    other = layout.image(B, platform=platform_json(HOST), stored=[blob])
    layout.list(layout.index(other, layout.image(A, platform=platform_json(HOST))), "1")
    assert layers_of(layout) == list(A)


@pytest.mark.parametrize("ref", ["gone", "1.2", "1:2", "example.org/1"])
def test_a_name_that_is_not_there_lists_those_that_are(ref: str) -> None:
    layout = named("1", "2")
    layout.list(attestation(layout, layout.entries[0]))
    message = f"x.tar has no image {ref}; there are 1 ({HOST}); 2 ({HOST})"
    assert unavailable(layout, f"oci:dir:{ref}") == message


def platforms(*texts: str, name: str | None = None) -> Layout:
    """Return a layout of an index with as many images as there are platforms, each with a layer of its own."""
    layout = Layout()
    images = []
    for text, layers in zip(texts, (A, B, C), strict=False):
        platform = Platform.parse(text)
        images.append(layout.image(layers, runs_on=platform, platform=platform_json(platform)))
    return layout.list(layout.index(*images), name)


@pytest.mark.parametrize(
    ("texts", "wanted", "layers"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", B),
        (["linux/arm64", "linux/amd64"], "linux/arm64", A),
        (["linux/arm64", "linux/amd64"], "linux/arm64/v8", A),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", B),
        (["linux/arm/v7", "linux/arm/v6"], "linux/arm/v6", B),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", B),
        (["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm", B),
        (["windows/amd64", "linux/amd64"], "windows/amd64", A),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64/v2", B),
    ],
)
def test_the_platform_that_is_asked_for_is_picked(texts: list[str], wanted: str, layers: tuple[bytes, ...]) -> None:
    assert layers_of(platforms(*texts), platform=wanted) == list(layers)


@pytest.mark.parametrize(
    ("machine", "texts", "layers"),
    [
        ("x86_64", ["linux/arm64", "linux/386", "linux/amd64"], C),
        ("x86_64", ["linux/arm64", "linux/386"], B),
        ("aarch64", ["linux/amd64", "linux/arm/v6", "linux/arm/v7"], C),
        ("s390x", ["linux/amd64", "linux/s390x"], B),
    ],
)
def test_by_default_this_machines_platform_or_what_it_also_runs_is_picked(
    monkeypatch: pytest.MonkeyPatch, machine: str, texts: list[str], layers: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr("os.uname", lambda: os.uname_result(("Linux", "host", "6.18", "#1", machine)))
    assert layers_of(platforms(*texts)) == list(layers)


def test_the_only_image_is_shown_whatever_it_is_for_unless_another_is_asked_for() -> None:
    layout = platforms(str(OTHER))
    assert layers_of(layout) == list(A)
    message = f"x.tar has no image for linux/s390x; there are {layout_digest(layout)} ({OTHER})"
    assert unavailable(layout, platform="linux/s390x") == message


def layout_digest(layout: Layout) -> str:
    """Return the digest of the manifest in the only index of *layout*."""
    index = json.loads(layout.files[f"blobs/{layout.entries[0]['digest'].replace(':', '/')}"])
    return str(index["manifests"][0]["digest"])


def test_a_platform_that_is_not_there_lists_those_that_are() -> None:
    layout = platforms("linux/arm64", "linux/arm/v7", name="1")
    choices = "1 (linux/arm64); 1 (linux/arm/v7)"
    assert unavailable(layout, platform="linux/s390x") == f"x.tar has no image for linux/s390x; there are {choices}"
    assert unavailable(layout, platform="linux/arm/v6") == f"x.tar has no image for linux/arm/v6; there are {choices}"


def test_manifests_without_a_platform_are_told_apart_by_their_configs() -> None:
    layout = Layout()
    layout.list(layout.index(layout.image(A, runs_on=OTHER), layout.image(B, runs_on=HOST)))
    assert layers_of(layout) == list(B)
    assert layers_of(layout, platform=str(OTHER)) == list(A)


def test_platforms_may_be_listed_without_an_index_between() -> None:
    layout = Layout()
    layout.list(layout.image(A, runs_on=OTHER, platform=platform_json(OTHER)), "1")
    layout.list(layout.image(B, platform=platform_json(HOST)), "1")
    assert layers_of(layout) == list(B)
    assert layers_of(layout, "oci:dir:1", str(OTHER)) == list(A)


def test_attestations_are_no_choices() -> None:
    layout = Layout()
    image = layout.image(A, platform=platform_json(HOST))
    layout.list(layout.index(attestation(layout, image), image)).list(attestation(layout, image))
    assert layers_of(layout) == list(A)


def test_what_other_platforms_miss_does_not_matter(take_warnings: TakeWarnings) -> None:
    layout = Layout()
    gone = layout.image(B, runs_on=OTHER, platform=platform_json(OTHER))
    index = layout.index(layout.image(C, runs_on=OTHER, platform=platform_json(OTHER)))
    layout.list(layout.index(gone, index, layout.image(A, platform=platform_json(HOST))))
    layout.remove(gone)
    layout.remove(index)
    assert layers_of(layout) == list(A)
    assert take_warnings() == [f"dir: the index {index['digest']} is not stored"]


@pytest.mark.parametrize("kind", ["application/vnd.example.thing+json", "application/vnd.oci.image.manifest.v2+json"])
def test_an_entry_of_an_unknown_kind_beside_the_image_is_passed_over(kind: str) -> None:
    # OCI, "Image Index": an encountered media type that is unknown MUST NOT generate an error.
    layout = Layout()
    thing = layout.blob(kind, b"{}", platform=platform_json(HOST))
    assert layers_of(layout.list(layout.index(thing, layout.image(A, platform=platform_json(HOST))))) == list(A)


def test_an_index_that_is_listed_again_and_again_is_walked_once() -> None:
    # Else eight small documents, each listing the next one twice, or a thousand times, take for ever.
    layout = Layout()
    descriptor = layout.image(A, runs_on=OTHER)
    for _ in range(8):
        descriptor = layout.index(descriptor, descriptor)
    message = unavailable(layout.list(descriptor, "1"), platform=str(HOST))
    assert message == f"x.tar has no image for {HOST}; there are 1 ({OTHER})"


def test_platforms_are_compared_by_the_names_of_go() -> None:
    layout = Layout()
    images = []
    for architecture, layers in (("aarch64", A), ("x86_64", B), ("armhf", C)):
        platform = Platform("linux", architecture)
        images.append(layout.image(layers, runs_on=platform, platform=platform_json(platform)))
    layout.list(layout.index(*images), "1")
    assert [layers_of(layout, platform=name) for name in ("linux/arm64", "amd64", "linux/arm/v7", "linux/armhf")] == [
        list(A),
        list(B),
        list(C),
        list(C),
    ]
