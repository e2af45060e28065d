"""A complete image: every document and blob of it, where it is stored, and what it is called."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fusefs.content import Content, Literal
from fusefs.digest import DiffID, Digest
from fusefs.errors import DigestMismatch
from fusefs.oci import Descriptor

Hash = Callable[[Content, str], Digest]
"""Returns the digest of a content by an algorithm."""


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document of the image: its exact bytes and how a manifest refers to them."""

    descriptor: Descriptor
    content: Literal

    @classmethod
    def of(cls, media_type: str, data: bytes) -> "Document":
        """Describe *data*."""
        return cls(Descriptor(media_type, len(data), Digest.of([data])), Literal(data))


@dataclass(frozen=True, slots=True)
class Layer:
    """One entry of the image's list of layers; a repeated layer is an entry each time."""

    diff_id: DiffID
    descriptor: Descriptor
    """Of the stored bytes."""
    content: Content
    """The stored bytes."""
    where: str
    """What the source calls it, for messages."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose layers can be read until the process ends."""

    name: str
    """The IMAGE argument, or the name that the source has for it."""
    config: Document
    manifest: Document
    layers: tuple[Layer, ...]
    """In order, the base first."""
    created_ns: int
    """Nanoseconds since 1970."""

    def blobs(self) -> Iterable[tuple[Descriptor, Content]]:
        """Yield every blob; one that is listed twice comes twice."""
        for document in (self.config, self.manifest):
            yield document.descriptor, document.content
        for layer in self.layers:
            yield layer.descriptor, layer.content

    def verify(self, digest_of: Hash) -> None:
        """Compare every layer with the digest that the image states; DigestMismatch names the first bad one."""
        checked: set[Digest] = set()
        for number, layer in enumerate(self.layers):
            stated = layer.descriptor.digest
            if stated in checked:
                continue
            found = digest_of(layer.content, stated.algorithm)
            if found != stated:
                msg = f"{self.name}: layer {number} ({layer.where}) has the digest {found}, the image says {stated}"
                raise DigestMismatch(msg)
            checked.add(stated)
