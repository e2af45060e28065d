"""Docker 26 with both image stores: what is mounted is what the engine has, however it is stored and saved."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from fusefs.image.model import Image
from fusefs.oci.platform import Platform
from tests.support.builders import LAYERS, Archive, compressed, image_config, layer, schema2_manifest, sha256
from tests.support.conformance import SPOOLING, check_image, opened, refusal
from tests.support.engines import RealEngine
from tests.support.layouts import HOST, OTHER, Layout, platform_json, two_platforms
from tests.support.modern_engines import Skopeo
from tests.support.mounts import Bench, tree
from tests.support.requirements import need

KINDS = ("plain", "gzip", "zstd")
CONTAINERD = "docker26-containerd"
MULTI, INDEX, OWN, FOREIGN = two_platforms()
"""An image of this platform and another, with attestations: the layout, its index, its manifests."""


def layers_of(kind: str) -> tuple[bytes, ...]:
    """Return the layers of the image called *kind*; engines tell images of the same layers not apart."""
    return (*LAYERS, layer({"kind": kind.encode()}))


def _load(engine: RealEngine, folder: Path, skopeo118: Skopeo) -> None:
    """Load an image of each kind into *engine*; an image layout only its containerd store takes."""
    containerd = engine.name == CONTAINERD
    for kind in KINDS:
        layers = layers_of(kind)
        path = folder / f"{kind}.tar"
        if kind == "plain" or not containerd:
            # The classic store decompresses what it loads.
            stored = [compressed(data, None if kind == "plain" else kind) for data in layers]
            Archive(layers=stored, config=image_config(layers), tags=[f"{kind}:1"]).write(path)
        else:
            layout = Layout()
            layout.list(layout.image(layers), "1").write(str(folder / kind))
            options = ["copy", "-q", "--dest-compress", "--dest-compress-format", kind, f"oci:{folder}/{kind}:1"]
            target = f"oci-archive:{path}:docker.io/library/{kind}:1"
            if kind == "gzip":
                subprocess.run(["skopeo", *options, target], check=True, capture_output=True)
            else:
                skopeo118(*options, target, folders=[folder])
        engine.docker("load", "-i", path)
    if containerd:
        MULTI.list(INDEX, "1", **{"io.containerd.image.name": "docker.io/library/multi:1"})
        (folder / "multi.tar").write_bytes(MULTI.tar())
        engine.docker("load", "-i", folder / "multi.tar")


@pytest.fixture(scope="module", name="classic")
def classic_fixture(docker26_classic: RealEngine, skopeo118: Skopeo) -> RealEngine:
    """Give the classic store with an image of each kind."""
    return _with_images(docker26_classic, skopeo118)


@pytest.fixture(scope="module", name="containerd")
def containerd_fixture(docker26_containerd: RealEngine, skopeo118: Skopeo) -> RealEngine:
    """Give the containerd store with an image of each kind, and one of two platforms."""
    return _with_images(docker26_containerd, skopeo118)


def _with_images(engine: RealEngine, skopeo118: Skopeo) -> RealEngine:
    need("skopeo")
    folder = engine.folder / "images"
    folder.mkdir()
    _load(engine, folder, skopeo118)
    return engine


@pytest.fixture(params=["classic", "containerd"], name="store")
def store_fixture(request: pytest.FixtureRequest) -> RealEngine:
    """Give each store in turn."""
    engine = request.getfixturevalue(request.param)
    assert isinstance(engine, RealEngine)
    return engine


@contextmanager
def image_in(engine: RealEngine, name: str, platform: Platform | None = None) -> Iterator[Image]:
    """Open the image *name* in *engine* as the command does."""
    with opened(name, SPOOLING._replace(host=engine.host, platform=platform)) as image:
        yield image


class Shown(NamedTuple):
    """An image's documents."""

    manifest: bytes
    config: bytes
    tag: str
    blobs: frozenset[str]


def shown(image: Image) -> Shown:
    """Return what is to be compared of *image*."""
    digests = frozenset(str(descriptor.digest) for descriptor, _ in image.blobs())
    return Shown(bytes(image.manifest.content.data), bytes(image.config.content.data), image.tag, digests)


def names_of(engine: RealEngine, kind: str) -> Mapping[str, str]:
    """Return what the image *kind* can be called."""
    identity = engine.inspect(f"{kind}:1")["Id"]
    names = {"tag": f"{kind}:1", "ID": identity, "short ID": identity[7:19]}
    if engine.name == CONTAINERD:
        names["digest"] = f"{kind}@{identity}"
    return names


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_the_same_by_tag_digest_id_and_short_id(store: RealEngine, kind: str) -> None:
    found = set()
    for name in names_of(store, kind).values():
        with image_in(store, name) as image:
            check_image(image)
            found.add(shown(image))
    (only,) = found
    assert only.tag == "1"
    assert only.config == _config(kind)
    assert str(store.inspect(f"{kind}:1")["Id"]) in only.blobs


