"""What a mountpoint looks like: an image as a tree.  The only place that knows."""

from collections.abc import Mapping

from fusefs.content import Content
from fusefs.image import Image
from fusefs.tree import Attributes, Directory, Node, RegularFile

_FILE = 0o444
_DIRECTORY = 0o555


def image_view(image: Image, uid: int, gid: int) -> Directory:
    """Return the root of the tree that shows *image* to its owner *uid*, *gid*."""
    file = Attributes(_FILE, uid, gid, image.created_ns)
    directory = Attributes(_DIRECTORY, uid, gid, image.created_ns)

    blobs: dict[str, dict[bytes, Node]] = {}
    for descriptor, content in image.blobs():
        digest = descriptor.digest
        # The first of several is shown: the same digest is the same bytes.
        blobs.setdefault(digest.algorithm, {}).setdefault(digest.encoded.encode(), RegularFile(file, content))

    def folder(entries: Mapping[bytes, Node]) -> Directory:
        return Directory(directory, entries)

    def document(content: Content) -> RegularFile:
        return RegularFile(file, content)

    return folder(
        {
            b"manifest.json": document(image.manifest.content),
            b"config": document(image.config.content),
            b"blobs": folder({algorithm.encode(): folder(entries) for algorithm, entries in blobs.items()}),
        }
    )
