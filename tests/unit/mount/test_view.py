"""What the mountpoint looks like."""

import json
import os
import tempfile
from collections.abc import Iterator

import pytest

from fusefs.content.file import Extent, OpenFile
from fusefs.content.protocol import Content
from fusefs.errors import DigestMismatch
from fusefs.image.lazy_layers import Layers
from fusefs.image.model import Document, Image, Layer
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles
from fusefs.mount.view import ViewOptions, image_view
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from fusefs.oci.platform import Platform
from fusefs.tree.node import Attributes, Directory, LazyDirectory, Node, RegularFile, Special, Symlink
from tests.support.builders import COMPRESSIONS, LAYERS, compressed
from tests.support.changesets import changeset, file, symlink
from tests.support.conformance import (
    SOURCE,
    closing_what_is_opened,
    content_at,
    entries_of,
    literal_layer,
    open_descriptors,
)

CONFIG, MANIFEST = Document.of(DOCKER_CONFIG, b"config"), Document.of(DOCKER_MANIFEST, b"manifest")
PLATFORM = Platform("linux", "arm64", "v8")


def image(*layers: Layer) -> Image:
    """Return an image with *layers*."""
    return Image(SOURCE, "1.27", PLATFORM, 1234567890, CONFIG, MANIFEST, layers)


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


class CountingLayers(Layers):
    """The real layers, which write down what they are asked for."""

    def __init__(self, whole: Image) -> None:
        super().__init__(whole, tempfile.gettempdir())
        self.asked: list[tuple[str, DiffID | None]] = []

    def tar(self, layer: Layer) -> Content:
        self.asked.append(("tar", layer.diff_id))
        return super().tar(layer)

    def files(self, layer: Layer) -> LayerFiles:
        self.asked.append(("files", layer.diff_id))
        return super().files(layer)


def view(whole: Image, layers: Layers | None = None, *, trees: bool = False, transform: bool = False) -> Directory:
    """Return the tree of an image that belongs to user 1 and group 2."""
    options = ViewOptions(uid=1, gid=2, trees=trees, transform_symlinks=transform)
    return image_view(whole, layers or Layers(whole, tempfile.gettempdir()), options)


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
            return [(name, bytes_in(child)) for name, child in entries_of(node).items()]
        case RegularFile():
            return bytes(node.content.read_at(0, node.content.size))
        case Symlink():
            return node.target
        case Special():
            raise AssertionError(node)


def nodes(node: Node) -> Iterator[Node]:
    """Yield *node* and all below it, what is not listed too."""
    yield node
    match node:
        case Directory():
            for child in (*node.entries.values(), *node.unlisted.values()):
                yield from nodes(child)
        case LazyDirectory():
            for child in entries_of(node).values():
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
    root = view(image()._replace(documents=(index, stored)))
    blobs = [(name(data), data) for data in (b"config", b"manifest", b"stored", b"index")]
    assert bytes_in(folder(root, b"blobs", b"sha256")) == blobs
    (entry,) = json.loads(content_at(root, "index.json"))["manifests"]
    assert entry["digest"] == str(stored.descriptor.digest)


def test_an_artifact_without_a_platform_is_listed_without_one() -> None:
    (entry,) = json.loads(content_at(view(image()._replace(platform=None)), "index.json"))["manifests"]
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
    layer = literal_layer(b"b", compression="gzip")._replace(diff_id=DiffID(Digest.of([b"b"], "sha512")))
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
        (literal_layer(b"a", compression="gzip")._replace(content=None),),
        (literal_layer(b"a", compression="gzip")._replace(diff_id=None),),
    ],
    ids=["no layers", "plain", "not stored", "an artifact"],
)
def test_where_nothing_can_be_decompressed_there_is_no_folder_for_it(layers: tuple[Layer, ...]) -> None:
    root = view(image(*layers))
    assert b".uncompressed" not in root.entries
    assert folder(root, b"blobs", b"sha256").unlisted == {}


def test_nothing_is_decompressed_before_the_first_look_and_a_repeated_layer_once() -> None:
    a, b = (literal_layer(data, compression="gzip") for data in (b"a", b"b"))
    whole = image(a, b, a)
    layers = CountingLayers(whole)
    root = view(whole, layers)
    assert layers.asked == []
    with closing_what_is_opened():
        before = len(open_descriptors())
        tars = [content_at(root, f".uncompressed/{number}/tar") for number in (2, 0, 0, 1)]
        assert tars == [b"a", b"a", b"a", b"b"]
        assert len(open_descriptors()) == before + 2
    assert set(layers.asked) == {("tar", a.diff_id), ("tar", b.diff_id)}


def test_one_blob_that_is_listed_for_two_diff_ids_is_compared_with_each() -> None:
    # Else the second diffID's file in blobs/ would have bytes of another digest.
    honest = literal_layer(b"a", compression="gzip")
    lie = honest._replace(diff_id=DiffID(Digest.of([b"other"])))
    root = view(image(honest, lie))
    assert content_at(root, f"blobs/sha256/{name(b'a').decode()}") == b"a"
    with pytest.raises(DigestMismatch):
        content_at(root, f"blobs/sha256/{name(b'other').decode()}")


def stored(data: bytes, compression: str | None = None) -> Layer:
    """Return a layer in a file, which only then can be indexed."""
    descriptor = os.memfd_create("layer", os.MFD_CLOEXEC)
    bytes_stored = compressed(data, compression)
    os.write(descriptor, bytes_stored)
    extent = Extent(OpenFile(descriptor, "layer"), 0, len(bytes_stored))
    return literal_layer(data, compression=compression)._replace(content=extent)


