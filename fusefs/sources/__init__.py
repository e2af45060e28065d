"""From the IMAGE argument to the image."""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fusefs.compression import FIRST_BYTES, compression_of
from fusefs.content import Bytes, Content, OpenFile, chunks
from fusefs.digest import Digest
from fusefs.errors import InvalidImage, Unavailable, Unsupported, printable
from fusefs.image import Image
from fusefs.progress import Progress
from fusefs.sources.docker_archive import DockerArchive
from fusefs.sources.endpoint import find_endpoint
from fusefs.sources.reference import ArchiveImage, EngineImage, parse_image
from fusefs.tarindex import TarIndex, scan


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user said about where images come from."""

    host: str | None
    context: str | None
    tmpdir: str
    verify: bool
    environment: Mapping[str, str]


def open_image(argument: str, settings: Settings, progress: Progress) -> Image:
    """Return the image that *argument* names, complete and checked as far as its source allows.

    Raises an ImgfsError.  The image stays readable until the process ends.
    """
    match parse_image(argument):
        case EngineImage(text):
            # The SDK takes 0.2 s to import, and an archive needs none of it.
            from fusefs.sources.engine import engine_image  # noqa: PLC0415

            endpoint = find_endpoint(settings.host, settings.context, settings.environment)
            return engine_image(endpoint, text, settings.tmpdir, progress)
        case ArchiveImage(path, choice):
            return _archive_image(argument, path, choice, progress, verify=settings.verify)


def _archive_image(argument: str, path: str, choice: str | int | None, progress: Progress, *, verify: bool) -> Image:
    file = _open(path)
    try:
        compression = compression_of(file.read_at(0, FIRST_BYTES))
        if compression is not None:
            msg = f"{file.name} is {compression.value}: compressed archives are not supported yet; decompress it first"
            raise Unsupported(msg)
        image = DockerArchive(file, TarIndex.of(file.name, scan(file))).image(choice, argument)
        if verify:
            _verify(image, progress)
    except OSError as error:
        file.close()
        msg = f"cannot read {file.name}: {error.strerror}"
        raise Unavailable(msg) from None
    except BaseException:
        file.close()
        raise
    return image


def _open(path: str) -> OpenFile:
    name = printable(path)
    try:
        # O_NONBLOCK: opening a fifo must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        msg = f"cannot open {name}: {error.strerror if isinstance(error, OSError) else error}"
        raise Unavailable(msg) from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return OpenFile(descriptor, name)
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        msg = f"{name} is a directory; OCI image layouts are not supported yet"
        raise Unsupported(msg)
    if stat.S_ISFIFO(mode):
        msg = f"{name} is a fifo; reading an image from a pipe is not supported yet"
        raise Unsupported(msg)
    msg = f"{name} is no regular file"
    raise InvalidImage(msg)


def _verify(image: Image, progress: Progress) -> None:
    """Read all layers and compare their digests."""
    total = sum({layer.descriptor.digest: layer.content.size for layer in image.layers}.values())
    with progress.transfer(f"verifying {printable(image.name)}", total) as advance:

        def digest_of(content: Content, algorithm: str) -> Digest:
            def counted() -> Iterator[Bytes]:
                for chunk in chunks(content):
                    yield chunk
                    advance(len(chunk))

            return Digest.of(counted(), algorithm)

        image.verify(digest_of)