def _config(kind: str) -> bytes:
    """Return the image config that was loaded, which every engine and skopeo keep as it is."""
    return image_config(layers_of(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_classic_store_has_the_manifest_that_containers_image_generates(classic: RealEngine, kind: str) -> None:
    with image_in(classic, f"{kind}:1") as image:
        assert shown(image).manifest == schema2_manifest(_config(kind), layers_of(kind))
        assert classic.inspect(f"{kind}:1")["Id"] == str(image.config.descriptor.digest)


def test_the_containerd_store_has_that_manifest_too_where_layers_are_plain(containerd: RealEngine) -> None:
    with image_in(containerd, "plain:1") as image:
        assert shown(image).manifest == schema2_manifest(_config("plain"), layers_of("plain"))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_the_containerd_store_has_the_stored_manifest_where_layers_are_compressed(
    containerd: RealEngine, kind: str
) -> None:
    with image_in(containerd, f"{kind}:1") as image:
        assert sha256(shown(image).manifest) == containerd.inspect(f"{kind}:1")["Id"]
        assert {str(layer.compression.value) for layer in image.layers if layer.compression} == {kind}
        assert [str(layer.diff_id) for layer in image.layers] == containerd.inspect(f"{kind}:1")["RootFS"]["Layers"]


@pytest.mark.parametrize("by", ["tag", "ID"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_shows_what_the_engine_that_saved_it_has(
    store: RealEngine, tmp_path: Path, kind: str, by: str
) -> None:
    path = store.save(tmp_path / "saved.tar", names_of(store, kind)[by])
    (item,) = json.loads(_member(path, "manifest.json"))
    assert item["RepoTags"] == ([f"{kind}:1"] if by == "tag" else None)
    with image_in(store, f"{kind}:1") as expected, opened(str(path)) as image:
        check_image(image)
        # Without a tag in the archive there is none to show; and what nothing asks for by ID is not on the way.
        assert shown(image)[:3] == (*shown(expected)[:2], "1" if by == "tag" else "latest")
        assert shown(image).blobs <= shown(expected).blobs


def _member(path: Path, name: str) -> bytes:
    return subprocess.run(["tar", "-xOf", path, name], check=True, capture_output=True).stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_archive_has_the_config_and_the_layers_that_skopeo_sees(
    store: RealEngine, tmp_path: Path, kind: str
) -> None:
    path = store.save(tmp_path / "saved.tar", f"{kind}:1")
    with opened(str(path)) as image:
        for transport in ("docker-archive", "oci-archive"):
            seen = json.loads(_skopeo(f"{transport}:{path}", "--raw"))
            assert seen["config"]["digest"] == str(image.config.descriptor.digest)
            assert _skopeo(f"{transport}:{path}", "--config", "--raw") == _config(kind)
        stored = [layer.compression for layer in image.layers]
        same = "docker-archive" if stored == [None] * len(stored) else "oci-archive"
        assert _skopeo(f"{same}:{path}", "--raw") == shown(image).manifest


def _skopeo(image: str, *options: str) -> bytes:
    return subprocess.run(["skopeo", "inspect", *options, image], check=True, capture_output=True).stdout


def test_an_image_of_two_platforms_has_its_index_and_its_manifest_in_blobs(containerd: RealEngine) -> None:
    assert containerd.inspect("multi:1")["Id"] == INDEX["digest"]
    found = set()
    for name in names_of(containerd, "multi").values():
        with image_in(containerd, name) as image:
            check_image(image)
            found.add(shown(image))
    (only,) = found
    assert sha256(only.manifest) == OWN["digest"]
    assert {INDEX["digest"], OWN["digest"], sha256(only.config)} <= only.blobs


def test_an_older_engine_saves_all_platforms_and_one_is_picked_from_them(containerd: RealEngine) -> None:
    for name in names_of(containerd, "multi").values():
        with image_in(containerd, name, OTHER) as image:
            check_image(image)
            assert (image.platform, sha256(shown(image).manifest)) == (OTHER, FOREIGN["digest"])
            assert INDEX["digest"] in shown(image).blobs


def test_of_an_image_that_was_pulled_for_this_platform_the_others_do_not_matter(
    imgfs: Bench, containerd: RealEngine
) -> None:
    layout, index, own, other = two_platforms()
    layout.list(index, "1", **{"io.containerd.image.name": "docker.io/library/pulled:1"})
    missing = json.loads(layout.files[f"blobs/{other['digest'].replace(':', '/')}"])
    for descriptor in (other, missing["config"]):
        layout.remove(descriptor)
    (imgfs.folder / "pulled.tar").write_bytes(layout.tar())
    containerd.docker("load", "-i", imgfs.folder / "pulled.tar")
    with image_in(containerd, "pulled:1") as image:
        check_image(image)
        assert sha256(shown(image).manifest) == own["digest"]
        assert index["digest"] in shown(image).blobs


def test_an_image_that_is_only_for_another_platform_is_shown_if_asked(imgfs: Bench, containerd: RealEngine) -> None:
    layout = Layout()
    other = layout.image(layers_of("foreign"), "gzip", OTHER, platform=platform_json(OTHER))
    index = layout.index(other)
    layout.list(index, "1", **{"io.containerd.image.name": "docker.io/library/foreign:1"})
    (imgfs.folder / "foreign.tar").write_bytes(layout.tar())
    containerd.docker("load", "-i", imgfs.folder / "foreign.tar")
    for platform in (OTHER, None):
        with image_in(containerd, "foreign:1", platform) as image:
            check_image(image)
            assert sha256(shown(image).manifest) == other["digest"]


def test_a_platform_that_is_not_there_is_an_error_with_the_choices(containerd: RealEngine) -> None:
    _, message = refusal("multi:1", SPOOLING._replace(host=containerd.host, platform=Platform("linux", "s390x")))
    choices = f"{FOREIGN['digest']} ({OTHER}); {OWN['digest']} ({HOST})"
    assert message == f"multi:1 has no image for linux/s390x; there are {choices}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_platform_of_an_image_for_one_is_compared(store: RealEngine, kind: str) -> None:
    with image_in(store, f"{kind}:1", Platform("linux", "amd64")) as image:
        assert shown(image).config == _config(kind)
    _, message = refusal(f"{kind}:1", SPOOLING._replace(host=store.host, platform=OTHER))
    assert message.startswith(f"{kind}:1 has no image for {OTHER}; ")


@pytest.mark.parametrize("by", ["tag", "ID", "digest"])
def test_a_saved_image_of_two_platforms_is_read_from_the_file(containerd: RealEngine, tmp_path: Path, by: str) -> None:
    path = containerd.save(tmp_path / "saved.tar", names_of(containerd, "multi")[by])
    for platform, expected in ((None, OWN), (OTHER, FOREIGN)):
        with opened(str(path), SPOOLING._replace(platform=platform)) as image:
            check_image(image)
            assert sha256(shown(image).manifest) == expected["digest"]


@pytest.mark.parametrize("kind", KINDS)
def test_so_is_an_image_that_was_saved_by_its_digest(containerd: RealEngine, tmp_path: Path, kind: str) -> None:
    path = containerd.save(tmp_path / "saved.tar", names_of(containerd, kind)["digest"])
    with opened(str(path)) as image, image_in(containerd, f"{kind}:1") as expected:
        check_image(image)
        assert shown(image)[:2] == shown(expected)[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_and_its_archive_are_mounted_alike(imgfs: Bench, store: RealEngine, kind: str) -> None:
    engine = imgfs.mount(f"{kind}:1", "-H", store.host, at=imgfs.mountpoint("engine"))
    path = store.save(imgfs.folder / "saved.tar", f"{kind}:1")
    archive = imgfs.mount(path, "--verify", at=imgfs.mountpoint("archive"))
    assert (engine / "rootfs" / "kind").read_bytes() == kind.encode()
    by_engine, by_archive = tree(engine), tree(archive)
    # The ID's own manifest is shown where someone asked for the ID.
    assert by_archive == {path: data for path, data in by_engine.items() if path in by_archive}
    assert {path.partition("/")[0] for path in by_engine.keys() - by_archive.keys()} <= {"blobs"}


def test_skopeo_copies_a_mounted_image_into_docker_26_and_its_id_stays(
    imgfs: Bench, classic: RealEngine, skopeo118: Skopeo
) -> None:
    archive = Archive(layers=layers_of("copied"), tags=["copied:1"])
    mountpoint = imgfs.mount(archive.write(imgfs.folder / "copied.tar"))
    target = ["--dest-daemon-host", classic.host, "docker-daemon:copied:2"]
    skopeo118("copy", "-q", f"oci:{mountpoint}:1", *target, folders=[imgfs.folder, classic.folder])
    assert classic.inspect("copied:2")["Id"] == sha256(archive.config_data)
