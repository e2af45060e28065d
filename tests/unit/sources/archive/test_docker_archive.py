"""Docker archives: every layout, and everything that can be wrong with one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fusefs.errors import Unavailable
from fusefs.image.model import Image
from tests.conftest import TakeWarnings
from tests.support.builders import (
    CREATED_NS,
    END,
    LAYERS,
    Archive,
    archive_of,
    header,
    image_config,
    layer,
    member,
    schema2_manifest,
    sha256,
    two_images,
    write_sparse,
)
from tests.support.conformance import SOURCE, check_image, docker_archive, opened, refusal, stored
from tests.support.layouts import LAYOUTS

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def layer_data(image: Image) -> list[bytes]:
    """Return the bytes of all layers."""
    return [stored(layer) for layer in image.layers]


def check_layers(data: bytes, layers: list[bytes]) -> None:
    """Assert that an archive shows exactly *layers*, and all else that holds for an image."""
    path = Path("x.tar")
    path.write_bytes(data)
    with docker_archive(path) as archive:
        image = archive.image(None, None, SOURCE)
        check_image(image)
        assert layer_data(image) == layers


@pytest.mark.parametrize("build", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_shows_the_same_image(build: Callable[[], bytes]) -> None:
    Path("x.tar").write_bytes(build())
    with docker_archive(Path("x.tar")) as archive:
        image = archive.image(None, None, SOURCE)
        check_image(image)
        assert layer_data(image) == list(LAYERS)
        assert image.config.content.data == image_config(LAYERS)
        assert image.manifest.content.data == schema2_manifest(image_config(LAYERS), LAYERS)
        assert (image.source, image.created_ns) == (SOURCE, CREATED_NS)


def test_an_image_may_have_no_layers() -> None:
    check_layers(Archive(layers=[]).data(), [])


def test_lists_of_layers_may_be_null_or_missing() -> None:
    config = image_config([], rootfs={"type": "layers", "diff_ids": None})
    item = {"Config": "c", "RepoTags": None, "Layers": None}
    check_layers(archive_of(member("c", config), member("manifest.json", json.dumps([item]).encode())), [])
    config = image_config([], rootfs={"type": "layers"})
    check_layers(archive_of(member("c", config), member("manifest.json", b'[{"Config":"c"}]')), [])


def test_a_layer_may_be_empty() -> None:
    check_layers(Archive(layers=[b"", LAYERS[0]]).data(), [b"", LAYERS[0]])


def test_a_layer_may_be_shorter_than_a_block() -> None:
    check_layers(Archive(layers=[b"\x1f\x8b"]).data(), [b"\x1f\x8b"])


def test_a_layer_whose_first_file_is_called_like_bzip2_is_plain() -> None:
    layers = [layer({"BZh91AY&SY": b"x"})]
    check_layers(Archive(layers=layers).data(), layers)


def test_one_diff_id_under_two_names_is_the_first_of_them() -> None:
    layers = [LAYERS[0], LAYERS[0]]
    check_layers(Archive(layers=layers, layer_names=["a", "b"]).data(), layers)


def test_of_two_members_with_one_name_the_last_is_the_layer() -> None:
    archive = Archive(layers=LAYERS[:1])
    check_layers(archive_of(member(archive.item()["Layers"][0], b"old"), archive.data()), [LAYERS[0]])


def test_an_empty_layer_and_the_member_after_it_are_two_places() -> None:
    layers = [b"", layer({"a": b"x"}), b""]
    check_layers(Archive(layers=layers, layer_names=["a", "b", "c"]).data(), layers)


def test_a_layer_of_9_gib_is_not_read(tmp_path: Path) -> None:
    first, size = layer({"big": b""})[:512], 9 << 30
    diff_id = sha256(b"never compared")
    config = image_config([], rootfs={"type": "layers", "diff_ids": [diff_id]})
    documents = member("c", config) + member("manifest.json", b'[{"Config":"c","Layers":["big"]}]')
    path = write_sparse(tmp_path / "x.tar", documents, header("big", size), first, size - len(first), END)
    with docker_archive(path) as archive:
        before = Path("/proc/thread-self/io").read_bytes()
        (big,) = archive.image(None, None, SOURCE).layers
        read = [int(io.split(b"\n")[0].split()[1]) for io in (before, Path("/proc/thread-self/io").read_bytes())]
        assert read[1] - read[0] < 1 << 14
        assert big.content is not None
        assert (big.content.size, str(big.diff_id)) == (size, diff_id)
        assert bytes(big.content.read_at(0, 512)) == first
        assert bytes(big.content.read_at(size - 7, 100)) == bytes(7)


@pytest.mark.parametrize(
    ("choice", "layers"),
    [
        ("a:1", LAYERS),
        ("docker.io/library/a:1", LAYERS),
        ("library/a:1", LAYERS),
        ("b:1", LAYERS[:1]),
        ("docker.io/b:2", LAYERS[:1]),
        ("@0", LAYERS),
        ("@1", LAYERS[:1]),
    ],
)
def test_one_of_several_images_is_chosen_by_tag_or_index(choice: str, layers: tuple[bytes, ...]) -> None:
    Path("x.tar").write_bytes(two_images())
    with opened(f"docker-archive:x.tar:{choice}") as image:
        check_image(image)
        assert layer_data(image) == list(layers)


def test_a_tag_may_be_asked_for_of_the_only_image() -> None:
    Archive(tags=["quay.io/a/b:latest"]).write(Path("x.tar"))
    with opened("docker-archive:x.tar:quay.io/a/b") as image:
        assert layer_data(image) == list(LAYERS)


def test_index_docker_io_is_docker_io() -> None:
    Archive(tags=["nginx:1"]).write(Path("x.tar"))
    with opened("docker-archive:x.tar:index.docker.io/library/nginx:1") as image:
        assert layer_data(image) == list(LAYERS)


def test_a_name_of_podman_is_found_without_localhost_unless_another_has_it() -> None:
    Archive(tags=["localhost/a:latest"]).write(Path("x.tar"))
    with opened("docker-archive:x.tar:a") as image:
        assert image.tag == "latest"
    assert refusal("docker-archive:x.tar:docker.io/library/a")[0] is Unavailable


def test_an_image_that_is_listed_twice_is_one_image() -> None:
    archive = Archive(tags=["a:1"])
    listed = json.dumps([archive.item(), archive.item() | {"RepoTags": ["b:2"]}]).encode()
    Path("x.tar").write_bytes(archive_of(*archive.blobs(), member("manifest.json", listed)))
    with opened("./x.tar") as image:
        assert image.tag == "1"
        assert layer_data(image) == list(LAYERS)


LISTED = "@0 (a:1); @1 (b:1, b:2)"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("./x.tar", f"./x.tar holds 2 images; choose with docker-archive:./x.tar:REF or :@INDEX from {LISTED}"),
        (
            "docker-archive:x.tar",
            f"x.tar holds 2 images; choose with docker-archive:x.tar:REF or :@INDEX from {LISTED}",
        ),
        ("docker-archive:x.tar:@2", f"x.tar has no image @2; there are {LISTED}"),
        ("docker-archive:x.tar:@99999", f"x.tar has no image @99999; there are {LISTED}"),
        ("docker-archive:x.tar:c", f"x.tar has no image c; there are {LISTED}"),
        ("docker-archive:x.tar:a", f"x.tar has no image a; there are {LISTED}"),
        ("docker-archive:x.tar:example.org/a:1", f"x.tar has no image example.org/a:1; there are {LISTED}"),
    ],
)
def test_a_choice_that_is_missing_or_wrong_lists_the_images(argument: str, message: str) -> None:
    Path("x.tar").write_bytes(two_images())
    assert refusal(argument) == (Unavailable, message)


def test_an_image_without_a_tag_is_listed_too() -> None:
    Archive(tags=None).write(Path("x.tar"))
    assert refusal("docker-archive:x.tar:a") == (Unavailable, "x.tar has no image a; there are @0 (no tag)")


@pytest.mark.parametrize("end", [b"", bytes(512)], ids=["nothing", "one zero block"])
def test_a_missing_end_mark_is_a_warning(take_warnings: TakeWarnings, end: bytes) -> None:
    check_layers(Archive(end=end).data(), list(LAYERS))
    assert len(take_warnings()) == 1


def test_garbage_behind_the_end_is_a_warning(take_warnings: TakeWarnings) -> None:
    check_layers(Archive().data() + b"garbage", list(LAYERS))
    (warning,) = take_warnings()
    assert warning.startswith("x.tar: ignored data after the end of the archive at offset ")


def test_a_lone_zero_block_is_a_warning(take_warnings: TakeWarnings) -> None:
    check_layers(member("a") + bytes(512) + Archive().data(), list(LAYERS))
    assert take_warnings() == ["x.tar: ignored a lone zero block at offset 512"]
