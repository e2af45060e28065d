"""A stream that is spooled, indexed and hashed in one pass."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.content.file import Extent
from fusefs.content.protocol import Literal
from fusefs.content.spool import Spool
from fusefs.errors import EngineError, InvalidImage, Unavailable
from fusefs.oci.digest import Digest
from fusefs.sources.archive.spooled import SpooledTar
from fusefs.sources.archive.spooling import spool_tar
from tests.conftest import TakeWarnings
from tests.support.builders import Archive, archive_of, hard_link, member, sha256
from tests.support.conformance import closing_what_is_opened
from tests.support.spools import BIG, TAR, failure


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


def saved(stream: list[bytes], directory: Path) -> SpooledTar:
    """Save *stream* in *directory*."""
    with Spool(str(directory), "x") as spool:
        return spool_tar(stream, spool, 0)


def refusal(data: bytes, directory: Path) -> str:
    """Return the message of the error for a whole stream."""
    error = failure(iter([data]), directory)
    assert isinstance(error, InvalidImage)
    return str(error)


@pytest.mark.parametrize("size", [1000, 512, 1 << 20, len(TAR)])
def test_every_member_is_there_with_its_digest_however_it_came(tmp_path: Path, size: int) -> None:
    found = saved([TAR[start : start + size] for start in range(0, len(TAR), size)], tmp_path)
    assert list(found.blobs.index.members) == [b"d", b"d/a", b"big", b"l", b"empty"]
    for name, data in [("d/a", b"hello"), ("l", b"hello"), ("big", BIG), ("empty", b"")]:
        content = found.blobs.file(name)
        assert isinstance(content, Extent)
        assert bytes(content.read_at(0, len(BIG))) == data
        assert str(found.digests[content.offset]) == sha256(data)
        assert str(found.digest_of(content, "sha256")) == sha256(data)
        assert found.digest_of(content, "sha512") == Digest.of([data], "sha512")
    assert len(found.digests) == 3
    assert found.warnings == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "warnings"),
    [
        (TAR + b"garbage", [f"x: ignored data after the end of the archive at offset {len(TAR)}"]),
        (TAR[:-1024], ["x: the end of the archive is not marked; all its members are complete"]),
        (TAR[:-512], ["x: the end of the archive is marked with one zero block only"]),
        (member("a") + bytes(512) + member("b") + bytes(512) + TAR, ["x: ignored a lone zero block at offset 512"]),
    ],
    ids=range(4),
)
def test_what_is_odd_is_kept_and_logged_when_that_is_wanted(
    tmp_path: Path, take_warnings: TakeWarnings, data: bytes, warnings: list[str]
) -> None:
    found = saved([data], tmp_path)
    assert (take_warnings(), found.warnings) == ([], warnings)
    found.log_warnings()
    assert take_warnings() == warnings


def test_a_content_of_something_else_is_hashed_as_it_is(tmp_path: Path) -> None:
    assert str(saved([TAR], tmp_path).digest_of(Literal(b"other"), "sha256")) == sha256(b"other")


def test_a_hard_link_has_the_digest_of_its_target(tmp_path: Path) -> None:
    found = saved([archive_of(member("a", b"x"), hard_link("b", "a"))], tmp_path)
    content = found.blobs.file("b")
    assert content is not None
    assert str(found.digest_of(content, "sha256")) == sha256(b"x")


def test_empty_pieces_are_no_end(tmp_path: Path) -> None:
    assert saved([b"", TAR[:700], b"", TAR[700:], b""], tmp_path).digests


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x: not a tar archive: the file is empty"),
        (TAR[:1026], "x: truncated in d/a at offset 1026: 2 of 5 bytes are there"),
        (TAR[:3000], f"x: truncated in big at offset 3000: 952 of {len(BIG)} bytes are there"),
        (member("a") + b"\xff" * 512, "x: damaged: no tar header at offset 512: the checksum does not match"),
    ],
    ids=range(4),
)
def test_what_is_wrong_with_the_tar_is_raised(tmp_path: Path, data: bytes, message: str) -> None:
    assert refusal(data, tmp_path) == message


@pytest.mark.parametrize("error", [OSError(errno.ECONNRESET, "reset"), Unavailable("gone"), EngineError("failed")])
@pytest.mark.parametrize("before", [b"", TAR[:3000], TAR, b"\xff" * 1024], ids=["nothing", "a part", "all", "garbage"])
def test_what_the_stream_raises_is_passed_on_whatever_the_tar_is(
    tmp_path: Path, error: Exception, before: bytes
) -> None:
    def stream() -> Iterator[bytes]:
        yield before
        raise error

    assert failure(stream(), tmp_path) is error


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (b"", "x: corrupt"),
        (TAR[:3000], f"x: corrupt; truncated in big at offset 3000: 952 of {len(BIG)} bytes are there"),
        (TAR, "x: corrupt"),
    ],
    ids=["nothing", "a part", "all"],
)
def test_damage_in_the_stream_is_raised_with_the_member_that_it_is_in(
    tmp_path: Path, before: bytes, message: str
) -> None:
    def stream() -> Iterator[bytes]:
        yield before
        raise InvalidImage("x: corrupt")

    error = failure(stream(), tmp_path)
    assert (type(error), str(error)) == (InvalidImage, message)


@pytest.mark.parametrize(
    ("begin", "message"),
    [(b"\xff" * 1024, "x: not a tar archive: the checksum does not match at offset 0"), (TAR, None)],
    ids=["garbage", "an archive"],
)
def test_a_stream_that_never_ends_is_left_soon_after_nothing_more_is_understood(
    tmp_path: Path, begin: bytes, message: str | None
) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield begin
        while taken < 1 << 30:
            taken += 1 << 16
            yield bytes(1 << 16)

    if message is None:
        with Spool(str(tmp_path), "x") as spool:
            assert spool_tar(endless(), spool, 0).blobs.index.find(b"big") is not None
    else:
        assert str(failure(endless(), tmp_path)) == message
    assert taken < 1 << 30


def test_a_real_archive_is_understood(tmp_path: Path) -> None:
    found = saved([Archive().data()], tmp_path)
    assert found.blobs.name == "x"
    assert found.blobs.file("manifest.json") is not None
