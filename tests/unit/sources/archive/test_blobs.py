"""Blobs by digest, in a directory and in a tar."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.content.file import OpenFile
from fusefs.content.protocol import Literal
from fusefs.errors import DigestMismatch, ImgfsError, InvalidImage, Unsupported
from fusefs.oci.digest import Digest
from fusefs.oci.documents import OCI_MANIFEST, Descriptor
from fusefs.sources.archive.blobs import Blobs, TarBlobs, blob, document, limited
from fusefs.sources.archive.directory import DirectoryBlobs
from fusefs.tar.members import MemberTable, scan
from tests.support.builders import archive_of, directory, fifo, hard_link, member, pax, sha256, symlink
from tests.support.changesets import gnu_sparse, pax_sparse
from tests.support.conformance import check_reads, closing_what_is_opened, open_descriptors

DATA = b'{"a":1}'
HEX = sha256(DATA)[7:]
DESCRIPTOR = Descriptor(OCI_MANIFEST, len(DATA), Digest("sha256", HEX))
PATH = f"blobs/sha256/{HEX}"
LEADS_OUT = (
    "is a symbolic link that leads out of the layout; cp -RL copies the layout with the files that links lead to"
)

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def write(path: str, data: bytes) -> None:
    """Write a file and the folders above it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


def in_directory(data: bytes = DATA) -> Blobs:
    """Return a directory with one blob."""
    write(f"dir/{PATH}", data)
    return DirectoryBlobs("dir")


def in_tar(*members: bytes) -> Blobs:
    """Return an archive of *members*."""
    Path("x.tar").write_bytes(archive_of(*members))
    file = OpenFile(os.open("x.tar", os.O_RDONLY), "x.tar")
    return TarBlobs(file, MemberTable.of(file.name, scan(file)))


@pytest.fixture(params=["directory", "tar"])
def one(request: pytest.FixtureRequest) -> Iterator[Blobs]:
    """One blob in a directory or a tar."""
    with closing_what_is_opened():
        yield in_directory() if request.param == "directory" else in_tar(member(PATH, DATA))


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


def refused(blobs: Blobs, path: str = PATH) -> tuple[type[ImgfsError], str]:
    """Return the class and message of the error for a file."""
    with pytest.raises(ImgfsError) as caught:
        blobs.file(*path.split("/"))
    return type(caught.value), str(caught.value)


def test_a_blob_is_there_with_all_ways_to_read_it(one: Blobs) -> None:
    content = blob(one, DESCRIPTOR, "the manifest")
    assert content is not None
    assert bytes(content.read_at(0, 100)) == DATA
    check_reads(content)


def test_a_document_is_there_with_its_descriptor(one: Blobs) -> None:
    found = document(one, DESCRIPTOR, "the manifest")
    assert (found.descriptor, found.content.data) == (DESCRIPTOR, DATA)


@pytest.mark.parametrize("path", ["gone", "blobs/gone", "blobs/md5/gone", f"{PATH}/below", f"blobs/sha256/{'0' * 64}"])
def test_what_is_not_there_is_nothing(one: Blobs, path: str) -> None:
    assert one.file(*path.split("/")) is None


def test_a_document_that_is_missing_is_named(one: Blobs) -> None:
    gone = Descriptor(OCI_MANIFEST, 1, Digest("sha256", "0" * 64))
    assert blob(one, gone, "the manifest") is None
    with pytest.raises(InvalidImage) as caught:
        document(one, gone, "the manifest")
    assert str(caught.value) == f"{one.name}: the manifest sha256:{'0' * 64} is missing"


def test_a_blob_of_another_size_than_its_descriptor_says_is_refused(one: Blobs) -> None:
    lie = Descriptor(OCI_MANIFEST, 8, DESCRIPTOR.digest)
    for read in (blob, document):
        with pytest.raises(InvalidImage) as caught:
            read(one, lie, "layer 3")
        assert str(caught.value) == f"{one.name}: layer 3 sha256:{HEX} has 7 bytes, its descriptor says 8"


