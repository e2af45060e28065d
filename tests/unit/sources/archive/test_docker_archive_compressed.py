"""Docker archives with compressed layers, and those that are image layouts besides."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs.errors import InvalidImage, Unavailable
from fusefs.image.model import Image
from fusefs.oci.digest import Digest
from fusefs.oci.documents import DOCKER_MANIFEST, OCI_MANIFEST
from fusefs.oci.platform import Platform
from tests.support.builders import (
    COMPRESSIONS,
    LAYERS,
    Archive,
    archive_of,
    hard_link,
    image_config,
    member,
    schema2_manifest,
    sha256,
)
from tests.support.conformance import SETTINGS, SOURCE, Noted, check_image, docker_archive, opened, refusal, stored
from tests.support.layouts import (
    COMPRESSED_LAYOUTS,
    HOST,
    OTHER,
    Json,
    Layout,
    platform_json,
    saved_layout,
    two_platforms,
)

NULL_INDEX = b'{"schemaVersion":2,"manifests":null}'

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@contextmanager
def image_of(data: bytes, platform: Platform | None = None, image_id: str | None = None) -> Iterator[Image]:
    """Open the image in an archive, or the one with this ID, and check it."""
    Path("x.tar").write_bytes(data)
    with docker_archive(Path("x.tar")) as archive:
        if image_id is None:
            image = archive.image(None, platform, SOURCE)
        else:
            image = archive.image_with_id(Digest.parse(image_id), platform, SOURCE, "tag")
        check_image(image)
        yield image


def digests(image: Image) -> tuple[str, list[str]]:
    """Return the digests of the manifest and of the documents on the way to it."""
    return str(image.manifest.descriptor.digest), [str(one.descriptor.digest) for one in image.documents]


@pytest.mark.parametrize("build", COMPRESSED_LAYOUTS.values(), ids=COMPRESSED_LAYOUTS.keys())
def test_every_layout_shows_the_stored_blobs(build: Callable[[], bytes]) -> None:
    with image_of(build()) as image:
        assert [str(layer.diff_id) for layer in image.layers] == [sha256(data) for data in LAYERS]
        assert all(layer.compression is not None for layer in image.layers)
        assert image.tag == "1"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_without_a_stored_manifest_one_over_the_stored_blobs_is_generated(compression: str) -> None:
    blobs = [COMPRESSIONS[compression](data) for data in LAYERS]
    with image_of(Archive(layers=blobs, config=image_config(LAYERS)).data()) as image:
        assert [stored(layer) for layer in image.layers] == blobs
        assert image.manifest.content.data == schema2_manifest(image_config(LAYERS), blobs)
        assert image.manifest.descriptor.media_type == DOCKER_MANIFEST
        assert image.documents == ()


def test_plain_and_compressed_layers_may_be_mixed() -> None:
    blobs = [LAYERS[0], *(COMPRESSIONS["gzip"](data) for data in LAYERS[1:])]
    with image_of(Archive(layers=blobs, config=image_config(LAYERS)).data()) as image:
        assert image.manifest.content.data == schema2_manifest(image_config(LAYERS), blobs)


def test_what_nothing_states_the_digest_of_is_hashed_once_with_progress() -> None:
    blobs = [LAYERS[0], *(COMPRESSIONS["gzip"](data) for data in LAYERS[1:])]
    Archive(layers=blobs, config=image_config(LAYERS)).write(Path("x.tar"))
    noted = Noted()
    with opened("./x.tar", SETTINGS._replace(progress=noted)):
        assert noted.done == sum(len(data) for data in blobs[1:3])  # the last one is the second again


def test_what_states_its_digests_is_not_hashed() -> None:
    Path("x.tar").write_bytes(COMPRESSED_LAYOUTS["containerd store, gzip"]())
    noted = Noted()
    with opened("./x.tar", SETTINGS._replace(progress=noted)):
        assert noted.transfers == []


@pytest.mark.parametrize(("kind", "media_type"), [("oci", OCI_MANIFEST), ("docker", DOCKER_MANIFEST)])
def test_with_compressed_layers_the_stored_manifest_is_shown(kind: str, media_type: str) -> None:
    layout, index, own, _ = two_platforms(kind)
    with image_of(saved_layout(layout.list(index, "1"), own)) as image:
        assert digests(image) == (own["digest"], [index["digest"]])
        assert image.manifest.descriptor.media_type == media_type
        assert stored(image.layers[0]) == COMPRESSIONS["gzip"](LAYERS[0])


def test_with_plain_layers_the_docker_manifest_is_generated_and_the_stored_one_is_listed() -> None:
    layout, index, own, _ = two_platforms(compression=None)
    with image_of(saved_layout(layout.list(index, "1"), own)) as image:
        config = image.config.content.data
        assert image.manifest.content.data == schema2_manifest(config, LAYERS)
        assert digests(image)[1] == [index["digest"], own["digest"]]
        assert str(image.oci_manifest.descriptor.digest) == own["digest"]


def test_saved_by_id_a_classic_store_writes_no_tags_and_an_index_of_null() -> None:
    layout = Layout()
    data = saved_layout(layout, layout.image(LAYERS), tags=None)
    null = data.replace(member("index.json", layout.all_files["index.json"]), member("index.json", NULL_INDEX))
    assert null != data
    with image_of(null) as image:
        assert image.manifest.content.data == schema2_manifest(image.config.content.data, LAYERS)
        assert (image.tag, image.documents) == ("latest", ())


def test_saved_by_id_a_containerd_store_writes_no_tags_and_no_names() -> None:
    layout, index, own, _ = two_platforms()
    with image_of(saved_layout(layout.list(index), own, tags=None)) as image:
        assert digests(image) == (own["digest"], [index["digest"]])
        assert image.tag == "latest"


def shuffled() -> tuple[bytes, Json]:
    """Return an archive of Docker 25.0.0, and its manifest that lists the layers in another order."""
    layout = Layout()
    good = layout.image(LAYERS)
    manifest = json.loads(layout.files[f"blobs/{good['digest'].replace(':', '/')}"])
    manifest["layers"].reverse()
    bad = layout.document("manifest", manifest)
    data = saved_layout(layout.list(bad, "1"), good)
    return data, bad


def test_a_stored_manifest_that_is_shuffled_does_not_count() -> None:
    # Docker 25.0.0 wrote such; the manifest list is right.
    data, bad = shuffled()
    with image_of(data) as image:
        assert [stored(layer) for layer in image.layers] == list(LAYERS)
        assert image.manifest.content.data == schema2_manifest(image.config.content.data, LAYERS)
        assert bad["digest"] not in [str(descriptor.digest) for descriptor, _ in image.blobs()]


def broken(what: str) -> bytes:
    """Return an archive whose image layout is wrong and whose manifest list is right."""
    layout = Layout()
    own = layout.image(LAYERS)
    manifest = json.loads(layout.files[f"blobs/{own['digest'].replace(':', '/')}"])
    match what:
        case "a layer's size":
            manifest["layers"][0]["size"] += 1
        case "the config's size":
            manifest["config"]["size"] += 1
    listed = layout.document("manifest", manifest)
    if what == "the manifest's digest":
        layout.replace(listed, b"{}")
    if what == "the manifest's size":
        listed["size"] += 1
    layout.list(listed)
    if what == "the index":
        layout.files["index.json"] = b"{"
    paths = [f"blobs/{one['digest'].replace(':', '/')}" for one in (manifest["config"], *manifest["layers"])]
    item = {"Config": paths[0], "RepoTags": ["a:1"], "Layers": paths[1:]}
    return layout.tar(member("manifest.json", json.dumps([item]).encode()))


@pytest.mark.parametrize(
    "what", ["a layer's size", "the config's size", "the manifest's digest", "the manifest's size", "the index"]
)
def test_a_layout_that_makes_no_sense_does_not_count(what: str) -> None:
    with image_of(broken(what)) as image:
        assert [stored(layer) for layer in image.layers] == list(LAYERS)
        assert image.documents == ()


@pytest.mark.parametrize("which", ["config", "manifest", "index"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_an_id_may_be_the_digest_of_config_manifest_or_index(which: str, compression: str | None) -> None:
    layout, index, own, _ = two_platforms(compression=compression)
    config = json.loads(layout.files[f"blobs/{own['digest'].replace(':', '/')}"])["config"]
    image_id = {"config": config, "manifest": own, "index": index}[which]["digest"]
    with image_of(saved_layout(layout.list(index, "1"), own), image_id=image_id) as image:
        assert str(image.config.descriptor.digest) == config["digest"]
        shown = {str(descriptor.digest) for descriptor, _ in image.blobs()}
        assert {image_id, own["digest"]} <= shown
        assert image.tag == "tag"
        if compression is None:
            assert image.manifest.content.data == schema2_manifest(image.config.content.data, LAYERS)
        else:
            assert str(image.manifest.descriptor.digest) == own["digest"]


def test_an_id_that_is_nowhere_in_the_archive_is_named() -> None:
    layout, index, own, _ = two_platforms()
    gone = sha256(b"gone")
    with pytest.raises(InvalidImage) as caught, image_of(saved_layout(layout.list(index), own), image_id=gone):
        pass
    assert str(caught.value) == f"x.tar: no image config, manifest or index has the digest {gone}, the image's ID"


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("with_id", [True, False])
def test_another_platform_is_picked_from_the_saved_index(compression: str | None, *, with_id: bool) -> None:
    layout, index, own, other = two_platforms(compression=compression)
    data = saved_layout(layout.list(index, "1"), own)
    with image_of(data, OTHER, index["digest"] if with_id else None) as image:
        assert image.platform == OTHER
        assert [str(layer.diff_id) for layer in image.layers] == [sha256(LAYERS[0])]
        assert other["digest"] in [str(descriptor.digest) for descriptor, _ in image.blobs()]
        assert image.oci_manifest.descriptor.digest == Digest.parse(other["digest"])


def test_the_platform_of_the_manifest_list_may_be_asked_for() -> None:
    layout, index, own, _ = two_platforms()
    with image_of(saved_layout(layout.list(index, "1"), own), HOST) as image:
        assert image.platform == HOST


def test_the_best_of_several_variants_is_picked() -> None:
    layout = Layout()
    v6, v7 = (Platform("linux", "arm", variant) for variant in ("v6", "v7"))
    older = layout.image(LAYERS[:1], "gzip", v6, platform=platform_json(v6))
    newer = layout.image(LAYERS[1:2], "gzip", v7, platform=platform_json(v7))
    with image_of(saved_layout(layout.list(layout.index(older, newer), "1"), older), v7) as image:
        assert image.platform == v7


def unavailable(data: bytes, platform: str) -> str:
    """Return why there is no image for *platform*."""
    Path("x.tar").write_bytes(data)
    error, message = refusal("./x.tar", SETTINGS._replace(platform=Platform.parse(platform)))
    assert error is Unavailable
    return message


def test_a_platform_that_is_not_there_lists_those_that_are() -> None:
    layout, index, own, _ = two_platforms()
    choices = f"1 ({OTHER}); 1 ({HOST})"
    message = unavailable(saved_layout(layout.list(index, "1"), own), "linux/vax")
    assert message == f"./x.tar has no image for linux/vax; there are {choices}"


@pytest.mark.parametrize("build", [Archive().data, lambda: shuffled()[0]], ids=["classic", "shuffled"])
def test_an_archive_of_one_platform_says_which(build: Callable[[], bytes]) -> None:
    message = unavailable(build(), "linux/vax")
    assert message.startswith("./x.tar has no image for linux/vax; it is for linux/")


def test_the_image_of_another_name_is_no_platform_of_this_one() -> None:
    layout = Layout()
    first = layout.image(LAYERS[:1], platform=platform_json(HOST))
    second = layout.image(LAYERS[1:2], runs_on=OTHER, platform=platform_json(OTHER))
    data = saved_layout(layout.list(first, "1").list(second, "2"), first)
    assert unavailable(data, str(OTHER)) == f"./x.tar has no image for {OTHER}; it is for {HOST}"


def test_one_stored_blob_cannot_have_two_diff_ids() -> None:
    blob = COMPRESSIONS["gzip"](LAYERS[0])
    archive = Archive(layers=[blob, blob], config=image_config(LAYERS[:2]), layer_names=["a", "b"])
    data = archive_of(
        member("a", blob),
        hard_link("b", "a"),
        member(archive.item()["Config"], archive.config_data),
        member("manifest.json", archive.manifest_data()),
    )
    Path("x.tar").write_bytes(data)
    message = f"./x.tar: b is listed for two diffIDs: {sha256(LAYERS[0])} and {sha256(LAYERS[1])}"
    assert refusal("./x.tar") == (InvalidImage, message)
