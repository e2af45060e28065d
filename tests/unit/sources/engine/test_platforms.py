"""``--platform`` where the engine knows it: against a server of ours, since no packaged engine is that new."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fusefs.content.file import Extent
from fusefs.errors import EngineError, ImgfsError, InvalidImage, Unavailable
from fusefs.image.model import Image
from fusefs.oci.platform import Platform
from fusefs.sources import open_image
from tests.support.builders import sha256
from tests.support.conformance import SPOOLING, check_image
from tests.support.fake_engine import Answer, Engine, Script, fake_engine, json_answer
from tests.support.layouts import HOST, OTHER, Json, Layout, attestation, platform_json, saved_layout, two_platforms
from tests.support.processes import until

MULTI, INDEX, OWN, FOREIGN = two_platforms()
ARM64 = Platform("linux", "arm64", "v8")


def _saved(layout: Layout, *listed: Json, item: Json) -> bytes:
    """Return *layout* as an engine saves it, *listed* in its index.json, *item* in its manifest.json."""
    layout.entries = [entry | {"annotations": {"io.containerd.image.name": "docker.io/library/multi:1"}}
                      for entry in listed]  # fmt: skip
    return saved_layout(layout, item, tags=["multi:1"])


def _without_index(item: Json) -> bytes:
    """Return what a newer engine saves for one platform: its manifest, and not the index that lists it."""
    layout = Layout()
    layout.files = {path: data for path, data in MULTI.files.items() if sha256(data) != INDEX["digest"]}
    return _saved(layout, item, item=item)


def _with_index(item: Json = OWN) -> bytes:
    """Return what an engine saves of all platforms; the manifest list has the one that suits it."""
    layout = Layout()
    layout.files = dict(MULTI.files)
    return _saved(layout, INDEX, item=item)


@pytest.fixture(name="engine")
def newer_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that knows platforms, with an image of two, until the test says otherwise."""
    document = {"Id": INDEX["digest"], "Size": 10_000, "RepoTags": ["multi:1"]}
    own = json.loads(MULTI.files[f"blobs/{OWN['digest'].replace(':', '/')}"])
    config = json.loads(MULTI.files[f"blobs/{own['config']['digest'].replace(':', '/')}"])
    document["RootFS"] = {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]}
    script = Script(inspect=json_answer(document))
    with fake_engine(script, socket=tmp_path / "engine.sock") as engine:
        speaks(engine, "1.48")
        honest = engine.answer

        def answer(path: str) -> Answer:
            found = honest(path.partition("?")[0])
            engine.asked[-1] = path
            return found

        monkeypatch.setattr(engine, "answer", answer)
        yield engine


def speaks(engine: Engine, version: str) -> None:
    """Make *version* the one of the API that *engine* speaks."""
    engine.script.version = json_answer({"Version": "x", "ApiVersion": version, "MinAPIVersion": "1.24"})


def saves(engine: Engine, data: bytes) -> None:
    """Make *data* what *engine* saves."""
    engine.script.save = Answer(parts=[data])


@contextmanager
def image_of(engine: Engine, platform: Platform | None) -> Iterator[Image]:
    """Open the image in *engine* with ``--platform``, as the command does.

    Only what is the image's own is closed: the server is in this process, too, and has its sockets.
    """
    image = open_image("multi:1", SPOOLING._replace(host=engine.host, platform=platform)).image
    until(lambda: engine.connections == 0, "all connections are closed")
    spool = {layer.content.file for layer in image.layers if isinstance(layer.content, Extent)}
    try:
        yield image
    finally:
        for file in spool:
            file.close()


def refusal(engine: Engine, platform: Platform | None) -> tuple[type[ImgfsError], str]:
    """Return the class and message of the error that opening the image is."""
    with pytest.raises(ImgfsError) as caught:
        open_image("multi:1", SPOOLING._replace(host=engine.host, platform=platform))
    return type(caught.value), str(caught.value)


def _query(engine: Engine) -> str:
    """Return the query of the one save that *engine* was asked for."""
    (path,) = (path for path in engine.asked if urlsplit(path).path.endswith("/get"))
    assert urlsplit(path).path.endswith(f"/images/{INDEX['digest']}/get")
    return urlsplit(path).query


@pytest.mark.parametrize("version", ["1.48", "1.49", "1.51", "1.100", "2.0"])
@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        (OTHER, {"os": "linux", "architecture": "mips64le"}),
        (ARM64, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
    ],
    ids=["no variant", "a variant"],
)
def test_an_engine_that_knows_platforms_is_asked_for_one_in_json(
    engine: Engine, version: str, platform: Platform, expected: dict[str, str]
) -> None:
    speaks(engine, version)
    engine.script.save = json_answer(
        {"message": "image with reference multi:1 was found but has no such platform"}, 404
    )
    kind, message = refusal(engine, platform)
    assert (kind, "has no such platform" in message) == (EngineError, True)
    word, _, value = _query(engine).partition("=")
    assert (word, json.loads(value.replace("+", " "))) == ("platform", expected)


