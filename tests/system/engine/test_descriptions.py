"""inspect of an image that is not cached: the engine alone is asked."""

import json
from collections.abc import Iterator

import pytest

from tests.support.builders import Archive, image_config, sha256
from tests.support.changesets import changeset, file
from tests.support.engines import RealEngine
from tests.support.fake_engine import Engine, fake_engine, json_answer
from tests.support.mounts import Bench, Finished
from tests.support.real_image import NGINX

LAYERS = [changeset(file("a", b"1")), changeset(file("b", b"2"))]
RUN = {"Env": ["A=b\x1b"], "Cmd": ["x"], "Labels": {"l": "m"}, "ExposedPorts": {"80/tcp": {}}}
HISTORY = [
    {"CreatedBy": "CMD [x]", "Size": 0, "Created": 3},
    {"CreatedBy": "RUN true", "Size": 0, "Created": 2},
    {"CreatedBy": "/bin/sh -c #(nop) ENV A=b", "Size": 0, "Created": 2},
    {"CreatedBy": "COPY a /", "Size": 3000, "Created": 1, "Comment": "c"},
]
"""As an engine states it: the newest step first; the one of the second layer has no files."""


@pytest.fixture(name="engine")
def engine_with_a_history(imgfs: Bench) -> Iterator[Engine]:
    """Give an engine that sends no image: a save would fail."""
    with fake_engine(socket=imgfs.folder / "engine.sock") as engine:
        script = engine.script
        script.archive = Archive(LAYERS, config=image_config(LAYERS))
        driver = {"Name": "overlay2"}
        created = "2024-01-02T03:04:05Z"
        about = {"Config": RUN, "Created": created, "Os": "linux", "Architecture": "amd64", "GraphDriver": driver}
        script.inspect = json_answer(script.inspected(RepoTags=["img:1"], RepoDigests=["img@sha256:0"], **about))
        script.history = json_answer(HISTORY)
        yield engine


def _inspected(imgfs: Bench, engine: Engine, *words: str) -> dict[str, object]:
    done = imgfs.run("inspect", "--json", "-H", engine.host, *words, "img:1")
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


def test_the_engine_alone_says_what_it_knows(imgfs: Bench, engine: Engine) -> None:
    found = _inspected(imgfs, engine)
    layers, history = found.pop("layers"), found.pop("history")
    assert found == {
        "name": "img:1", "tag": "1", "id": sha256(engine.script.archive.config_data), "digest": None,
        "mediaType": None, "platform": "linux/amd64", "created": "2024-01-02T03:04:05Z", "author": "", "size": 3000,
        "user": "", "workingDir": "", "entrypoint": [], "cmd": ["x"], "env": ["A=b\x1b"], "exposedPorts": ["80/tcp"],
        "volumes": [], "labels": {"l": "m"}, "stopSignal": "", "generated": None, "repoDigests": ["img@sha256:0"],
        "shell": [], "onBuild": [], "healthcheck": None, "referrers": None,
        "referrersComplete": None,
    }  # fmt: skip
    assert layers == [
        {
            "number": number, "size": size, "share": share, "digest": None, "diffId": sha256(data), "mediaType": None,
            "compression": "unknown", "stored": True, "createdBy": made_by, "plainSize": None,
        }
        for number, (data, size, share, made_by) in enumerate(
            [(LAYERS[0], 3000, 1.0, "COPY a /"), (LAYERS[1], 0, 0.0, "RUN true")]
        )
    ]  # fmt: skip
    assert isinstance(history, list)
    assert [(step["createdBy"], step["layer"]) for step in history] == [
        *(("COPY a /", 0), ("/bin/sh -c #(nop) ENV A=b", None), ("RUN true", 1), ("CMD [x]", None)),
    ]
    assert history[0]["created"] == "1970-01-01T00:00:01Z"
    assert [path for path in engine.asked if path.endswith("/get")] == []
    shown = imgfs.run("inspect", "-H", engine.host, "img:1").out
    assert "Digest       unknown: the image is not cached; --digests reads it\n" in shown
    assert "A=b\\x1b" in shown


def test_what_is_cached_or_asked_for_is_read(imgfs: Bench, engine: Engine) -> None:
    whole = _inspected(imgfs, engine, "--digests")
    assert (whole["digest"], whole["generated"]) != (None, None)
    assert len([path for path in engine.asked if path.endswith("/get")]) == 1
    assert _inspected(imgfs, engine) == whole  # from the cache
    assert len([path for path in engine.asked if path.endswith("/get")]) == 1


@pytest.mark.parametrize(
    "history", [{"message": "x"}, [], [7, None], [{"Size": -1}, {"Size": 1e300}, {"CreatedBy": 7, "Created": "x"}]]
)
def test_a_history_that_says_nothing_leaves_sizes_unknown(imgfs: Bench, engine: Engine, history: object) -> None:
    engine.script.history = json_answer(history)
    found = _inspected(imgfs, engine)
    if isinstance(history, dict):  # then the image is read
        assert found["digest"] is not None
        return
    layers = found["layers"]
    assert isinstance(layers, list)
    assert [(layer["size"], layer["share"], layer["createdBy"]) for layer in layers] == [(None, None, None)] * 2
    assert found["size"] == 10_000


def test_another_platform_fails_before_the_save(imgfs: Bench, engine: Engine) -> None:
    why = "imgfs: img:1 has no image for linux/arm64; it is for linux/amd64\n"
    for command in (["inspect"], ["ls"], ["mount", "--log-file", str(imgfs.log)]):
        words = [*command, "--platform", "linux/arm64", "-H", engine.host, "img:1"]
        mountpoint = [imgfs.mountpoint()] if command[0] == "mount" else []
        assert imgfs.run(*words, *mountpoint) == Finished(4, "", why)
    assert [path for path in engine.asked if path.endswith("/get")] == []


def test_real_engines_describe_an_image_as_it_is(imgfs: Bench, engine_of_each: RealEngine) -> None:
    on = ("inspect", "--json", "-H", engine_of_each.host, NGINX)
    described = json.loads(imgfs.run(*on).out)
    whole = json.loads(imgfs.run(*on, "--digests", "-q").out)
    assert (described["digest"], whole["digest"][:7]) == (None, "sha256:")
    same = {*whole} - {"digest", "mediaType", "generated", "size", "layers", "history"}
    assert {key: described[key] for key in same} == {key: whole[key] for key in same}
    assert [(one["diffId"], one["createdBy"]) for one in described["layers"]] == [
        (one["diffId"], one["createdBy"]) for one in whole["layers"]
    ]
    assert [(one["createdBy"], one["layer"]) for one in described["history"]] == [
        (one["createdBy"], one["layer"]) for one in whole["history"]
    ]


@pytest.fixture(name="engine_of_each", params=["docker_engine", "podman_engine"])
def each_real_engine(request: pytest.FixtureRequest) -> RealEngine:
    """Give each engine in turn."""
    engine = request.getfixturevalue(request.param)
    assert isinstance(engine, RealEngine)
    return engine