def test_there_is_a_tree_for_each_layer_and_one_for_all() -> None:
    whole = image(stored(LAYERS[0]), stored(LAYERS[1]), stored(LAYERS[2], "zstd"))
    root = view(whole, trees=True)
    assert list(root.entries)[5:] == [b".uncompressed", b"layers", b"rootfs"]
    assert list(folder(root, b"layers").entries) == [b"0", b"1", b"2"]
    assert content_at(root, "layers/0/etc/os-release") == b"ID=test\n"
    assert entries_of(folder(root, b"layers")).keys() == {b"0", b"1", b"2"}
    assert content_at(root, "layers/2/etc/motd") == b"hello\n"
    assert entries_of_path(root, b"layers", b"1") == {}
    assert content_at(root, "rootfs/etc/os-release") == b"ID=test\n"
    assert content_at(root, "rootfs/etc/motd") == b"hello\n"


def entries_of_path(root: Directory, *names: bytes) -> dict[bytes, Node]:
    """Return the entries of a lazy directory."""
    lazy = folder(root, *names[:-1]).entries[names[-1]]
    assert isinstance(lazy, LazyDirectory)
    return entries_of(lazy)


def test_until_someone_looks_the_trees_are_directories_that_no_layer_lists_and_nothing_is_read() -> None:
    whole = image(stored(LAYERS[0], "gzip"))
    layers = CountingLayers(whole)
    root = view(whole, layers, trees=True)
    for node in (root.entries[b"rootfs"], folder(root, b"layers").entries[b"0"]):
        assert isinstance(node, LazyDirectory)
        assert (node.attributes, node.settled) == (Attributes(0o755, 0, 0, 1234567890), False)
    assert folder(root, b"layers").attributes == Attributes(0o555, 1, 2, 1234567890)
    assert layers.asked == []


def test_a_look_into_one_layer_indexes_no_other() -> None:
    whole = image(stored(LAYERS[0]), stored(LAYERS[2]))
    layers = CountingLayers(whole)
    entries_of_path(view(whole, layers, trees=True), b"layers", b"1")
    assert layers.asked == [("files", whole.layers[1].diff_id), ("tar", whole.layers[1].diff_id)]


def test_without_trees_there_are_none() -> None:
    root = view(image(stored(LAYERS[0])), trees=False)
    assert list(root.entries) == [b"manifest.json", b"config", b"blobs", b"oci-layout", b"index.json"]


@pytest.mark.parametrize(
    "unreadable",
    [literal_layer(b"a")._replace(content=None), literal_layer(b"a")._replace(diff_id=None)],
    ids=["not stored", "an artifact"],
)
def test_where_a_layer_cannot_be_read_there_is_no_root_file_system_and_no_tree_of_it(unreadable: Layer) -> None:
    root = view(image(stored(LAYERS[0]), unreadable), trees=True)
    assert list(folder(root, b"layers").entries) == [b"0"]
    assert b"rootfs" not in root.entries


def test_an_image_without_layers_has_an_empty_root_file_system() -> None:
    root = view(image(), trees=True)
    assert folder(root, b"layers").entries == {}
    rootfs = root.entries[b"rootfs"]
    assert isinstance(rootfs, LazyDirectory)
    tree = rootfs.fill()
    assert isinstance(tree, RootfsTree)
    assert [*tree.listing(0)] == []


def artifact(*layers: Layer) -> Image:
    """Return an artifact of *layers*."""
    return image(*layers)._replace(artifact=True)


def titled(data: bytes, title: str) -> Layer:
    """Return a layer of an artifact with a title."""
    layer = literal_layer(data)
    descriptor = layer.descriptor._replace(annotations={"org.opencontainers.image.title": title})
    return layer._replace(diff_id=None, descriptor=descriptor)


def test_the_layers_of_an_artifact_are_files_with_their_titles() -> None:
    root = view(artifact(titled(b"1", "chart.tgz"), titled(b"2", "docs/a"), literal_layer(b"3")), trees=True)
    assert b"rootfs" not in root.entries
    files = folder(root, b"files")
    assert sorted(files.entries) == [b"chart.tgz", b"docs"]
    assert content_at(root, "files/chart.tgz") == b"1"
    assert content_at(root, "files/docs/a") == b"2"


def test_an_image_has_no_files_by_title() -> None:
    layer = literal_layer(changeset(file("a")))
    annotated = layer.descriptor._replace(annotations={"org.opencontainers.image.title": "a"})
    assert b"files" not in view(image(layer._replace(descriptor=annotated)), trees=True).entries


def test_a_layer_that_is_no_tar_leaves_out_itself_and_the_root_file_system() -> None:
    layers = literal_layer(changeset(file("a"))), literal_layer(b"{}")._replace(is_tar=False)
    root = view(image(*layers), trees=True)
    assert list(folder(root, b"layers").entries) == [b"0"]
    assert b"rootfs" not in root.entries


@pytest.mark.parametrize(("transform", "target"), [(False, b"/etc/motd"), (True, b"../etc/motd")])
def test_absolute_links_lead_into_the_tree_only_if_that_is_wanted(transform: bool, target: bytes) -> None:  # noqa: FBT001
    whole = image(stored(changeset(symlink("usr/link", "/etc/motd"))))
    root = view(whole, trees=True, transform=transform)
    for place in (root.entries[b"rootfs"], folder(root, b"layers").entries[b"0"]):
        assert isinstance(place, LazyDirectory)
        tree = place.fill()
        usr = tree.find(0, b"usr")
        assert usr is not None
        ((name_shown, number),) = tree.listing(usr)
        found = tree.node(number)
        assert isinstance(found, Symlink)
        assert (name_shown, found.target) == (b"link", target)