@pytest.mark.parametrize("version", ["1.24", "1.41", "1.45", "1.47"])
def test_an_older_engine_is_not_asked_for_a_platform(engine: Engine, version: str) -> None:
    speaks(engine, version)
    saves(engine, _with_index())
    with image_of(engine, OTHER) as image:
        check_image(image)
        assert str(image.manifest.descriptor.digest) == FOREIGN["digest"]
    assert _query(engine) == ""


@pytest.mark.parametrize("version", ["1.47", "1.48"])
def test_without_the_option_no_engine_is_asked_for_a_platform(engine: Engine, version: str) -> None:
    speaks(engine, version)
    saves(engine, _with_index())
    with image_of(engine, None) as image:
        check_image(image)
        assert str(image.manifest.descriptor.digest) == OWN["digest"]
    assert _query(engine) == ""


@pytest.mark.parametrize(("platform", "item"), [(HOST, OWN), (OTHER, FOREIGN)], ids=["own", "other"])
def test_the_one_platform_that_a_newer_engine_saves_needs_no_index(
    engine: Engine, platform: Platform, item: Json
) -> None:
    saves(engine, _without_index(item))
    with image_of(engine, platform) as image:
        check_image(image)
        assert (image.platform, image.tag) == (platform, "1")
        assert str(image.manifest.descriptor.digest) == item["digest"]


@pytest.mark.parametrize(("platform", "item"), [(HOST, OWN), (OTHER, FOREIGN)], ids=["own", "other"])
def test_a_newer_engine_may_save_the_index_all_the_same(engine: Engine, platform: Platform, item: Json) -> None:
    saves(engine, _with_index(item))
    with image_of(engine, platform) as image:
        check_image(image)
        assert str(image.manifest.descriptor.digest) == item["digest"]
        assert INDEX["digest"] in {str(descriptor.digest) for descriptor, _ in image.blobs()}


def test_another_platform_than_was_asked_for_is_refused(engine: Engine) -> None:
    saves(engine, _without_index(OWN))
    kind, message = refusal(engine, OTHER)
    assert (kind, message.startswith(f"multi:1 has no image for {OTHER}; ")) == (Unavailable, True)


NO_ID = f"no image config, manifest or index has the digest {INDEX['digest']}, the image's ID"


def no_id(engine: Engine, platform: Platform | None) -> tuple[type[ImgfsError], str]:
    """Return the refusal of an archive in which nothing has the image's ID."""
    kind, message = refusal(engine, platform)
    return kind, message.removeprefix("multi:1: ")


@pytest.mark.parametrize("version", ["1.47", "1.48"])
def test_without_the_option_the_index_must_be_there(engine: Engine, version: str) -> None:
    speaks(engine, version)
    saves(engine, _without_index(OWN))
    assert no_id(engine, None) == (InvalidImage, NO_ID)


@pytest.mark.parametrize("platform", [HOST, OTHER], ids=["own", "other"])
def test_from_an_older_engine_the_index_must_be_there(engine: Engine, platform: Platform) -> None:
    """It was not asked for a platform: an archive in which nothing has the image's ID is another image's."""
    speaks(engine, "1.47")
    saves(engine, _without_index(OWN if platform == HOST else FOREIGN))
    assert no_id(engine, platform) == (InvalidImage, NO_ID)


def test_an_attestation_is_not_taken_for_the_one_platform(engine: Engine) -> None:
    layout = Layout()
    image = layout.image(compression="gzip", runs_on=OTHER, platform=platform_json(OTHER))
    saves(engine, _saved(layout, attestation(layout, image), image, item=image))
    with image_of(engine, OTHER) as found:
        assert str(found.manifest.descriptor.digest) == image["digest"]


def test_the_layers_that_were_saved_for_this_machine_are_those_of_inspect(engine: Engine) -> None:
    document = {"Id": INDEX["digest"], "Size": 1, "RootFS": {"Layers": [sha256(b"another")]}}
    engine.script.inspect = json_answer(document)
    saves(engine, _with_index())
    _, message = refusal(engine, None)
    assert message == "multi:1: the saved image has other layers (4) than the engine says (1)"


def test_an_artifact_of_a_containerd_store_is_shown(engine: Engine) -> None:
    # Docker describes it with no layers at all.
    layout = Layout()
    config = layout.blob("application/vnd.cncf.helm.config.v1+json", b"{}")
    chart = layout.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart")
    artifact = layout.image([], config=config, stored=[chart])
    described = {"Id": artifact["digest"], "Size": 10, "RepoTags": ["multi:1"], "RootFS": {"Type": "", "Layers": None}}
    engine.script.inspect = json_answer(described)
    saves(engine, _saved(layout, artifact, item=artifact))
    with image_of(engine, None) as image:
        check_image(image)
        assert (image.artifact, str(image.manifest.descriptor.digest)) == (True, artifact["digest"])
