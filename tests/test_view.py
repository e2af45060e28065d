"""What the mountpoint looks like."""

from fusefs.digest import Digest
from fusefs.image import Document, Image
from fusefs.oci import DOCKER_CONFIG, DOCKER_MANIFEST
from fusefs.tree import Attributes, Directory, Node
from fusefs.view import image_view
from tests.conformance import literal_layer

CONFIG, MANIFEST = Document.of(DOCKER_CONFIG, b"config"), Document.of(DOCKER_MANIFEST, b"manifest")


def name(data: bytes, algorithm: str = "sha256") -> bytes:
    """Return the name of the blob with *data*."""
    return Digest.of([data], algorithm).encoded.encode()


def bytes_in(node: Node) -> object:
    """Return the tree below *node* with its names in order, files as their bytes."""
    if isinstance(node, Directory):
        return [(name, bytes_in(child)) for name, child in node.entries.items()]
    return bytes(node.content.read_at(0, node.content.size))


def attributes_in(node: Node) -> set[tuple[type, Attributes]]:
    """Return the attributes of directories and files in the tree below *node*."""
    found = {(type(node), node.attributes)}
    if isinstance(node, Directory):
        found = found.union(*(attributes_in(child) for child in node.entries.values()))
    return found


def test_the_root_has_manifest_config_and_each_distinct_blob_once() -> None:
    root = image_view(
        Image("x", CONFIG, MANIFEST, (literal_layer(b"a"), literal_layer(b""), literal_layer(b"a")), 5), 1, 2
    )
    blobs = [(name(data), data) for data in (b"config", b"manifest", b"a", b"")]
    assert bytes_in(root) == [
        (b"manifest.json", b"manifest"),
        (b"config", b"config"),
        (b"blobs", [(b"sha256", blobs)]),
    ]


def test_blobs_of_another_algorithm_have_their_own_directory() -> None:
    root = image_view(Image("x", CONFIG, MANIFEST, (literal_layer(b"a", "sha512"), literal_layer(b"a")), 5), 1, 2)
    blobs = root.entries[b"blobs"]
    assert bytes_in(blobs) == [
        (b"sha256", [(name(data), data) for data in (b"config", b"manifest", b"a")]),
        (b"sha512", [(name(b"a", "sha512"), b"a")]),
    ]


def test_everything_is_read_only_belongs_to_the_mounter_and_is_as_old_as_the_image() -> None:
    root = image_view(Image("x", CONFIG, MANIFEST, (literal_layer(b"a"),), 1234567890), 1, 2)
    file = root.entries[b"config"]
    assert attributes_in(root) == {
        (Directory, Attributes(permissions=0o555, uid=1, gid=2, mtime_ns=1234567890)),
        (type(file), Attributes(permissions=0o444, uid=1, gid=2, mtime_ns=1234567890)),
    }
