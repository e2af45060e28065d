"""An image in a file, a directory or a pipe; its bytes decide on the format."""

import os
import select
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

from fusefs.content.file import OpenFile
from fusefs.content.spool import Spool
from fusefs.content.watched import WatchedFile
from fusefs.errors import InvalidImage, Unavailable, Unsupported, UsageError, limit_reached
from fusefs.image.model import Hash, Image, SourcedImage
from fusefs.oci.platform import Platform
from fusefs.oci.transport import DOCKER_ARCHIVE, OCI, OCI_ARCHIVE, STANDARD_INPUT
from fusefs.progress import Advance
from fusefs.sources.archive.blobs import TarBlobs
from fusefs.sources.archive.cached import archive_index
from fusefs.sources.archive.directory import DirectoryBlobs
from fusefs.sources.archive.docker_archive import MANIFEST_LIST, DockerArchive
from fusefs.sources.archive.image_layout import layout_image
from fusefs.sources.archive.verification import hashing, readable, verified
from fusefs.sources.argument import STDIN, FileImage, UrlImage
from fusefs.sources.settings import Settings
from fusefs.tar.compression import FIRST_BYTES, compression_of, decompressed
from fusefs.tar.members import MemberTable, scan
from fusefs.text import printable

_CHUNK = 1 << 20
_PATIENCE = 200
"""Milliseconds after which a wait for a pipe begins again."""
_LAYOUT_MEMBERS = (b"oci-layout", b"index.json")


def file_image(asked: FileImage, name: str, settings: Settings) -> SourcedImage:
    """Return the image in a file, a directory or a pipe, called *name*.

    A plain file is read in place.  A file that is compressed as a whole, and a pipe, is spooled, and every digest is
    checked.
    """
    if asked.path != STDIN and os.path.isdir(asked.path):
        return SourcedImage(verified(_directory_image(asked, name, settings), settings))
    with _opened(asked.path) as file:
        if asked.transport is OCI:
            raise Unavailable(f"{file.name} is no directory; oci-archive:{file.name} reads a tar")
        if not _in_place(file):
            return SourcedImage(_spooled_file(file, asked, name, settings))
        found = _in_place_image(file, asked, name, settings)
        return found._replace(image=verified(found.image, settings))


def _directory_image(asked: FileImage, name: str, settings: Settings) -> Image:
    """Return the image in a directory: an image layout, or a Docker archive that was unpacked."""
    blobs = DirectoryBlobs(asked.path, settings.shared_blobs)
    try:
        with readable(blobs.name):
            return _image_below(blobs, asked, name, settings)
    except BaseException:
        blobs.close()
        raise


def _image_below(blobs: DirectoryBlobs, asked: FileImage, name: str, settings: Settings) -> Image:
    manifest = b"" if asked.transport is OCI else (blobs.data("manifest.json") or b"").lstrip()
    if asked.transport in (None, DOCKER_ARCHIVE) and manifest.startswith(b"["):
        archive = DockerArchive(blobs, hashing(f"hashing layers of {blobs.name}", settings.progress))
        return archive.image(asked.choice, settings.platform, asked.source(name, DOCKER_ARCHIVE))
    if asked.transport not in (None, OCI):
        raise Unavailable(f"{blobs.name} is a directory, not an archive; oci:{blobs.name} reads an OCI image layout")
    if manifest.startswith(b"{") and blobs.has("version") and not blobs.has("index.json"):
        raise Unsupported(
            f"{blobs.name} is a directory of skopeo's transport dir:; "
            f"skopeo copy dir:{blobs.name} oci:DIR, then give oci:DIR"
        )
    return layout_image(blobs, asked.choice, settings.platform, asked.source(name, OCI))


def _in_place(file: OpenFile) -> bool:
    """Return whether *file* is read in place: a regular file, not compressed as a whole."""
    regular = stat.S_ISREG(os.fstat(file.descriptor).st_mode)
    return regular and compression_of(file.read_at(0, FIRST_BYTES)) is None


def _in_place_image(file: OpenFile, asked: FileImage, name: str, settings: Settings) -> SourcedImage:
    """Return the image in a plain tar."""
    cache = settings.cache()
    if cache is None:
        entry, index = None, MemberTable.of(file.name, scan(file))
    else:
        entry, index = archive_index(cache, file, asked.path)
    digest_of = hashing(f"hashing layers of {file.name}", settings.progress)
    try:
        image = tar_image(asked, name, settings.platform, TarBlobs(file, index), digest_of)
    except BaseException:
        if entry is not None:
            entry.abandon()
            entry.close()
        raise
    return SourcedImage(image, entry)


