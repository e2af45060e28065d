"""The layout of a mount: an image as a tree.  No other module defines it."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fusefs.content.protocol import Content, Literal
from fusefs.errors import InvalidImage
from fusefs.image.artifact import TitledFiles, titled_files
from fusefs.image.lazy_layers import Layers
from fusefs.image.model import Image, Layer
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.oci import documents
from fusefs.oci.config import Step, parse_details
from fusefs.oci.documents import Descriptor
from fusefs.text import printable
from fusefs.tree.node import Attributes, Directory, KnownTree, LazyDirectory, Node, RegularFile, Symlink, Tree, Xattrs

_FILE = 0o444
_DIRECTORY = 0o555
_LINK = 0o777
_MAX_XATTR = 2048
"""Limit of a value in bytes: some file systems that it may be copied to store 4,096 bytes for all attributes."""
_MAX_LAYERS = 10_000
"""Far more than engines allow (127), and within the range of inode numbers."""


class ViewOptions(NamedTuple):
    """The user's options for the tree."""

    uid: int
    """Owner of generated files and directories."""
    gid: int
    trees: bool = True
    """Show `layers/` and `rootfs/`."""
    transform_symlinks: bool = False
    """Make absolute symbolic links in them lead into the mount."""
    xattrs: Xattrs = ()
    """Additional extended attributes of the root."""
    merged: Callable[[], None] = lambda: None
    """Called when the tree of `rootfs/` has been made: all layers are indexed."""
    whole: bool = False
    """The view is read only once all layers are here whole, and verified: nothing of it changes."""


def image_view(image: Image, layers: Layers, options: ViewOptions) -> Directory:
    """Return the root of the tree that shows *image*; its *layers* are made on first access.

    Raises InvalidImage for more than 10,000 layers.
    """
    if len(image.layers) > _MAX_LAYERS:
        raise InvalidImage(f"{printable(image.name)} has {len(image.layers)} layers, more than {_MAX_LAYERS}")
    return _View(image, layers, options).root()


