"""What the mountpoint looks like."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fusefs.content import Content, Literal
from fusefs.digest import DiffID, Digest
from fusefs.image import Document, Image, Layer
from fusefs.oci import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from fusefs.platforms import Platform
from fusefs.tree import Attributes, Directory, LazyDirectory, Node, RegularFile, Symlink
from fusefs.view import Uncompress, image_view
from tests.builders import COMPRESSIONS, DECOMPRESSIONS
from tests.conformance import content_at, literal_layer

CONFIG, MANIFEST = Document.of(DOCKER_CONFIG, b"config"), Document.of(DOCKER_MANIFEST, b"manifest")
PLATFORM = Platform("linux", "arm64", "v8")


def image(*layers: Layer) -> Image:
    """Return an image with *layers*."""
    return Image("x", "1.27", PLATFORM, 1234567890, CONFIG, MANIFEST, layers)


def decompress(layer: Layer) -> Content:
    """Return the plain tar of *layer*, in memory."""
    assert isinstance(layer.content, Literal)
    assert layer.compression is not None
    return Literal(DECOMPRESSIONS[layer.compression.value](layer.content.data))


def view(whole: Image, uncompress: Uncompress = decompress) -> Directory:
    """Return the tree of an image that belongs to user 1 and group 2."""
    return image_view(whole, 1, 2, uncompress)


def name(data: bytes, algorithm: str = "sha256") -> bytes:
    """Return the name of the blob with *data*."""
    return Digest.of([data], algorithm).encoded.encode()


def folder(node: Node, *names: bytes) -> Directory:
    """Return a directory below *node*."""
    for one in names:
        assert isinstance(node, Directory)
        node = node.entries[one]
    assert isinstance(node, Directory)
    return node


def bytes_in(node: Node) -> object:
    """Return the tree below *node* with its names in order, files as their bytes, links as their targets."""
    match node:
        case Directory():
            return [(name, bytes_in(child)) for name, child in node.entries.items()]
        case LazyDirectory():
            return [(name, bytes_in(child)) for name, child in node.fill().items()]
        case RegularFile():
            return bytes(node.content.read_at(0, node.content.size))
        case Symlink():
            return node.target


def nodes(node: Node) -> Iterator[Node]:
    """Yield *node* and all below it, what is not listed too."""
    yield node
    match node:
        case Directory():
            for child in (*node.entries.values(), *node.unlisted.values()):
                yield from nodes(child)
        case LazyDirectory():
            for child in node.fill().values():
                yield from nodes(child)


def test_the_root_has_the_documents_and_each_distinct_blob_once() -> None:
    whole = image(literal_layer(b"a"), literal_layer(b""), literal_layer(b"a"))
    oci = whole.oci_manifest
    index = (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        b'"size":%d,"digest":"%s","platform":{"architecture":"arm64","os":"linux","variant":"v8"},'
        b'"annotations":{"org.opencontainers.image.ref.name":"1.27"}}]}'
    ) % (oci.descriptor.size, str(oci.descriptor.digest).encode())
    blobs = [(name(data), data) for data in (b"config", b"manifest", oci.content.data, b"a", b"")]
    assert bytes_in(view(whole)) == [
        (b"manifest.json", b"manifest"),
        (b"config", b"config"),
        (b"blobs", [(b"sha256", blobs)]),
        (b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        (b"index.json", index),
    ]


def test_blobs_of_another_algorithm_have_their_own_directory() -> None:
    whole = image(literal_layer(b"a", "sha512"), literal_layer(b"a"))
    documents = (b"config", b"manifest", whole.oci_manifest.content.data)
    assert bytes_in(folder(view(whole), b"blobs")) == [
        (b"sha256", [(name(data), data) for data in (*documents, b"a")]),
        (b"sha512", [(name(b"a", "sha512"), b"a")]),
    ]


def test_every_document_on_the_way_is_a_blob() -> None:
    stored, index = Document.of(OCI_MANIFEST, b"stored"), Document.of(OCI_INDEX, b"index")
    root = view(replace(image(), documents=(index, stored)))
    blobs = [(name(data), data) for data in (b"config", b"manifest", b"stored", b"index")]
    assert bytes_in(folder(root, b"blobs", b"sha256")) == blobs
    (entry,) = json.loads(content_at(root, "index.json"))["manifests"]
    assert entry["digest"] == str(stored.descriptor.digest)


def test_an_artifact_without_a_platform_is_listed_without_one() -> None:
    (entry,) = json.loads(content_at(view(replace(image(), platform=None)), "index.json"))["manifests"]
    assert entry.keys() == {"mediaType", "size", "digest", "annotations"}


def test_everything_is_read_only_belongs_to_the_mounter_and_is_as_old_as_the_image() -> None:
    root = view(image(literal_layer(b"a"), literal_layer(b"b", compression="gzip")))
    found = {(type(node), node.attributes) for node in nodes(root)}
    assert found == {
        (kind, Attributes(permissions=permissions, uid=1, gid=2, mtime_ns=1234567890))
        for kind, permissions in [(Directory, 0o555), (LazyDirectory, 0o555), (RegularFile, 0o444), (Symlink, 0o777)]
    }


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_compressed_layer_has_its_plain_tar_by_its_number(compression: str) -> None:
    layers = literal_layer(b"a"), literal_layer(b"b", compression=compression)
    root = view(image(*layers))
    assert bytes_in(root.entries[b".uncompressed"]) == [(b"1", [(b"tar", b"b")])]
    assert list(root.entries)[-1] == b".uncompressed"


def test_a_diff_id_that_is_not_stored_leads_unlisted_to_the_plain_tar() -> None:
    layer = literal_layer(b"b", compression="gzip")
    root = view(image(literal_layer(b"a"), layer))
    blobs = folder(root, b"blobs", b"sha256")
    assert {one: bytes_in(node) for one, node in blobs.unlisted.items()} == {name(b"b"): b"../../.uncompressed/1/tar"}
    assert name(b"b") not in blobs.entries
    assert layer.descriptor.digest.encoded.encode() in blobs.entries
    assert content_at(root, f"blobs/sha256/{name(b'b').decode()}") == b"b"


def test_a_diff_id_by_another_algorithm_has_a_folder_of_links_only() -> None:
    layer = replace(literal_layer(b"b", compression="gzip"), diff_id=DiffID(Digest.of([b"b"], "sha512")))
    blobs = folder(view(image(layer)), b"blobs", b"sha512")
    assert (dict(blobs.entries), list(blobs.unlisted)) == ({}, [name(b"b", "sha512")])


def test_a_diff_id_that_is_stored_as_well_is_that_blob() -> None:
    root = view(image(literal_layer(b"a", compression="gzip"), literal_layer(b"a")))
    assert folder(root, b"blobs", b"sha256").unlisted == {}
    assert content_at(root, f"blobs/sha256/{name(b'a').decode()}") == b"a"


@pytest.mark.parametrize(
    "layers",
    [
        (),
        (literal_layer(b"a"),),
        (replace(literal_layer(b"a", compression="gzip"), content=None),),
        (replace(literal_layer(b"a", compression="gzip"), diff_id=None),),
    ],
    ids=["no layers", "plain", "not stored", "an artifact"],
)
def test_where_nothing_can_be_decompressed_there_is_no_folder_for_it(layers: tuple[Layer, ...]) -> None:
    root = view(image(*layers))
    assert b".uncompressed" not in root.entries
    assert folder(root, b"blobs", b"sha256").unlisted == {}


def test_nothing_is_decompressed_before_the_first_look_and_a_repeated_layer_once() -> None:
    asked: list[Layer] = []

    def noting(layer: Layer) -> Content:
        asked.append(layer)
        return decompress(layer)

    a, b = (literal_layer(data, compression="gzip") for data in (b"a", b"b"))
    root = view(image(a, b, a), noting)
    assert asked == []
    tars = [content_at(root, f".uncompressed/{number}/tar") for number in (2, 0, 0, 1)]
    assert (tars, asked) == ([b"a", b"a", b"a", b"b"], [a, b])


def test_one_blob_that_is_listed_for_two_diff_ids_is_compared_with_each() -> None:
    # Else the second diffID's file in blobs/ would have bytes of another digest.
    honest = literal_layer(b"a", compression="gzip")
    lie = replace(honest, diff_id=DiffID(Digest.of([b"other"])))
    asked: list[DiffID | None] = []

    def noting(layer: Layer) -> Content:
        asked.append(layer.diff_id)
        return decompress(layer)

    root = view(image(honest, lie), noting)
    for layer in (honest, lie):
        assert layer.diff_id is not None
        content_at(root, f"blobs/sha256/{layer.diff_id.encoded}")
    assert asked == [honest.diff_id, lie.diff_id]
