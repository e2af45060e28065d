"""Archives and documents that say of themselves what is not so, or far too much: refused or shown, in bounded work."""

import pytest

from fusefs.errors import InvalidImage
from fusefs.tar.members import scan
from tests.fuzz.oracles import check, check_documents
from tests.support.builders import END, Memory, archive_of, extended, header, member, pax, resealed
from tests.support.changesets import About, changeset, file, gnu_sparse, hard_link, pax_sparse, symlink, whiteout

MANY = 1 << 19
DOCUMENTS = {
    "brackets": b"[" * (4 << 20),
    "objects": b'{"a":' * MANY,
    "lists in each other": b"[" * MANY + b"]" * MANY,
    "a number of half a million digits": b'{"size":' + b"9" * MANY + b"}",
    "a power of half a million digits": b'{"size":1e' + b"9" * MANY + b"}",
    "one key again and again": b"{" + b'"rootfs":{},' * (MANY // 12) + b'"rootfs":{}}',
    "escapes": b'{"mediaType":"' + b"\\u001b" * (MANY // 6) + b'"}',
    "halves of characters": b'{"rootfs":{"diff_ids":["\\ud800"]},"manifests":[{"annotations":{"\\ud800":"\\udfff"}}]}',
    "digests that are none": b'{"rootfs":{"diff_ids":[' + b'"",' * (MANY // 3) + b'""]}}',
    "descriptors that are none": b'{"layers":[' + b"{}," * (MANY // 3) + b"{}]}",
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_a_document_of_much_is_refused_or_read(document: bytes) -> None:
    check_documents(document)


DEEP = "/".join("d" * 10_000)
LAYERS = {
    "a path of 10,000 directories": [changeset(file(DEEP, b"1"))],
    "the same in two layers, and a whiteout in it": [
        changeset(file(DEEP, b"1")),
        changeset(file(DEEP + "e", b"2"), whiteout("d/d/d")),
    ],
    "a hard link between deep paths": [changeset(file(DEEP + "e"), hard_link(DEEP, DEEP + "e"))],
    "long names in each other": [changeset(file("/".join(["n" * 255] * 300)))],
    "3,000 tiny files": [changeset(*(file(f"f{number}") for number in range(3000)))],
    "hundreds of attributes": [changeset(file("x", b"", About(xattrs={b"user.%d" % n: b"v" for n in range(500)})))],
    "links in a circle": [changeset(*(symlink(f"l{n}", f"l{(n + 1) % 50}") for n in range(50)))],
    "a sparse file of a terabyte": [changeset(gnu_sparse("x", 1 << 40, [(0, b"1" * 512)]))],
    "a sparse file of 8 EiB": [changeset(pax_sparse("1.0", "x", (1 << 63) - 1, [((1 << 63) - 513, b"1" * 512)]))],
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS.keys())
def test_a_layer_of_much_is_shown(layers: list[bytes]) -> None:
    assert check(layers) == len(layers)


def test_a_size_in_a_pax_record_is_of_the_next_file_and_of_nothing_between() -> None:
    """What lies behind "async tar" smuggling (CVE-2025-62518): the size moved past the header in between."""
    inner = member("smuggled", b"!")
    long_name = extended(b"L", b"long\0")
    data = archive_of(pax({"size": str(len(inner))}), long_name, header("short", 0), inner, member("after"))
    found = [(one.name, one.size) for one in scan(Memory(data))]
    assert found == [(b"long", len(inner)), (b"after", 0)]


def test_a_size_in_a_pax_record_means_nothing_for_what_has_no_data() -> None:
    data = archive_of(pax({"size": "512"}), header("d/", 0, b"5"), member("x", b"1"))
    assert [(one.name, one.size) for one in scan(Memory(data))] == [(b"d/", 0), (b"x", 1)]


@pytest.mark.parametrize(
    "record",
    [b"2147483648 path=x\n", b"9999999999 path=x\n", b"99999999999 path=x\n", b"0 path=x\n", b"-5 path=x\n", b"3 x=\n"],
)
def test_a_record_whose_length_lies_is_refused(record: bytes) -> None:
    with pytest.raises(InvalidImage, match=r"^x\.tar: .*PAX record 1 has "):
        list(scan(Memory(extended(b"x", record) + header("a") + END)))


@pytest.mark.parametrize("kind", [b"x", b"L", b"K"])
def test_an_extended_header_of_2_gib_is_refused_before_it_is_read(kind: bytes) -> None:
    source = Memory(header("long", 2 << 30, kind) + bytes(1 << 21))
    with pytest.raises(InvalidImage, match="has 2147483648 bytes, more than 1048576"):
        list(scan(source))
    assert source.bytes_read <= 1 << 20


def test_a_negative_size_in_base_256_is_refused() -> None:
    block = resealed(header("x", 1 << 40), 124, b"\xff" * 12)
    with pytest.raises(InvalidImage, match="negative size -1"):
        list(scan(Memory(block + END)))
