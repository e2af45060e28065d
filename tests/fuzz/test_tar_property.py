"""What holds for all archives: valid ones are read as Python's tarfile reads them, no other does harm."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusefs.content.file import OpenFile
from fusefs.errors import ImgfsError, InvalidImage, Unsupported
from fusefs.image.model import Image
from fusefs.oci.documents import check_layout, media_type_of, parse_image_config, parse_index, parse_manifest
from fusefs.sources.archive.blobs import TarBlobs
from fusefs.sources.archive.docker_archive import DockerArchive
from fusefs.sources.archive.manifest_list import parse_manifest_list
from fusefs.tar.header import BLOCK, BrokenHeader, Kind, parse_header, pax_records
from fusefs.tar.members import ByteSource, MemberTable, scan
from tests.conftest import TakeWarnings
from tests.support.builders import LAYERS, Memory, resealed
from tests.support.conformance import SOURCE, check_image, digest_of, stored
from tests.support.damages import DAMAGES, Damage
from tests.support.layouts import LAYOUTS

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
_T = TypeVar("_T")
_E = TypeVar("_E", bound=Exception)
KINDS = {
    tarfile.REGTYPE: Kind.REGULAR,
    tarfile.AREGTYPE: Kind.REGULAR,
    tarfile.CONTTYPE: Kind.REGULAR,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARD_LINK,
    tarfile.FIFOTYPE: Kind.FIFO,
    tarfile.CHRTYPE: Kind.CHARACTER_DEVICE,
    tarfile.BLKTYPE: Kind.BLOCK_DEVICE,
}
ARCHIVES = [build() for build in LAYOUTS.values()]

_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0/")
_PART = st.text(_CHARACTERS, min_size=1, max_size=160).filter(lambda part: part not in (".", ".."))
_NAME = st.lists(_PART, min_size=1, max_size=3).map("/".join)


@st.composite
def infos(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    """Draw one member and its data."""
    info = tarfile.TarInfo(draw(_NAME))
    info.type = draw(st.sampled_from(list(KINDS)))
    data = draw(st.binary(max_size=1500)) if info.isreg() else b""
    info.size = len(data)
    info.mtime = draw(st.integers(0, 1 << 34) | st.floats(0, 1e9))
    info.uid = draw(st.integers(0, 1 << 22))
    if info.issym() or info.islnk():
        info.linkname = draw(_NAME)
    # "path" and the like would replace what the fields say.
    key = st.text(st.characters(codec="ascii", exclude_characters="\0="), min_size=1).map("SCHILY.xattr.".__add__)
    info.pax_headers = draw(st.dictionaries(key, st.text(_CHARACTERS), max_size=2))
    return info, data


def written(members: list[tuple[tarfile.TarInfo, bytes]], form: int) -> bytes:
    """Return an archive; what the format cannot say is left out."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8") as archive:
        for info, data in members:
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # a name or a number that is too long for ustar
                continue
    return file.getvalue()


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
@given(members=st.lists(infos(), max_size=6))
@settings(max_examples=150)
def test_a_valid_archive_has_the_members_that_tarfile_finds(
    form: int, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    data = written(members, form)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8") as archive:
        expected = [
            (
                info.name.encode().rstrip(b"/"),
                KINDS[info.type],
                info.linkname.encode(),
                info.offset,
                info.offset_data,
                info.size,
            )
            for info in archive.getmembers()
        ]
    found = list(scan(Memory(data)))
    assert [
        (member.name.rstrip(b"/"), member.kind, member.link, member.header, member.offset, member.size)
        for member in found
    ] == expected
    places = [(member.offset, member.size) for member in found if member.kind is Kind.REGULAR]
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8") as archive:
        contents = [file.read() for file in map(archive.extractfile, filter(tarfile.TarInfo.isreg, archive)) if file]
    assert [data[offset : offset + size] for offset, size in places] == contents


def outcome(act: Callable[[], _T], errors: type[_E]) -> _T | _E:
    """Return what *act* returns, or the one of *errors* that it raises."""
    try:
        return act()
    except errors as error:
        return error


_NUMBER = st.integers(0, (1 << 20) - 1)


@contextmanager
def in_memory(data: bytes) -> Iterator[OpenFile]:
    """Return an open file with *data* that is nowhere on a disk."""
    file = OpenFile(os.memfd_create("x.tar", os.MFD_CLOEXEC), "x.tar")
    try:
        os.write(file.descriptor, data)
        yield file
    finally:
        file.close()


def opened(source: ByteSource, file: OpenFile) -> Image:
    """Return the image in *file*, whose headers are read from *source*."""
    index = MemberTable.of("x.tar", scan(source))
    for member in index.members.values():
        assert 0 <= member.header < member.offset <= member.offset + member.size <= source.length()
    return DockerArchive(TarBlobs(file, index), digest_of).image(None, None, SOURCE)


@given(
    data=st.sampled_from(ARCHIVES),
    damages=st.lists(st.tuples(st.sampled_from(DAMAGES), _NUMBER, _NUMBER), min_size=1, max_size=3),
)
@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_is_an_error_or_an_image(
    take_warnings: TakeWarnings, data: bytes, damages: list[tuple[Damage, int, int]]
) -> None:
    for damage, place, value in damages:
        data = damage(data, place, value) or b"\0"
    source = Memory(data)
    with in_memory(data) as file:
        found = outcome(lambda: opened(source, file), ImgfsError)
        if isinstance(found, ImgfsError):
            assert str(found).isprintable()
            assert str(found).startswith("x.tar: ")
        else:
            # Its documents may be damaged where that means nothing to us; layers are not compared.
            assert len(found.layers) == len(LAYERS)
            assert [len(stored(layer)) for layer in found.layers] == [layer.descriptor.size for layer in found.layers]
    take_warnings()
    assert source.reads <= 3 * (len(data) // BLOCK + 2)


@pytest.mark.parametrize("data", ARCHIVES, ids=LAYOUTS.keys())
def test_an_archive_that_is_cut_anywhere_is_never_another_image(take_warnings: TakeWarnings, data: bytes) -> None:
    outcomes: set[type] = set()
    for length in range(0, len(data), 100):
        with in_memory(data[:length]) as file:
            found = outcome(lambda: opened(file, file), ImgfsError)
            if not isinstance(found, ImgfsError):
                check_image(found)
            outcomes.add(type(found))
    take_warnings()
    assert Image in outcomes
    assert outcomes <= {InvalidImage, Unsupported, Image}


@given(st.binary(max_size=3000))
def test_random_bytes_are_an_error_or_nothing(data: bytes) -> None:
    with pytest.raises(ImgfsError, match=r"^x\.tar: not "):
        list(scan(Memory(data.rstrip(b"\0") + b"\1")))


@given(st.binary(min_size=BLOCK, max_size=BLOCK))
def test_any_block_is_a_header_or_a_broken_one(block: bytes) -> None:
    for candidate in (block, resealed(block, 0, b"")):
        found = outcome(lambda: parse_header(candidate), BrokenHeader)  # noqa: B023 - called at once
        if isinstance(found, BrokenHeader):
            assert str(found).isprintable()
        else:
            assert found.size >= 0


@given(st.binary(max_size=200) | st.text("0123456789 =ab\n", max_size=200).map(str.encode))
def test_any_bytes_are_pax_records_or_broken_ones(data: bytes) -> None:
    found = outcome(lambda: pax_records(data), BrokenHeader)
    if isinstance(found, BrokenHeader):
        assert str(found).startswith(("PAX record ", "the PAX record "))
    else:
        assert sum(len(key) + len(value) for key, value in found.items()) <= len(data)


_KEYS = ["Config", "Layers", "RepoTags", "rootfs", "diff_ids", "manifests", "config", "layers", "digest", "size"]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(_KEYS), inner),
    max_leaves=20,
)


@given(_JSON)
def test_any_json_is_a_document_or_an_error(document: object) -> None:
    data = json.dumps(document).encode()
    parsers: tuple[Callable[[bytes, str], object], ...] = (
        parse_manifest_list,
        parse_image_config,
        parse_manifest,
        parse_index,
        check_layout,
        media_type_of,
    )
    for parse in parsers:
        found = outcome(lambda: parse(data, "x"), ImgfsError)  # noqa: B023 - called at once
        assert not isinstance(found, ImgfsError) or (str(found).isprintable() and str(found).startswith("x"))
