"""The comparison of a saved image with the description that the engine gave before."""

from fusefs.errors import DigestMismatch, InvalidImage
from fusefs.image.model import Image
from fusefs.oci.reference import same_image, tag_of, tagged
from fusefs.sources.archive.docker_archive import DockerArchive
from fusefs.sources.archive.spooled import SpooledTar
from fusefs.sources.engine.inspected import Inspected, Target
from fusefs.text import printable


def checked_image(tar: SpooledTar, target: Target, *, only: bool) -> Image:
    """Return the image in the saved *tar*, which must be the inspected one, every digest checked.

    *only*: the engine saved one platform alone.  Raises DigestMismatch, InvalidImage, Unavailable or
    Unsupported.
    """
    name, inspected = target.name, target.inspected
    tag = image_tag(name, inspected)
    archive = DockerArchive(tar.blobs, tar.digest_of)
    platform = target.platform or inspected.platform
    image = archive.image_with_id(inspected.image_id, platform, target.source, tag, only=only)
    for layer in image.layers:
        if layer.content is None and not layer.descriptor.urls:
            raise InvalidImage(f"{layer.where} is missing")
    diff_ids = tuple(layer.diff_id for layer in image.layers)
    # Inspect describes the platform that the engine prefers, not the one that the user asked for.
    # Of an artifact it states no layers; the image's ID is the digest of its manifest, which states them.
    if target.platform is None and None not in diff_ids and diff_ids != inspected.diff_ids:
        raise DigestMismatch(
            f"{printable(name)}: the saved image has other layers ({len(diff_ids)}) "
            f"than the engine says ({len(inspected.diff_ids)})"
        )
    return image.verify(tar.digest_of)._replace(repo_digests=inspected.repo_digests)


def image_tag(name: str, inspected: Inspected) -> str:
    """Return the name in an image layout of the image that the user calls *name*."""
    asked = [tag for tag in inspected.tags if same_image(name, tag)]
    return tag_of(name) or next((tag_of(tagged(text)) for text in (*asked, *inspected.tags)), "") or "latest"