class _View:
    def __init__(self, image: Image, layers: Layers, options: ViewOptions) -> None:
        self._image = image
        self._layers = layers
        self._options = options
        uid, gid = options.uid, options.gid
        self._file = Attributes(_FILE, uid, gid, image.created_ns)
        self._directory = Attributes(_DIRECTORY, uid, gid, image.created_ns)
        self._link = Attributes(_LINK, uid, gid, image.created_ns)
        steps = parse_details(image.config.content.data).steps(len(image.layers))
        self._layer_xattrs = [_of_layer(layer, step) for layer, step in zip(image.layers, steps, strict=True)]

    def root(self) -> Directory:
        image = self._image
        index = documents.write_index(image.oci_manifest.descriptor, image.platform, image.tag)
        compressed = self._compressed()
        entries: dict[bytes, Node] = {
            b"manifest.json": self._regular(image.manifest.content, _described(image.manifest.descriptor)),
            b"config": self._regular(image.config.content, _described(image.config.descriptor)),
            b"blobs": self._blobs(compressed),
            b"oci-layout": self._regular(Literal(documents.LAYOUT)),
            b"index.json": self._regular(Literal(index)),
        }
        if compressed:
            entries[b".uncompressed"] = self._uncompressed(compressed)
        if self._options.trees:
            entries[b"layers"] = self._layer_trees()
            if not image.why_no_rootfs:
                entries[b"rootfs"] = self._lazy(self._rootfs)
        if files := titled_files(image.layers):
            entries[b"files"] = self._files(files)
        named = {"ref": image.name, "id": str(image.config.descriptor.digest), "platform": str(image.platform or "")}
        xattrs = (*_xattrs(named), *self._options.xattrs, *self._verified(image.layers))
        return Directory(self._directory, entries, xattrs=xattrs)

    def _verified(self, layers: Sequence[Layer]) -> Xattrs:
        """Return what verifies the names in *layers*, if any of them can be read piece by piece."""
        if not any(map(self._layers.verified_by, layers)):
            return ()
        if self._options.whole:
            return ((b"user.imgfs.verified", b"tar"),)

        def value() -> bytes:
            return b"toc" if "toc" in map(self._layers.verified_by, layers) else b"tar"

        return ((b"user.imgfs.verified", value),)

    def _compressed(self) -> dict[int, Layer]:
        """Return the layers that must be decompressed, by number."""
        return {
            number: layer
            for number, layer in enumerate(self._image.layers)
            if layer.compression is not None and layer.readable
        }

    def _blobs(self, compressed: Mapping[int, Layer]) -> Directory:
        listed: dict[str, dict[bytes, Node]] = {}
        layers = {layer.descriptor.digest: number for number, layer in reversed([*enumerate(self._image.layers)])}
        for descriptor, content in self._image.blobs():
            # Show the first of several blobs with the same digest, since their bytes are equal.
            number = layers.get(descriptor.digest)
            xattrs = _described(descriptor) if number is None else self._layer_xattrs[number]
            listed.setdefault(descriptor.digest.algorithm, {}).setdefault(
                descriptor.digest.encoded.encode(), self._regular(content, xattrs)
            )
        unlisted: dict[str, dict[bytes, Node]] = {}
        for number, layer in compressed.items():
            assert layer.diff_id is not None
            if layer.diff_id.encoded.encode() in listed.get(layer.diff_id.algorithm, {}):
                continue  # the same tar is stored uncompressed, too
            target = f"../../.uncompressed/{number}/tar".encode()
            unlisted.setdefault(layer.diff_id.algorithm, {}).setdefault(
                layer.diff_id.encoded.encode(), Symlink(self._link, target)
            )
        return Directory(
            self._directory,
            {
                algorithm.encode(): Directory(self._directory, listed.get(algorithm, {}), unlisted.get(algorithm, {}))
                for algorithm in [*listed, *(algorithm for algorithm in unlisted if algorithm not in listed)]
            },
        )

    def _uncompressed(self, compressed: Mapping[int, Layer]) -> Directory:
        return Directory(
            self._directory,
            {
                str(number).encode(): LazyDirectory(self._directory, self._tar_tree(layer))
                for number, layer in compressed.items()
            },
        )

    def _tar_tree(self, layer: Layer) -> Callable[[], Tree]:
        return lambda: KnownTree(Directory(self._directory, {b"tar": self._regular(self._layers.tar(layer))}))

    def _files(self, files: TitledFiles) -> Directory:
        return Directory(
            self._directory,
            {
                name: self._files(below)
                if isinstance(below, dict)
                else self._regular(below.content, _described(below.descriptor))
                for name, below in files.items()
            },
        )

    def _layer_trees(self) -> Directory:
        return Directory(
            self._directory,
            {
                str(number).encode(): self._lazy(self._layer_tree(layer, number), self._xattrs_of(layer, number))
                for number, layer in enumerate(self._image.layers)
                if self._layers.readable(layer)
            },
        )

    def _xattrs_of(self, layer: Layer, number: int) -> Xattrs:
        return self._layer_xattrs[number] + self._verified([layer])

    def _layer_tree(self, layer: Layer, number: int) -> Callable[[], Tree]:
        transform, xattrs = self._options.transform_symlinks, self._xattrs_of(layer, number)
        return lambda: LayerTree(self._layers.files(layer), transform_symlinks=transform, xattrs=xattrs)

    def _rootfs(self) -> Tree:
        if self._layers.must_be_fetched():
            return self._layers.top_down(self._options.merged, transform_symlinks=self._options.transform_symlinks)
        tree = RootfsTree(self._layers.all_files(), transform_symlinks=self._options.transform_symlinks)
        self._options.merged()
        return tree

    def _lazy(self, make: Callable[[], Tree], xattrs: Xattrs = ()) -> LazyDirectory:
        # Until first access it has the attributes of an implicit directory.
        return LazyDirectory(Attributes(0o755, 0, 0, self._image.created_ns), make, settled=False, xattrs=xattrs)

    def _regular(self, content: Content, xattrs: Xattrs = ()) -> RegularFile:
        return RegularFile(self._file, content, xattrs)


def _described(descriptor: Descriptor) -> Xattrs:
    """Return the extended attributes of a blob."""
    values = {"digest": descriptor.digest, "mediaType": descriptor.media_type, "size": descriptor.size}
    return _xattrs({name: str(value) for name, value in values.items()})


def _of_layer(layer: Layer, step: Step | None) -> Xattrs:
    """Return the extended attributes of a layer."""
    more = {"diffId": str(layer.diff_id or ""), "createdBy": step.created_by if step else ""}
    return _described(layer.descriptor) + _xattrs(more)


def _xattrs(values: Mapping[str, str]) -> Xattrs:
    """Return extended attributes for all *values* that are not empty."""
    return tuple((f"user.oci.{name}".encode(), _value(text)) for name, text in values.items() if text)


def _value(text: str) -> bytes:
    """Return *text* as the value of an extended attribute, truncated if it is too long."""
    try:
        data = os.fsencode(text)  # restores the bytes of a path
    except UnicodeEncodeError:
        data = text.encode("utf-8", "backslashreplace")
    return data if len(data) <= _MAX_XATTR else data[:_MAX_XATTR].decode("utf-8", "ignore").encode() + "…".encode()
