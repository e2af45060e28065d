"""Real engines with a real image: what is mounted is what the engine has."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs.sources import open_image
from tests.support.conformance import SETTINGS, check_image, closing_what_is_opened
from tests.support.engines import RealEngine, listed_images, over_tcp
from tests.support.mounts import COMMAND, Bench, Finished, tree
from tests.support.real_image import EMPTY, NGINX, OTHER, SMALL
from tests.support.requirements import need


@pytest.fixture(name="at")
def bench_for_an_engine(imgfs: Bench, engine: RealEngine) -> Bench:
    """Give a bench whose environment names the engine."""
    imgfs.environment["DOCKER_HOST"] = engine.host
    return imgfs


def _skopeo(engine: RealEngine, image: str, *options: str) -> bytes:
    need("skopeo")
    command = ["skopeo", "inspect", "--raw", *options]
    if image.startswith("docker-daemon:"):
        command += ["--daemon-host", engine.host]
    done = subprocess.run([*command, image], capture_output=True, check=True)
    return done.stdout


def _blobs_are_what_they_are_called(mountpoint: Path) -> None:
    for path in (mountpoint / "blobs" / "sha256").iterdir():
        with path.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == path.name


@pytest.mark.parametrize("image", [NGINX, OTHER])
def test_the_manifest_and_the_config_are_those_of_skopeo(at: Bench, engine: RealEngine, image: str) -> None:
    mountpoint = at.mount(image)
    config, manifest = (mountpoint / "config").read_bytes(), (mountpoint / "manifest.json").read_bytes()
    daemon_name = image if engine.name == "docker" else f"localhost/{image}"
    assert manifest == _skopeo(engine, f"docker-daemon:{daemon_name}")
    assert config == _skopeo(engine, f"docker-daemon:{daemon_name}", "--config")
    _blobs_are_what_they_are_called(mountpoint)
    layers = [layer["digest"] for layer in json.loads(manifest)["layers"]]
    assert layers == engine.inspect(image)["RootFS"]["Layers"]
    (listed,) = json.loads((mountpoint / "index.json").read_bytes())["manifests"]
    digests = {f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (config, manifest)} | set(layers)
    digests.add(listed["digest"])
    assert {f"sha256:{path.name}" for path in (mountpoint / "blobs" / "sha256").iterdir()} == digests


def test_the_image_has_a_layer_twice(docker_engine: RealEngine) -> None:
    layers = docker_engine.inspect(NGINX)["RootFS"]["Layers"]
    assert (len(layers), len(set(layers))) == (5, 4)
    assert layers[1] == layers[4]


def test_an_image_can_be_called_by_any_of_its_names(at: Bench, engine: RealEngine) -> None:
    identity = engine.inspect(SMALL)["Id"].removeprefix("sha256:")
    engine.docker("tag", SMALL, "bare:latest")
    first = engine.inspect(identity)["RepoTags"][0].rpartition(":")[2]
    names = {SMALL: "1", "bare": "latest", "docker-daemon:bare:latest": "latest"}
    names |= {identity: first, identity[:12]: first, f"sha256:{identity}": first}
    expected = None
    for number, (name, tag) in enumerate(names.items()):
        mountpoint = at.mount(name, at=at.mountpoint(f"mnt{number}"))
        shown = {path: data for path, data in tree(mountpoint).items() if "/" not in path}
        assert hashlib.sha256(shown["config"] or b"").hexdigest() == identity
        (listed,) = json.loads(shown.pop("index.json") or b"")["manifests"]
        assert listed["annotations"] == {"org.opencontainers.image.ref.name": tag}
        expected = expected or shown
        assert shown == expected


def test_an_image_with_two_tags_is_saved_once(at: Bench, engine: RealEngine) -> None:
    engine.docker("tag", SMALL, "two:a")
    engine.docker("tag", SMALL, "two:b")
    mountpoint = at.mount("two:b")
    assert (mountpoint / "manifest.json").read_bytes() == _skopeo(engine, "docker-daemon:two:b")


def test_a_missing_image_is_missed_at_once(at: Bench, engine: RealEngine) -> None:
    done = at.run("mount", "--log-file", at.log, "missing:1", at.mountpoint())
    said = f"no image missing:1 in the engine at {engine.host}; {engine.name} pull missing:1 fetches it, "
    said += "docker://missing:1 needs no pull"
    assert done == Finished(4, "", f"imgfs: {said}\n")


def test_a_bare_name_without_a_latest_is_missing(at: Bench, engine: RealEngine) -> None:
    done = at.run("mount", "--log-file", at.log, "other", at.mountpoint())
    prefix = "localhost/" if engine.name == "podman" else ""
    said = rf"no image other in the engine at {engine.host}; there is (docker\.io/library/|{prefix})other:1"
    assert (done.status, bool(re.fullmatch(f"imgfs: {said}\n", done.err))) == (4, True), done.err


def test_docker_refuses_an_image_without_layers_and_says_why(imgfs: Bench, docker_engine: RealEngine) -> None:
    done = imgfs.run("mount", "-H", docker_engine.host, "--log-file", imgfs.log, EMPTY, imgfs.mountpoint())
    said = f"the engine at {docker_engine.host} refuses {EMPTY}: empty export - not implemented"
    assert done == Finished(3, "", f"imgfs: {said}\n")


def test_an_engines_image_passes_the_conformance_check(engine: RealEngine, tmp_path: Path) -> None:
    for image in (NGINX, OTHER):
        with closing_what_is_opened():
            check_image(open_image(image, SETTINGS._replace(host=engine.host, tmpdir=str(tmp_path))).image)
    assert list(tmp_path.iterdir()) == []


def test_tcp_shows_the_same_as_the_socket(imgfs: Bench, docker_engine: RealEngine) -> None:
    with over_tcp(docker_engine) as host:
        by_tcp = imgfs.mount(SMALL, "--host", host, at=imgfs.mountpoint("tcp"))
        by_socket = imgfs.mount(SMALL, "--host", docker_engine.host, at=imgfs.mountpoint("socket"))
        subprocess.run(["diff", "-r", by_tcp, by_socket], check=True)


_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_image(imgfs: Bench, docker_engine: RealEngine) -> None:
    def peak(image: str, name: str) -> int:
        command = [COMMAND, "mount", "-q", "--log-file", str(imgfs.log), "-H", docker_engine.host, image]
        # From a small process: a child's peak begins with what its parent has.
        measured = subprocess.run(
            [sys.executable, "-c", _MEASURE, *command, imgfs.mountpoint(name)],
            env=imgfs.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(measured.stdout) * 1024

    small, big = peak(SMALL, "small"), peak(NGINX, "big")
    size = sum(path.stat().st_size for path in (imgfs.folder / "big" / "blobs" / "sha256").iterdir())
    assert size > 150e6
    assert big < 120e6
    assert big - small < 20e6


@pytest.mark.parametrize(
    ("choice", "image"),
    [
        (f":{NGINX}", NGINX),
        (":docker.io/library/nginx:latest", NGINX),
        (":@0", ""),
        (f":{OTHER}", OTHER),
        (":@1", ""),
    ],
)
def test_an_image_of_an_archive_is_chosen_by_its_name_or_its_place(
    imgfs: Bench, docker_engine: RealEngine, both_images: Path, choice: str, image: str
) -> None:
    image = image or listed_images(both_images)[int(choice.removeprefix(":@"))]
    source = f"docker-archive:{both_images}"
    mountpoint = imgfs.mount(source + choice)
    config, manifest = (mountpoint / "config").read_bytes(), (mountpoint / "manifest.json").read_bytes()
    assert f"sha256:{hashlib.sha256(config).hexdigest()}" == docker_engine.inspect(image)["Id"]
    # Not skopeo of the archive: layers that images share are links there, whose size it reports as 0.
    assert manifest == _skopeo(docker_engine, f"docker-daemon:{image}")
    assert config == _skopeo(docker_engine, f"docker-daemon:{image}", "--config")
    _blobs_are_what_they_are_called(mountpoint)


def test_an_archive_of_two_images_lists_them(imgfs: Bench, both_images: Path) -> None:
    done = imgfs.run("mount", "--log-file", imgfs.log, both_images, imgfs.mountpoint())
    first, second = listed_images(both_images)
    said = (
        f"{both_images} holds 2 images; choose with docker-archive:{both_images}:REF or :@INDEX "
        f"from @0 ({first}); @1 ({second})"
    )
    assert done == Finished(4, "", f"imgfs: {said}\n")


def test_an_archive_shows_the_same_as_the_engine_that_saved_it(
    imgfs: Bench, docker_engine: RealEngine, both_images: Path
) -> None:
    by_engine = imgfs.mount(NGINX, "-H", docker_engine.host, at=imgfs.mountpoint("engine"))
    by_archive = imgfs.mount(f"docker-archive:{both_images}:{NGINX}", "--verify", at=imgfs.mountpoint("archive"))
    # Device files are content that diff(1) does not compare.
    command = ["diff", "-r", "--no-dereference", "--exclude=dev", str(by_engine), str(by_archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_real_image_can_be_used_by_a_program_that_reads_tar(imgfs: Bench, docker_engine: RealEngine) -> None:
    mountpoint = imgfs.mount(NGINX, "-H", docker_engine.host)
    base = json.loads((mountpoint / "manifest.json").read_bytes())["layers"][0]["digest"].removeprefix("sha256:")
    listed = subprocess.run(
        ["tar", "-tf", mountpoint / "blobs" / "sha256" / base], capture_output=True, text=True, check=True
    )
    assert "usr/sbin/nginx" in {line.removeprefix("./") for line in listed.stdout.splitlines()}


def test_images_are_completed_with_the_engines_names(at: Bench) -> None:
    done = at.run("__complete", "mount", NGINX[:-2])
    names = done.out.splitlines()[2:]
    assert (done.status, done.err) == (0, "")
    assert f"{NGINX}\t" in names
