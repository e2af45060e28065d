"""imgfs cache rm with images in a registry: what an image has for itself is removed, what others have, too, stays."""

import json
import os
import re

import pytest

from fusefs.oci.platform import Platform
from tests.support.builders import layer
from tests.support.layouts import HOST, Layout, platform_json
from tests.support.mounts import Bench, Finished
from tests.support.registries import Registry, push

BASE, FIRST, SECOND = (layer({name: name.encode() * 9000}) for name in ("base", "first", "second"))
OTHER = Platform("linux", "s390x")
FREED = r"freed [1-9][0-9.]* k?B\n"


def _digests(layout: Layout) -> set[str]:
    return {path[6:].replace("/", ":") for path in layout.files if path.startswith("blobs/")}


def _cached(imgfs: Bench) -> set[str]:
    """Return the digests of the blobs that are cached, and the tags."""
    listed = json.loads(imgfs.run("cache", "list", "--json").out)
    return {one["names"][0] if one["mediaType"] is None else one["id"] for one in listed}


def _read(imgfs: Bench, image: str, *options: str) -> int:
    """Read all layers of *image*; return the exit status."""
    return imgfs.run("waste", *options, image).status


@pytest.fixture(name="first")
def pushed_manifest(server: Registry) -> Layout:
    """Push an image of `BASE` and `FIRST` as team/app:1 and team/app:same."""
    layout = Layout()
    layout.list(layout.image([BASE, FIRST], "gzip"), "1")
    push(layout, server)
    push(layout, server, "team/app:same")
    return layout


@pytest.fixture(name="second")
def pushed_index(server: Registry) -> Layout:
    """Push an index as team/app:2: of an image of `BASE` and `SECOND`, and of one for another platform."""
    layout = Layout()
    own = layout.image([BASE, SECOND], "gzip", platform=platform_json(HOST))
    other = layout.image([SECOND, BASE, SECOND], "gzip", OTHER, platform=platform_json(OTHER))
    push(layout.list(layout.index(own, other), "2"), server, "team/app:2")
    return layout


def _names(server: Registry, layout: Layout) -> dict[str, str]:
    (entry,) = layout.entries
    name = f"{server.host}/team/app"
    return {
        "tag": f"docker://{name}:1",
        "tag as listed": f"{name}:1",
        "another tag": f"docker://{name}:same",
        "digest": f"docker://{name}@{entry['digest']}",
        "tag and digest": f"docker://{name}:1@{entry['digest']}",
        "digest as listed": entry["digest"][7:19],
    }


@pytest.mark.parametrize("way", ["tag", "tag as listed", "another tag", "digest", "tag and digest", "digest as listed"])
def test_an_image_goes_with_all_that_no_other_has(
    imgfs: Bench, server: Registry, first: Layout, second: Layout, way: str
) -> None:
    for tag in ("1", "same", "2"):
        assert _read(imgfs, server.image(f"team/app:{tag}")) == 0
    tags = {f"{server.host}/team/app:{tag}" for tag in ("1", "same", "2")}
    assert _cached(imgfs) >= _digests(first) | tags
    before = _cached(imgfs)
    done = imgfs.run("cache", "rm", _names(server, first)[way])
    assert re.fullmatch(FREED, done.out)
    assert done.err == ""
    assert before - _cached(imgfs) == _digests(first) - _digests(second) | tags - {f"{server.host}/team/app:2"}
    assert _read(imgfs, server.image("team/app:2"), "--offline") == 0
    assert _read(imgfs, server.image(), "--offline") == 4
    assert _read(imgfs, server.image()) == 0


def test_a_repository_goes_as_it_is_listed_without_what_others_need(
    imgfs: Bench, server: Registry, first: Layout, second: Layout
) -> None:
    push(second, server, "team/other:2")
    for image in ("team/app:1", "team/app:same", "team/other:2"):
        assert _read(imgfs, server.image(image)) == 0
    for image in ("team/app", "team/other"):
        assert imgfs.run("cache", "rm", f"docker://{server.host}/{image}").status == 0
        if image == "team/app":
            assert _cached(imgfs) >= _digests(first) & _digests(second)
            assert not _cached(imgfs) & (_digests(first) - _digests(second))
            assert _read(imgfs, server.image("team/other:2"), "--offline") == 0
    assert not any("team/other" in tag for tag in _cached(imgfs))
    assert not _cached(imgfs) & (_digests(second) - _digests(first))


def test_an_index_goes_with_all_its_manifests_that_are_cached(imgfs: Bench, server: Registry, second: Layout) -> None:
    image = server.image("team/app:2")
    for platform in (HOST, OTHER):
        assert _read(imgfs, image, "--platform", str(platform)) == 0
    assert _cached(imgfs) == {*_digests(second), f"{server.host}/team/app:2"}
    assert re.fullmatch(FREED, imgfs.run("cache", "rm", image).out)
    assert [os.listdir(imgfs.cache / kind) for kind in ("blobs", "tags")] == [[], []]


def test_a_manifest_that_another_tag_names_stays_with_the_tag(imgfs: Bench, server: Registry, second: Layout) -> None:
    own = Layout()
    push(own.list(own.image([BASE, SECOND], "gzip", platform=platform_json(HOST)), "own"), server, "team/app:own")
    for tag in ("2", "own"):
        assert _read(imgfs, server.image(f"team/app:{tag}")) == 0
    assert imgfs.run("cache", "rm", server.image("team/app:2")).status == 0
    assert _cached(imgfs) == {*_digests(own), f"{server.host}/team/app:own"}
    assert _read(imgfs, server.image("team/app:2")) == 0
    assert imgfs.run("cache", "rm", server.image("team/app:own")).status == 0
    (index,) = second.entries
    assert _cached(imgfs) == {index["digest"], f"{server.host}/team/app:2"}


@pytest.mark.usefixtures("second")
def test_an_image_in_use_stays_whole(imgfs: Bench, server: Registry, first: Layout) -> None:
    assert _read(imgfs, server.image()) == _read(imgfs, server.image("team/app:2")) == 0
    mountpoint = imgfs.mount(server.image())
    assert (mountpoint / "layers" / "1" / "first").read_bytes()
    before = _cached(imgfs)
    why = "a mount or a command uses it; imgfs list lists the mounts"
    kept = f"imgfs: kept {server.host}/team/app:1: {why}\n"
    assert imgfs.run("cache", "rm", server.image()) == Finished(9, "freed 0 B\n", kept)
    assert _cached(imgfs) == before
    done = imgfs.run("cache", "rm", server.image("team/app:2"), server.image())
    assert (done.status, bool(re.fullmatch(FREED, done.out)), done.err) == (9, True, kept)
    assert _cached(imgfs) == {*_digests(first), f"{server.host}/team/app:1"}
    imgfs.end_mounts()
    assert imgfs.run("cache", "rm", server.image()).status == 0
    assert _cached(imgfs) == set()


def test_what_is_not_cached_is_an_error(imgfs: Bench, server: Registry, first: Layout) -> None:
    assert _read(imgfs, server.image()) == 0
    name = f"{server.host}/team/app"
    for image in (f"docker://{name}@sha256:{'0' * 64}", f"docker://{name}:3", f"docker-daemon:{name}:1"):
        missing = f"imgfs: nothing is cached of {image}; imgfs cache list lists what is\n"
        assert imgfs.run("cache", "rm", image) == Finished(4, "", missing)
    assert _cached(imgfs) == {*_digests(first), f"{server.host}/team/app:1"}
