"""What a mountpoint looks like: an image as a tree.  The only place that knows."""

from collections.abc import Callable, Mapping

from fusefs import oci
from fusefs.content import Content, Literal
from fusefs.digest import Digest
from fusefs.image import Image, Layer
from fusefs.tree import Attributes, Directory, LazyDirectory, Node, RegularFile, Symlink

_FILE = 0o444
_DIRECTORY = 0o555
_LINK = 0o777

Uncompress = Callable[[Layer], Content]
"""Returns the plain tar of a compressed layer; may take long."""


def image_view(image: Image, uid: int, gid: int, uncompress: Uncompress) -> Directory:
    """Return the root of the tree that shows *image* to its owner *uid*, *gid*."""
    return _View(image, uid, gid, uncompress).root()


class _View:
    def __init__(self, image: Image, uid: int, gid: int, uncompress: Uncompress) -> None:
        self._image = image
        self._uncompress = uncompress
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
        # A layer that comes again is decompressed once.
        made: dict[tuple[Digest, Digest | None], LazyDirectory] = {}
        for layer in compressed.values():
            made.setdefault((layer.descriptor.digest, layer.diff_id), self._tar_of(layer))
        return Directory(
            self._directory,
            {
                str(number).encode(): made[layer.descriptor.digest, layer.diff_id]
                for number, layer in compressed.items()
            },
        )

    def _tar_of(self, layer: Layer) -> LazyDirectory:
        return LazyDirectory(self._directory, lambda: {b"tar": self._regular(self._uncompress(layer))})

    def _regular(self, content: Content) -> RegularFile:
        return RegularFile(self._file, content)