@pytest.mark.parametrize("kind", ["directory", "tar"])
def test_a_document_with_another_digest_is_refused_and_a_layer_is_not_read(kind: str) -> None:
    other = b'{"a":2}'
    blobs = in_directory(other) if kind == "directory" else in_tar(member(PATH, other))
    assert blob(blobs, DESCRIPTOR, "layer 0") is not None
    with pytest.raises(DigestMismatch) as caught:
        document(blobs, DESCRIPTOR, "the manifest")
    found = sha256(other)
    assert str(caught.value) == f"{blobs.name}: the manifest has the digest {found}, its descriptor says sha256:{HEX}"


def test_a_document_may_have_4_mib_and_no_byte_more() -> None:
    assert limited(Literal(b"x" * 7), 7, "x") == b"x" * 7
    with pytest.raises(InvalidImage, match=r"^x has 8 bytes, more than 7$"):
        limited(Literal(b"x" * 8), 7, "x")
    data = b" " * ((4 << 20) + 1)
    big = Descriptor(OCI_MANIFEST, len(data), Digest("sha256", HEX))
    with pytest.raises(InvalidImage) as caught:
        document(in_directory(data), big, "the index")
    assert str(caught.value) == f"dir: blobs/sha256/{HEX} has 4194305 bytes, more than 4194304"


def test_a_file_in_a_directory_is_opened_once() -> None:
    blobs = in_directory()
    assert blobs.file(*PATH.split("/")) is blobs.file(*PATH.split("/"))


def test_a_blob_that_is_a_link_is_not_followed_out_of_the_directory() -> None:
    write("secret", DATA)
    write("dir/x", b"")
    os.makedirs("dir/blobs/sha256")
    os.symlink(os.path.abspath("secret"), f"dir/{PATH}")
    assert refused(DirectoryBlobs("dir")) == (InvalidImage, f"dir: {PATH} {LEADS_OUT}")


@pytest.mark.parametrize("link", ["blobs", "blobs/sha256"])
def test_a_folder_of_blobs_that_is_a_link_is_not_followed_and_not_called_missing(link: str) -> None:
    write(f"elsewhere/{HEX}", DATA)
    write(f"elsewhere/sha256/{HEX}", DATA)
    Path(f"dir/{link}").parent.mkdir(parents=True)
    os.symlink(os.path.abspath("elsewhere"), f"dir/{link}")
    assert refused(DirectoryBlobs("dir")) == (InvalidImage, f"dir: {PATH} {LEADS_OUT}")


@pytest.mark.parametrize(
    "target",
    [
        "../../../secret",
        "../../../dir/x",
        "../..//../dir/x",
        "l",
        "/x",
        "/proc/self/root/x",
        "../sha256/../../../dir/x",
    ],
)
def test_no_step_of_a_link_leads_out_of_the_directory(target: str) -> None:
    write("secret", DATA)
    write("dir/x", DATA)
    os.makedirs("dir/blobs/sha256")
    os.symlink("../../..", "dir/blobs/sha256/l")
    os.symlink(target, f"dir/{PATH}")
    assert refused(DirectoryBlobs("dir")) == (InvalidImage, f"dir: {PATH} {LEADS_OUT}")
    assert DirectoryBlobs("dir").has(*PATH.split("/"))


@pytest.mark.parametrize(
    "links",
    [
        {PATH: "../../rootfs.tar"},
        {PATH: "other", "blobs/sha256/other": "./..//../rootfs.tar"},
        {"blobs": "real", "real/sha256": "../deep/sha256", f"deep/sha256/{HEX}": "../../rootfs.tar"},
        {"blobs/sha256": "../deep", f"deep/{HEX}": "../blobs/../rootfs.tar"},
    ],
)
def test_a_link_is_followed_inside_the_directory(links: dict[str, str]) -> None:
    write("dir/rootfs.tar", DATA)
    for name, target in links.items():
        Path(f"dir/{name}").parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, f"dir/{name}")
    descriptors = open_descriptors()
    blobs = DirectoryBlobs("dir")
    content = blobs.file(*PATH.split("/"))
    assert content is not None
    assert bytes(content.read_at(0, 100)) == DATA
    assert document(blobs, DESCRIPTOR, "the manifest").content.data == DATA
    assert len(open_descriptors() - descriptors) == 1


