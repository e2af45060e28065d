"""The layers of a repository by their descriptors."""

import os
from pathlib import Path

import pytest

from fusefs.cache.store import BLOBS, Cache
from fusefs.errors import InvalidImage
from fusefs.oci.digest import Digest
from fusefs.oci.documents import OCI_LAYER, Descriptor
from fusefs.oci.reference import registry_reference
from fusefs.sources.registry.entry import BlobEntry
from fusefs.sources.registry.store import RegistryStore


def store(folder: Path) -> RegistryStore:
    """Return a store that asks no registry."""
    return RegistryStore(registry_reference("example.org/a"), "docker://example.org/a", None, None, str(folder))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_layer_without_bytes_has_the_digest_of_none(tmp_path: Path, algorithm: str) -> None:
    content = store(tmp_path).blob_content(Descriptor(OCI_LAYER, 0, Digest.of([], algorithm)))
    assert content is not None
    assert content.read_at(0, 1) == b""
    digest = Digest.of([b"a"], algorithm)
    message = (
        f"^docker://example.org/a: {digest} has 0 bytes in its descriptor, but is not the digest of an empty blob$"
    )
    with pytest.raises(InvalidImage, match=message):
        store(tmp_path).blob_content(Descriptor(OCI_LAYER, 0, digest))


def test_two_descriptors_of_a_layer_state_the_same_size(tmp_path: Path) -> None:
    blobs, layer = store(tmp_path), Descriptor(OCI_LAYER, 5, Digest.of([b"12345"]))
    assert blobs.blob_content(layer) is blobs.blob_content(layer)
    with pytest.raises(InvalidImage, match=f"{layer.digest} has 5 bytes in one descriptor, 6 in another$"):
        blobs.blob_content(layer._replace(size=6))


def test_a_document_in_use_is_not_removed(tmp_path: Path) -> None:
    cache, digest = Cache(str(tmp_path / "cache")), Digest.of([b"{}"])
    entry = BlobEntry(cache, Descriptor(OCI_LAYER, 2, digest), "docker://example.org/a")
    key, held = f"sha256-{digest.encoded}", entry.held()
    held.hold()
    assert os.listdir(tmp_path / "cache" / BLOBS) == []  # one that is not there is not made
    entry.add_document(b"{}")
    held.hold()
    assert cache.remove([(BLOBS, key)]) == 0
    held.close()
    held.hold()
    assert cache.remove([(BLOBS, key)]) > 0
