"""What a mountpoint looks like: an image as a tree.  The only place that knows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fusefs import oci
from fusefs.content import Content, Literal
from fusefs.errors import InvalidImage, printable
from fusefs.image import Image, Layer
from fusefs.layers import Layers
from fusefs.layertree import LayerTree
from fusefs.rootfs import RootfsTree
from fusefs.tree import Attributes, Directory, KnownTree, LazyDirectory, Node, RegularFile, Symlink, Tree

_FILE = 0o444
_DIRECTORY = 0o555
_LINK = 0o777
_MAX_LAYERS = 10_000
"""Far more than any engine takes (127), and few enough for inode numbers."""


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """What the user may choose of the tree."""

    uid: int
    """The owner of what imgfs makes."""
    gid: int
    trees: bool = True
    """Show `layers/` and `rootfs/`."""
    transform_symlinks: bool = False
    """Make absolute symbolic links in them lead into the mount."""


def image_view(image: Image, layers: Layers, options: ViewOptions) -> Directory:
    """Return the root of the tree that shows *image*, whose *layers* are made as they are looked at."""
    if len(image.layers) > _MAX_LAYERS:
        msg = f"{printable(image.name)} has {len(image.layers)} layers, more than {_MAX_LAYERS}"
        raise InvalidImage(msg)
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

    def root(self) -> Directory:
        image = self._image
        index = oci.write_index(image.oci_manifest.descriptor, image.platform, image.tag)
        compressed = self._compressed()
        entries: dict[bytes, Node] = {
            b"manifest.json": self._regular(image.manifest.content),
            b"config": self._regular(image.config.content),
            b"blobs": self._blobs(compressed),
            b"oci-layout": self._regular(Literal(oci.LAYOUT)),
            b"index.json": self._regular(Literal(index)),
        }
        if compressed:
            entries[b".uncompressed"] = self._uncompressed(compressed)
        if self._options.trees:
            entries[b"layers"] = self._layer_trees()
            if image.layers and all(map(self._layers.readable, image.layers)):
                entries[b"rootfs"] = self._lazy(self._rootfs)
        return Directory(self._directory, entries)

    def _compressed(self) -> dict[int, Layer]:
        """Return the layers whose plain tar has to be made, by their number."""
        return {
            number: layer
            for number, layer in enumerate(self._image.layers)
            if layer.compression is not None and layer.content is not None and layer.diff_id is not None
        }

    def _blobs(self, compressed: Mapping[int, Layer]) -> Directory:
        listed: dict[str, dict[bytes, Node]] = {}
        for descriptor, content in self._image.blobs():
            # The first of several is shown: the same digest is the same bytes.
            listed.setdefault(descriptor.digest.algorithm, {}).setdefault(
                descriptor.digest.encoded.encode(), self._regular(content)
            )
        unlisted: dict[str, dict[bytes, Node]] = {}
        for number, layer in compressed.items():
            assert layer.diff_id is not None
            if layer.diff_id.encoded.encode() in listed.get(layer.diff_id.algorithm, {}):
                continue  # the same tar is stored plain as well
            target = f"../../.uncompressed/{number}/tar".encode()
            unlisted.setdefault(layer.diff_id.algorithm, {}).setdefault(
                layer.diff_id.encoded.encode(), Symlink(self._link, target)
            )
        return Directory(
            self._directory,
            {
                algorithm.encode(): Directory(self._directory, listed.get(algorithm, {}), unlisted.get(algorithm, {}))
                for algorithm in [*listed, *(one for one in unlisted if one not in listed)]
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

    def _layer_trees(self) -> Directory:
        return Directory(
            self._directory,
            {
                str(number).encode(): self._lazy(self._layer_tree(layer))
                for number, layer in enumerate(self._image.layers)
                if self._layers.readable(layer)
            },
        )

    def _layer_tree(self, layer: Layer) -> Callable[[], Tree]:
        return lambda: LayerTree(self._layers.files(layer), transform_symlinks=self._options.transform_symlinks)

    def _rootfs(self) -> Tree:
        return RootfsTree(self._layers.all_files(), transform_symlinks=self._options.transform_symlinks)

    def _lazy(self, make: Callable[[], Tree]) -> LazyDirectory:
        # Until someone has looked in, it has the attributes of a directory that no layer lists.
        return LazyDirectory(Attributes(0o755, 0, 0, self._image.created_ns), make, settled=False)

    def _regular(self, content: Content) -> RegularFile:
        return RegularFile(self._file, content)