class Stream(NamedTuple):
    """An archive as it arrives."""

    name: str
    """The name for messages."""
    pieces: Iterable[bytes]
    """Its bytes, which may be compressed as a whole."""
    total: int | None
    """Their number; None if it is unknown."""


def spooled_image(stream: Stream, asked: FileImage | UrlImage, name: str, settings: Settings) -> Image:
    """Return the image in a stream, verified; raises the exceptions of the stream, too."""
    from fusefs.sources.archive.spooling import spool_tar  # noqa: PLC0415 - files in place are not spooled

    settings.progress.waiting_began()
    with Spool(settings.tmpdir, stream.name) as spool:
        with settings.progress.transfer(f"reading {stream.name}", stream.total) as advance:
            plain = _plain(_counted(stream.pieces, advance), stream.name)
            spooled = spool_tar(plain, spool, stream.total or 0)
        spooled.log_warnings()
        image = tar_image(asked, name, settings.platform, spooled.blobs, spooled.digest_of)
        return image.verify(spooled.digest_of)


def _spooled_file(file: OpenFile, asked: FileImage, name: str, settings: Settings) -> Image:
    """Return the image in a pipe, or a compressed file."""
    received = _Received(file)
    try:
        # A pipe has no length.
        image = spooled_image(Stream(file.name, received, file.length() or None), asked, name, settings)
    except InvalidImage:
        if received.something or not stat.S_ISFIFO(os.fstat(file.descriptor).st_mode):
            raise
        raise InvalidImage(f"{file.name} is empty; did the command before the pipe fail?") from None
    file.close()
    return image


def tar_image(
    asked: FileImage | UrlImage, name: str, platform: Platform | None, blobs: TarBlobs, digest_of: Hash
) -> Image:
    """Return the image in a tar: of a Docker archive, even if an image layout is in it too, or of an image layout."""
    members = blobs.index.members
    layout = MANIFEST_LIST not in members and any(member in members for member in _LAYOUT_MEMBERS)
    if asked.transport is OCI_ARCHIVE or (asked.transport is None and layout):
        return layout_image(blobs, asked.choice, platform, asked.source(name, OCI_ARCHIVE))
    return DockerArchive(blobs, digest_of).image(asked.choice, platform, asked.source(name, DOCKER_ARCHIVE))


@contextmanager
def _opened(path: str) -> Iterator[OpenFile]:
    """Open *path*, or standard input for ``-``; close it again only if the block raises."""
    name = STANDARD_INPUT if path == STDIN else printable(path)
    if "\0" in path:
        raise Unavailable(f"cannot open {name}: no file name has a NUL byte")
    try:
        file = WatchedFile(_descriptor(path), name)
    except OSError as error:
        raise limit_reached(error) or Unavailable(f"cannot open {name}: {error.strerror}") from None
    try:
        with readable(name):
            yield file
    except BaseException:
        file.close()
        raise


def _descriptor(path: str) -> int:
    if path == STDIN:
        if os.isatty(0):
            raise UsageError("standard input is a terminal; docker save IMAGE | imgfs mount - MOUNTPOINT")
        return os.dup(0)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
    if stat.S_ISFIFO(os.stat(path).st_mode):
        return os.open(path, flags)  # waits for a writer
    return os.open(path, flags | os.O_NONBLOCK)


class _Received:
    """The bytes of a file, which may be a pipe, from its current position."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self.something = False
        """Whether there were any."""

    def __iter__(self) -> Iterator[bytes]:
        waiting = select.poll()
        waiting.register(self._file.descriptor, select.POLLIN)
        while True:
            # A signal that arrives just before a read would not interrupt it.
            while not waiting.poll(_PATIENCE):
                pass
            data = os.read(self._file.descriptor, _CHUNK)
            if not data:
                return
            self.something = True
            yield data


def _counted(pieces: Iterable[bytes], advance: Advance) -> Iterator[bytes]:
    for data in pieces:
        yield data
        advance(len(data))


def _plain(stream: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the plain bytes of a stream; its first bytes tell whether it is compressed."""
    first = b""
    for data in stream:
        first += data
        if len(first) >= FIRST_BYTES:  # a pipe may bring them in pieces
            break
    whole = chain([first], stream)
    compression = compression_of(first)
    return whole if compression is None else decompressed(whole, compression, name)
