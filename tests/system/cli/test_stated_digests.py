"""Archives that state digests which are not those of their bytes: no command takes two such archives for the same."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import Archive, archive_of, compressed, image_config, member, sha256
from tests.support.changesets import About, changeset, file, folder, pax_sparse
from tests.support.layouts import Layout
from tests.support.looks import imgfs, printed, refused
from tests.support.mounts import Bench

PASSWD = b"root:x:0:0::/:/bin/sh\n"
BACKDOOR = b"root::00:0::/:/bin/sh\n"
HONEST = changeset(folder("etc"), file("etc/passwd", PASSWD), file("bin/sh", b"\x7fELF"))
WRONG = HONEST.replace(PASSWD, BACKDOOR)
CHANGED = [["C", "22", "22", "/etc/passwd  (content)"]]


def _docker_archive(folder: Path, layer: bytes) -> str:
    config = image_config([HONEST])
    return str(Archive([layer], config=config, layer_names=["layer.tar"]).write(folder / "image.tar"))


def _layout(layer: bytes) -> Layout:
    layout = Layout()
    layout.list(layout.image([HONEST]), "1")
    layout.files = {name: layer if data == HONEST else data for name, data in layout.files.items()}
    return layout


def _oci_archive(folder: Path, layer: bytes) -> str:
    (folder / "image.tar").write_bytes(_layout(layer).tar())
    return f"oci-archive:{folder}/image.tar"


def _oci(folder: Path, layer: bytes) -> str:
    _layout(layer).write(str(folder / "image"))
    return f"oci:{folder}/image"


@pytest.fixture(params=[_docker_archive, _oci_archive, _oci], ids=["docker-archive", "oci-archive", "oci"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], str]:
    """Return a function that writes an image whose one layer has other bytes than `HONEST`, but states its diffID."""
    counter = iter(range(100))

    def write(layer: bytes) -> str:
        folder = tmp_path / str(next(counter))
        folder.mkdir()
        name: str = request.param(folder, layer)
        return name

    return write


def _differences(*words: str | Path) -> list[list[str]]:
    """Return the lines for files, without the empty line and the summary."""
    return [line.split(maxsplit=3) for line in printed("diff", *words)[:-2]]


def test_different_bytes_of_one_stated_digest_differ(written: Callable[[bytes], str], tmp_path: Path) -> None:
    honest, wrong = written(HONEST), written(WRONG)
    cache = ("--cache-dir", tmp_path / "cache")
    assert _differences("--no-cache", honest, wrong) == CHANGED
    for _ in range(2):  # the second time with the indexes of the first
        assert _differences(*cache, honest, wrong) == CHANGED
        assert _differences(*cache, wrong, honest) == CHANGED
        assert _differences(*cache, honest, written(HONEST)) == []
        assert _differences(*cache, wrong, wrong) == []


def test_a_verified_image_is_compared_with_one_that_is_not(written: Callable[[bytes], str], tmp_path: Path) -> None:
    wrong = written(WRONG)
    packed = tmp_path / "packed.tar.gz"  # a stream: every digest is checked
    packed.write_bytes(gzip.compress(Archive([HONEST]).data()))
    assert _differences(packed, wrong) == CHANGED
    status, said = refused("diff", "--verify", packed, wrong)
    assert (status, f"the digest {sha256(WRONG)}, the image says {sha256(HONEST)}" in said) == (6, True)
    assert _differences("--verify", packed, written(HONEST)) == []


def test_a_stated_digest_finds_no_index_of_another_archive(written: Callable[[bytes], str], tmp_path: Path) -> None:
    cache = ("--cache-dir", tmp_path / "cache")
    renamed = HONEST.replace(file("etc/passwd", PASSWD), file("etc/shadow", PASSWD, About(mode=0o600)))
    images = {written(layer): names for layer, names in [(HONEST, ["passwd"]), (renamed, ["shadow"])]}
    for _ in range(2):
        assert {image: printed("ls", *cache, f"{image}:/etc") for image in images} == images
    first, second = images
    assert imgfs("cat", *cache, f"{first}:/etc/passwd").out == PASSWD.decode()
    assert refused("cat", *cache, f"{second}:/etc/passwd")[0] == 4


def test_a_compressed_layer_is_decompressed_although_another_archive_states_its_digest(tmp_path: Path) -> None:
    cache = ("--cache-dir", tmp_path / "cache")
    honest, wrong = (
        Archive([compressed(layer, "gzip")], config=image_config([HONEST])).write(tmp_path / name)
        for name, layer in (("honest.tar", HONEST), ("wrong.tar", WRONG))
    )
    assert printed("cat", *cache, f"{honest}:/etc/passwd") == [PASSWD.decode().strip()]
    assert refused("diff", *cache, honest, wrong)[0] == 6
    assert refused("cat", *cache, f"{wrong}:/etc/passwd")[0] == 6


def test_two_sparse_layers_of_one_archive_have_their_own_indexes(tmp_path: Path) -> None:
    """Such a member has no place of its own: its bytes are runs.  The headers that are compared are alike."""

    def layer(name: str) -> bytes:
        return changeset(file("short", b"x", About(records={b"path": name.encode()})))

    config = image_config([b""])
    items, members = [], []
    for number, name in enumerate(("first", "other")):
        data = layer(name)
        configs = config + b" " * number
        members += [member(f"{number}.json", configs), pax_sparse("1.0", f"{number}.tar", len(data), [(0, data)])]
        items.append({"Config": f"{number}.json", "RepoTags": None, "Layers": [f"{number}.tar"]})
    path = tmp_path / "image.tar"
    path.write_bytes(archive_of(*members, member("manifest.json", json.dumps(items).encode())))
    cache = ("--cache-dir", tmp_path / "cache")
    assert [printed("ls", *cache, f"docker-archive:{path}:@{number}") for number in (0, 1)] == [["first"], ["other"]]


def test_an_archive_that_was_cached_does_not_serve_another_mount(imgfs: Bench) -> None:
    honest, wrong = (
        Archive([layer], config=image_config([HONEST]), layer_names=["a"]).write(imgfs.folder / name)
        for name, layer in (("honest.tar", HONEST), ("wrong.tar", WRONG))
    )
    for number in range(2):
        for path, found in ((honest, PASSWD), (wrong, BACKDOOR)):
            mountpoint = imgfs.mount(path, at=imgfs.mountpoint(f"{path.stem}{number}"))
            assert (mountpoint / "rootfs" / "etc" / "passwd").read_bytes() == found


def test_directories_whose_time_alone_differs_are_listed_with_times(tmp_path: Path) -> None:
    data = changeset(file("a/b/c", b"x"), folder("listed"))
    first, other = (
        Archive([data], config=image_config([data], created=f"2024-01-01T00:00:0{second}Z")).write(
            tmp_path / f"{second}.tar"
        )
        for second in (1, 2)
    )
    copy = Path(shutil.copy(first, tmp_path / "copy.tar"))
    time = "time 2024-01-01T00:00:01Z → 2024-01-01T00:00:02Z"
    for images in ([first, other], [copy, other]):
        for more in ([], ["--verify"]):
            assert _differences("--times", *more, *images) == [
                ["C", "-", "-", f"/  ({time})"],
                ["C", "-", "-", f"/a/  ({time})"],
                ["C", "-", "-", f"/a/b/  ({time})"],
            ]
            assert _differences(*more, *images) == []
    assert _differences("--times", "--verify", first, copy) == []
