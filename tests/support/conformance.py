"""What is true of every image, from whatever source: one check, run over all of them."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fusefs.content.file import OpenFile
from fusefs.content.protocol import Content, Literal, chunks
from fusefs.errors import ImgfsError, InvalidImage
from fusefs.image.lazy_layers import Layers
from fusefs.image.model import Image, Layer
from fusefs.mount.view import ViewOptions, image_view
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.documents import DOCKER_LAYER, LAYERS, OCI_MANIFEST, Descriptor
from fusefs.oci.transport import DOCKER_ARCHIVE, Source
from fusefs.progress import Advance, Silent
from fusefs.sources import open_image
from fusefs.sources.archive.blobs import TarBlobs
from fusefs.sources.archive.docker_archive import DockerArchive
from fusefs.sources.settings import Settings
from fusefs.tar.compression import Compression
from fusefs.tar.members import MemberTable, scan
from fusefs.tree.node import Directory, KnownTree, LazyDirectory, Node, RegularFile, Symlink, Tree
from tests.support.builders import COMPRESSIONS, DECOMPRESSIONS
from tests.support.erofs_views import check as check_metadata

_OCI_LAYERS = {
    None: "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "xz": "application/vnd.oci.image.layer.v1.tar",
    "bzip2": "application/vnd.oci.image.layer.v1.tar",
}


def check_image(image: Image) -> None:
    """Assert that digests, sizes, order and every way of reading *image* and its view agree."""
    for descriptor, content in image.blobs():
        assert content.size == descriptor.size
        check_reads(content)
        assert _digest(content, descriptor.digest.algorithm) == str(descriptor.digest)
    for layer in image.layers:
        _check_compression(layer)
    manifest = json.loads(image.manifest.content.data)
    assert manifest["config"]["digest"] == str(image.config.descriptor.digest)
    assert manifest["config"]["size"] == len(image.config.content.data)
    stated = [(layer["digest"], layer["size"]) for layer in manifest["layers"]]
    assert stated == [(str(layer.descriptor.digest), layer.descriptor.size) for layer in image.layers]
    diff_ids = [layer.diff_id for layer in image.layers]
    if None in diff_ids:
        assert set(diff_ids) == {None}
    else:
        config = json.loads(image.config.content.data)
        assert [str(diff_id) for diff_id in diff_ids] == (config["rootfs"].get("diff_ids") or [])
    check_view(image)


def check_view(image: Image) -> None:
    """Assert that the mountpoint is an image layout of *image* alone, and its plain tars the diffIDs'."""
    with closing_what_is_opened():
        root = view_of(image)
        assert json.loads(content_at(root, "oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        assert content_at(root, "manifest.json") == image.manifest.content.data
        assert content_at(root, "config") == image.config.content.data
        index = json.loads(content_at(root, "index.json"))
        (entry,) = index["manifests"]
        assert (index["schemaVersion"], entry["mediaType"]) == (2, OCI_MANIFEST)
        assert entry["annotations"] == {"org.opencontainers.image.ref.name": image.tag}
        assert entry.get("platform") == _platform_json(image)
        assert (b"rootfs" in root.entries) is (image.why_no_rootfs == "")
        manifest = json.loads(_resolved(root, entry))
        assert manifest.get("mediaType", OCI_MANIFEST) == OCI_MANIFEST
        assert _resolved(root, manifest["config"]) == image.config.content.data
        for number, (stated, layer) in enumerate(zip(manifest["layers"], image.layers, strict=True)):
            if layer.content is not None:
                assert _resolved(root, stated) == stored(layer)
            if layer.readable and layer.diff_id is not None:
                told = _OCI_LAYERS[layer.compression and layer.compression.value]
                if layer.descriptor.media_type in LAYERS:
                    assert stated["mediaType"].replace(".nondistributable", "") == told
                check_reads(_content(root, f"blobs/{layer.diff_id.algorithm}/{layer.diff_id.encoded}"))
            if layer.readable and layer.compression and layer.diff_id:
                plain = _content(root, f".uncompressed/{number}/tar")
                assert _digest(plain, layer.diff_id.algorithm) == str(layer.diff_id)
        _check_blobs(root)
        if all(layer.content is None or layer.content.file_place() for layer in image.layers):
            with suppress(InvalidImage):  # a layer that is no tar
                check_metadata(root)  # what the kernel would show


def view_of(image: Image) -> Directory:
    """Return the tree of *image*, made in the temporary directory when it is looked at."""
    return image_view(image, Layers(image, tempfile.gettempdir()), ViewOptions(uid=0, gid=0))


def _platform_json(image: Image) -> dict[str, str] | None:
    if image.platform is None:
        return None
    parts = {key: getattr(image.platform, key) for key in ("architecture", "os", "variant")}
    return {key: value for key, value in parts.items() if value}


def _check_blobs(root: Directory) -> None:
    """Assert that every file in ``blobs/``, listed or not, is named by its digest."""
    blobs = root.entries[b"blobs"]
    assert isinstance(blobs, Directory)
    for algorithm, folder in blobs.entries.items():
        assert isinstance(folder, Directory)
        for name in [*folder.entries, *folder.unlisted]:
            content = _content(root, f"blobs/{algorithm.decode()}/{name.decode()}")
            assert _digest(content, algorithm.decode()) == f"{algorithm.decode()}:{name.decode()}"


def _resolved(root: Directory, descriptor: dict[str, Any]) -> bytes:
    """Return the blob that *descriptor* describes, which must have the size and digest that it says."""
    data = content_at(root, f"blobs/{descriptor['digest'].replace(':', '/')}")
    assert len(data) == descriptor["size"]
    algorithm, _, encoded = descriptor["digest"].partition(":")
    assert hashlib.new(algorithm, data).hexdigest() == encoded
    return data


def content_at(root: Directory, path: str) -> bytes:
    """Return the bytes of the file at *path*, links followed."""
    content = _content(root, path)
    return bytes(content.read_at(0, content.size))


def _content(root: Directory, path: str) -> Content:
    above: list[tuple[Tree, int]] = [(KnownTree(root), 0)]
    parts = path.split("/")
    while parts:
        part = parts.pop(0)
        if part == "..":
            above.pop()
            continue
        tree, directory = above[-1]
        number = tree.find(directory, part.encode())
        match None if number is None else tree.node(number):
            case Symlink() as found:
                parts = [*found.target.decode().split("/"), *parts]
            case RegularFile() as found if not parts:
                return found.content
            case LazyDirectory() as found:
                above.append((found.fill(), 0))
            case Directory() if number is not None:
                above.append((tree, number))
    raise FileNotFoundError(path)


def entries_of(directory: Directory | LazyDirectory) -> dict[bytes, Node]:
    """Return what can be looked up in *directory*; the first look into a lazy one has its tree made."""
    if isinstance(directory, Directory):
        return {**directory.entries, **directory.unlisted}
    tree = directory.fill()
    return {name: tree.node(number) for name, number in tree.listing(0)}


def _check_compression(layer: Layer) -> None:
    """Assert that the compression of *layer* is that of its bytes, and what comes out has the diffID."""
    if not layer.readable or layer.diff_id is None:
        return
    data = stored(layer)
    plain = data if layer.compression is None else DECOMPRESSIONS[layer.compression.value](data)
    assert str(layer.diff_id) == str(Digest.of([plain], layer.diff_id.algorithm))


def check_reads(content: Content) -> None:
    """Assert that reads at the edges and across them return exactly the bytes that are there."""
    size = content.size
    whole = b"".join(chunks(content))
    assert len(whole) == size
    for offset in {0, 1, size // 2, max(0, size - 1), size, size + 1, size + (1 << 40)}:
        for length in (0, 1, 511, 4096, 128 << 10):
            expected = whole[offset : offset + length]
            assert bytes(content.read_at(offset, length)) == expected
            cached = content.read_cached(offset, length)
            assert cached is None or bytes(cached) == expected


def stored(layer: Layer) -> bytes:
    """Return the stored bytes of a layer."""
    assert layer.content is not None
    return b"".join(chunks(layer.content))


def _digest(content: Content, algorithm: str) -> str:
    return str(digest_of(content, algorithm))


def digest_of(content: Content, algorithm: str) -> Digest:
    """Return the digest of *content*."""
    return Digest.of(chunks(content), algorithm)


def literal_layer(data: bytes, algorithm: str = "sha256", compression: str | None = None) -> Layer:
    """Return a layer whose plain tar is *data*, stored in memory under its digest."""
    bytes_stored = data if compression is None else COMPRESSIONS[compression](data)
    descriptor = Descriptor(DOCKER_LAYER, len(bytes_stored), Digest.of([bytes_stored], algorithm))
    diff_id = DiffID(Digest.of([data], algorithm))
    how = None if compression is None else Compression(compression)
    return Layer(diff_id, descriptor, Literal(bytes_stored), how, "somewhere")


@contextmanager
def open_file(path: Path | str) -> Iterator[OpenFile]:
    """Open the file at *path*, called by its last name in messages, for as long as the block takes."""
    file = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), os.path.basename(path))
    try:
        yield file
    finally:
        file.close()


@contextmanager
def docker_archive(path: Path) -> Iterator[DockerArchive]:
    """Index the archive at *path*."""
    with open_file(path) as file:
        yield DockerArchive(TarBlobs(file, MemberTable.of(file.name, scan(file))), digest_of)


class Noted:
    """Progress that is written down."""

    def __init__(self) -> None:
        self.done = 0
        self.transfers: list[tuple[str, int | None]] = []

    def waiting_began(self) -> None:
        pass

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        raise AssertionError(what)
        yield

    @contextmanager
    def transfer(self, what: str, total: int | None) -> Iterator[Advance]:
        self.transfers.append((what, total))

        def advance(count: int) -> None:
            self.done += count

        yield advance


SOURCE = Source("x", DOCKER_ARCHIVE, "/x")
"""Where the images that tests make themselves came from."""

SETTINGS = Settings(
    host=None, context=None, tmpdir="/nonexistent", verify=False, platform=None, environment={}, progress=Silent()
)
"""What a file that is read in place needs of the command line: nothing."""
SPOOLING = SETTINGS._replace(tmpdir=tempfile.gettempdir())
"""What a compressed file or a pipe needs: a place."""


def open_descriptors() -> set[int]:
    """Return the descriptors that this process has open now."""
    return set(filter(_is_open, map(int, os.listdir("/proc/self/fd"))))  # one was the listing's own


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextmanager
def closing_what_is_opened() -> Iterator[None]:
    """Close every descriptor that the block leaves open: an image keeps its own until the process ends."""
    before = open_descriptors()
    try:
        yield
    finally:
        for number in open_descriptors() - before:
            with suppress(OSError):
                os.close(number)


def refusal(argument: str, settings: Settings = SETTINGS) -> tuple[type[ImgfsError], str]:
    """Return the class and message of the error for an IMAGE argument; no descriptor may stay open."""
    before = open_descriptors()
    with closing_what_is_opened():
        with pytest.raises(ImgfsError) as caught:
            open_image(argument, settings)
        assert open_descriptors() <= before
    return type(caught.value), str(caught.value)


@contextmanager
def opened(argument: str, settings: Settings = SETTINGS) -> Iterator[Image]:
    """Open an image in a file or directory as the command does, and close what it keeps open."""
    with closing_what_is_opened():
        yield open_image(argument, settings).image