def test_links_that_never_end_are_refused_and_40_are_not() -> None:
    write("dir/40", DATA)
    for number in range(40):
        os.symlink(f"{number + 1}", f"dir/{number}")
    assert DirectoryBlobs("dir").data("0") == DATA
    os.symlink("0", "dir/more")
    message = "dir: cannot open more: Too many levels of symbolic links"
    assert refused(DirectoryBlobs("dir"), "more") == (InvalidImage, message)


@pytest.mark.parametrize("target", ["gone", "../gone/x", "../../x/below"])
def test_a_link_to_nothing_is_a_missing_file(target: str) -> None:
    write("dir/x", b"")
    os.makedirs("dir/blobs/sha256")
    os.symlink(target, f"dir/{PATH}")
    blobs = DirectoryBlobs("dir")
    assert (blobs.file(*PATH.split("/")), blobs.has(*PATH.split("/"))) == (None, False)


def test_a_link_to_a_directory_is_not_a_regular_file() -> None:
    os.makedirs("dir/blobs/sha256")
    os.symlink("..", f"dir/{PATH}")
    assert refused(DirectoryBlobs("dir")) == (InvalidImage, f"dir/{PATH} is not a regular file")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a fifo", "a folder"])
def test_a_blob_that_is_no_file_is_refused_without_waiting_for_it(make: type) -> None:
    os.makedirs("dir/blobs/sha256")
    make(f"dir/{PATH}")
    assert refused(DirectoryBlobs("dir")) == (InvalidImage, f"dir/{PATH} is not a regular file")


@pytest.mark.parametrize("name", ["\x1b[2J", "\udcff"])
def test_a_directory_with_a_strange_name_is_shown_safely(name: str) -> None:
    os.mkdir(name)
    assert DirectoryBlobs(name).name.isprintable()
    assert DirectoryBlobs(name).file("gone") is None


@pytest.mark.parametrize(
    "members",
    [
        (member("x", DATA), symlink(PATH, "../../x")),
        (member("x", DATA), hard_link(PATH, "x")),
        (member(f"./{PATH}", DATA),),
        (member(PATH, b"old"), member(PATH, DATA)),
    ],
    ids=["symbolic link", "hard link", "with ./", "the last of two"],
)
def test_a_blob_in_a_tar_may_be_stored_as_tar_has_it(members: tuple[bytes, ...]) -> None:
    content = in_tar(*members).file(*PATH.split("/"))
    assert content is not None
    assert bytes(content.read_at(0, 100)) == DATA


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_a_blob_in_a_tar_may_be_a_pax_sparse_file(version: str) -> None:
    blobs = in_tar(member("first", b"1"), pax_sparse(version, PATH, 5000, [(3, b"abc"), (4000, b"defg")]))
    content = blobs.file(*PATH.split("/"))
    assert content is not None
    whole = bytes(3) + b"abc" + bytes(3994) + b"defg" + bytes(996)
    assert (content.size, content.stored, bytes(content.read_at(0, 9999))) == (5000, 7, whole)
    assert bytes(content.slice(2, 4000).read_at(1, 9999)) == whole[3:4002]
    assert blobs.data(*PATH.split("/")) == whole


@pytest.mark.parametrize(
    ("stored", "error", "message"),
    [
        (fifo(PATH), InvalidImage, f"{PATH} is a fifo, not a regular file"),
        (directory(PATH), InvalidImage, f"{PATH} is a directory, not a regular file"),
        (symlink(PATH, "../gone"), InvalidImage, f"{PATH} is a dangling link: blobs/gone is missing"),
        (
            symlink(PATH, "../../../etc/passwd"),
            InvalidImage,
            f"the link {PATH} leads out of the archive: ../../../etc/passwd",
        ),
        (
            pax({"GNU.sparse.major": "1", "GNU.sparse.name": PATH}) + member("x", b"x"),
            InvalidImage,
            f"{PATH}: GNU.sparse.realsize is no number: b''",
        ),
        (
            gnu_sparse(PATH, 8, [(2, b"data")]),
            Unsupported,
            f"{PATH} is a GNU sparse file (typeflag S), which engines refuse",
        ),
    ],
)
def test_a_blob_in_a_tar_that_is_no_file_is_named(stored: bytes, error: type[ImgfsError], message: str) -> None:
    assert refused(in_tar(stored)) == (error, f"x.tar: {message}")
