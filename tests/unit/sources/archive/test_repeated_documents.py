"""Documents that are listed again and again: each is read once, and what is listed is counted and bounded."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from fusefs.errors import InvalidImage, Unavailable
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.transport import DOCKER_ARCHIVE, OCI, Source
from fusefs.sources.archive import candidates
from fusefs.sources.archive.directory import DirectoryBlobs
from fusefs.sources.archive.docker_archive import DockerArchive
from fusefs.sources.archive.image_layout import layout_image
from tests.support.builders import Archive, sha256
from tests.support.layouts import HOST, OTHER, Json, Layout, platform_json

SOURCE = Source("oci:dir", OCI, "dir", "oci:dir")


class CountingBlobs(DirectoryBlobs):
    """Counts how often each document is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.reads: Counter[tuple[str, ...]] = Counter()

    def data(self, *parts: str) -> bytes | None:
        """Return the bytes of a file, and count that."""
        self.reads[parts] += 1
        return super().data(*parts)

    def often(self) -> dict[str, int]:
        """Return what was read more than twice: once to choose it, and once as a document of the image."""
        return {"/".join(parts): count for parts, count in self.reads.items() if count > 2}


def _written(made: Layout, folder: Path) -> CountingBlobs:
    made.write(str(folder))
    return CountingBlobs(folder)


def _without_type(descriptor: Json) -> Json:
    return {key: value for key, value in descriptor.items() if key != "mediaType"}


def _many(count: int, listed: int, *, typed: bool = True) -> Layout:
    """Return a layout that lists one index *count* times, which lists one image *listed* times, platforms apart."""
    made = Layout()
    image = made.image()
    below = [image | {"platform": platform_json(HOST) | {"variant": f"v{number}"}} for number in range(listed)]
    index = made.index(*(below if typed else map(_without_type, below)))
    for _ in range(count):
        made.list(index if typed else _without_type(index))
    return made


@pytest.mark.parametrize("typed", [True, False])
def test_a_document_is_read_and_parsed_once_however_often_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, typed: bool
) -> None:
    parsed: Counter[str] = Counter()
    for name in ("parse_index", "parse_manifest", "parse_image_config", "media_type_of"):
        honest = getattr(documents, name)

        def counted(data: bytes, where: str, name: str = name, honest: object = honest) -> object:
            parsed[name] += 1
            return honest(data, where)  # type: ignore[operator]

        monkeypatch.setattr(documents, name, counted)
    blobs = _written(_many(100, 100, typed=typed), tmp_path)
    layout_image(blobs, None, None, SOURCE)
    assert max(blobs.reads.values()) <= 3
    assert parsed["parse_index"] == 2  # index.json, and the one that it lists
    assert parsed["media_type_of"] == (0 if typed else 2)
    assert parsed["parse_manifest"] <= 2
    assert parsed["parse_image_config"] <= 2


def test_an_index_of_a_hundred_configs_of_one_manifest_reads_it_once(tmp_path: Path) -> None:
    made = Layout()
    image = made.image()
    for number in range(100):
        made.list(image, f"name{number}")
    blobs = _written(made, tmp_path)
    with pytest.raises(Unavailable):
        layout_image(blobs, None, OTHER, SOURCE)
    assert blobs.often() == {}


def test_a_document_of_another_size_than_stated_is_not_read(tmp_path: Path) -> None:
    made = Layout()
    image = made.image()
    for number in range(100):
        made.list(image | {"size": 1_000_000 + number}, f"name{number}")
    blobs = _written(made, tmp_path)
    with pytest.raises((InvalidImage, Unavailable)):
        layout_image(blobs, None, None, SOURCE)
    assert set(blobs.reads.values()) == {1}  # the error names the one that is chosen


@pytest.mark.parametrize(("listed", "refused"), [(99, False), (100, False), (101, True)])
def test_what_is_listed_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: int, *, refused: bool
) -> None:
    monkeypatch.setattr(candidates, "MAX_LISTED", 10 * (1 + 100))
    blobs = _written(_many(10, listed), tmp_path)
    if refused:
        with pytest.raises(InvalidImage, match=f"^{tmp_path}: its indexes list more than 1010 manifests$"):
            layout_image(blobs, None, None, SOURCE)
    else:
        layout_image(blobs, None, None, SOURCE)


def test_a_thousand_times_a_thousand(tmp_path: Path) -> None:
    blobs = _written(_many(1000, 1000), tmp_path)
    with pytest.raises(InvalidImage, match="its indexes list more than 65536 manifests"):
        layout_image(blobs, None, None, SOURCE)
    assert blobs.often() == {}


def _named(count: int) -> Layout:
    made = Layout()
    for number in range(count):
        made.list(made.image(runs_on=OTHER, config=made.blob("config", b'{"n":%d}' % number)), f"name{number}")
    return made


@pytest.mark.parametrize(("count", "more"), [(9, ""), (10, ""), (11, "; and 1 more"), (100, "; and 90 more")])
def test_a_message_lists_ten_candidates(tmp_path: Path, count: int, more: str) -> None:
    blobs = _written(_named(count), tmp_path)
    shown = "; ".join(f"name{number}" for number in range(min(count, 10)))
    with pytest.raises(Unavailable) as raised:
        layout_image(blobs, "missing", None, SOURCE)
    assert str(raised.value) == f"{tmp_path} has no image missing; there are {shown}{more}"


def _docker(folder: Path, items: Sequence[Mapping[str, object]]) -> CountingBlobs:
    archive = Archive()
    (folder / archive.item()["Config"]).write_bytes(archive.config_data)
    (folder / "manifest.json").write_text(json.dumps(items))
    return CountingBlobs(folder)


@pytest.mark.parametrize(("count", "more"), [(10, ""), (11, "; and 1 more")])
def test_a_message_lists_ten_manifest_items_with_ten_tags(tmp_path: Path, count: int, more: str) -> None:
    items = [{"Config": f"c{number}", "RepoTags": [f"a:{tag}" for tag in range(count)]} for number in range(count)]
    archive = DockerArchive(_docker(tmp_path, items), lambda *_: Digest.of([b""]))
    with pytest.raises(Unavailable) as raised:
        archive.image("b", None, SOURCE._replace(transport=DOCKER_ARCHIVE))
    tags = ", ".join(f"a:{tag}" for tag in range(10)) + more.replace(";", ",")
    listed = "; ".join(f"@{number} ({tags})" for number in range(10))
    assert str(raised.value) == f"{tmp_path} has no image b; there are {listed}{more}"


def test_a_config_that_many_manifest_items_name_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = DockerArchive(_docker(tmp_path, [{**Archive().item()}] * 1000), lambda *_: Digest.of([b""]))
    hashed: Counter[int] = Counter()
    honest = Digest.of

    def counted(chunks: list[bytes], algorithm: str = "sha256") -> Digest:
        hashed[len(chunks)] += 1
        return honest(chunks, algorithm)

    monkeypatch.setattr(Digest, "of", counted)
    with pytest.raises(InvalidImage):
        archive.image_with_id(Digest.parse(sha256(b"another")), None, SOURCE, "latest")
    assert hashed.total() == 1
