"""Digests of an image, compared on request: of its stored layers, and of the plain tars of compressed ones."""

from collections.abc import Iterator
from contextlib import contextmanager

from fusefs.content.pieces import FetchFailed
from fusefs.content.protocol import Bytes, Content, chunks
from fusefs.errors import Unavailable
from fusefs.image.model import Hash, Image
from fusefs.image.uncompressed import plain_chunks
from fusefs.oci.digest import Digest
from fusefs.progress import Advance, Progress
from fusefs.sources.settings import Settings
from fusefs.text import printable


def verified(image: Image, settings: Settings) -> Image:
    """Return *image*, after all layers were read and compared with their digests if the user asks for it."""
    if not settings.verify:
        return image
    shown = printable(image.name)
    total = sum({layer.descriptor.digest: layer.descriptor.size for layer in image.layers}.values())
    with readable(shown), settings.progress.transfer(f"verifying {shown}", total) as advance:
        image = image.verify(lambda content, algorithm: _digest_of(content, algorithm, advance))
    compressed = {(layer.descriptor.digest, layer.diff_id): layer for layer in image.layers if layer.compression}
    for layer in compressed.values():
        if not layer.readable:
            continue
        with readable(shown), settings.progress.transfer(f"decompressing {layer.where}", None) as advance:
            for chunk in plain_chunks(layer):
                advance(len(chunk))
    return image


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn a read error into one that names the image or its file."""
    try:
        yield
    except FetchFailed as error:
        raise error.error from None
    except OSError as error:
        raise Unavailable(f"cannot read {name}: {error.strerror}") from None


def hashing(what: str, progress: Progress) -> Hash:
    """Return a function that hashes a content and reports progress."""

    def digest_of(content: Content, algorithm: str) -> Digest:
        with progress.transfer(what, content.size) as advance:
            return _digest_of(content, algorithm, advance)

    return digest_of


def _digest_of(content: Content, algorithm: str, advance: Advance) -> Digest:
    def counted() -> Iterator[Bytes]:
        for chunk in chunks(content):
            yield chunk
            advance(len(chunk))

    return Digest.of(counted(), algorithm)
