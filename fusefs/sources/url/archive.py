"""An image in an archive at a URL; its bytes decide on the format, as with a file."""

from collections.abc import Iterator
from itertools import chain
from typing import Protocol
from urllib.parse import urlsplit

from fusefs.content.file import OpenFile
from fusefs.content.pieces import Pieces, Room, Take
from fusefs.content.remote_file import RemoteFile
from fusefs.content.spool import unlinked_file
from fusefs.errors import InvalidImage, Unavailable
from fusefs.image.model import Image, SourcedImage, Traffic
from fusefs.sources.archive.blobs import TarBlobs
from fusefs.sources.archive.file import Stream, spooled_image, tar_image
from fusefs.sources.archive.verification import hashing, readable, verified
from fusefs.sources.argument import UrlImage
from fusefs.sources.servers.certificates import find_tls
from fusefs.sources.servers.connections import Connections
from fusefs.sources.settings import Settings
from fusefs.sources.tls import Tls
from fusefs.sources.url.web import WebFile
from fusefs.tar.compression import compression_of
from fusefs.tar.members import MemberTable, scan
from fusefs.text import printable

_FIRST = 32 << 10
"""Bytes of the first request: they decide on the format, and often contain the first headers and documents."""
_UNDONE = ("", "gzip", "x-gzip", "zstd")
"""Content-Encodings that are decompressed as the archive's own compression, which they often are."""


class Server(Protocol):
    """One version of a file on another machine.  Its methods raise an ImgfsError."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def size(self) -> int | None:
        """The number of bytes, after `begin`; None if it is unknown."""

    @property
    def is_page(self) -> bool:
        """Whether the server says that it is a web page."""

    @property
    def encoding(self) -> str:
        """The encoding in which the server says that it sends it; empty: none."""

    def begin(self, size: int) -> bytes | None:
        """Return the first bytes, *size* or all; None if only `stream` works."""

    def receive(self, start: int, end: int, take: Take) -> None:
        """Receive the bytes from *start* up to *end*: see `pieces.Receive`."""

    def stream(self, start: int) -> Iterator[bytes]:
        """Yield all bytes from *start* on."""

    def check(self) -> None:
        """Raise Unavailable if the file is known to have changed."""


def url_image(asked: UrlImage, name: str, settings: Settings) -> SourcedImage:
    """Return the image in the archive at a URL, called *name*.

    A plain archive is read by ranges.  One that is compressed as a whole, or that the server sends only as a whole, is
    spooled, and every digest is checked.
    """
    if settings.offline:
        raise Unavailable(f"{asked.shown} is not asked for with --offline, and archives at URLs are not cached")
    from fusefs.sources.archive import spooling  # noqa: F401, PLC0415 - from now on, another thread imports, too

    traffic = Traffic()
    server = _server(asked, settings, traffic)
    settings.progress.waiting_began()
    with settings.progress.waiting(f"asking for {server.name}"):
        first = server.begin(_FIRST)
    try:
        if first is None or compression_of(first) is not None:
            rest = server.stream(len(first or b""))
            stream = Stream(server.name, chain([first] if first else [], rest), server.size)
            return SourcedImage(spooled_image(stream, asked, name, settings), traffic=traffic)
        image = _ranged_image(server, first, asked, name, settings)
    except InvalidImage as error:
        if server.encoding not in _UNDONE:
            shown = printable(server.encoding)[:20]
            raise InvalidImage(f"{error}; the server compresses it (Content-Encoding: {shown})") from None
        if not server.is_page:
            raise
        raise InvalidImage(f"{error}; the server sends a web page; a registry's image is docker://HOST/NAME") from None
    return SourcedImage(verified(image, settings), traffic=traffic)


def _server(asked: UrlImage, settings: Settings, traffic: Traffic) -> Server:
    if not asked.url.startswith("http"):
        from fusefs.sources.url.bucket import Bucket  # noqa: PLC0415 - few need it

        return Bucket(asked.url, asked.shown, settings.environment, settings.timeout, traffic)

    origin = urlsplit(asked.url).netloc

    def tls(host: str) -> Tls:
        own = find_tls(host, settings.environment, insecure=settings.insecure)
        if host == origin:
            return own
        trusted = find_tls(origin, settings.environment, insecure=settings.insecure).more
        return own._replace(more=(*own.more, *trusted))  # without the client certificate, which proves who we are

    connections = Connections(tls, settings.environment, traffic)
    return WebFile(asked.url, asked.shown, connections, settings.timeout, insecure=settings.insecure)


def _ranged_image(server: Server, first: bytes, asked: UrlImage, name: str, settings: Settings) -> Image:
    """Return the image in a plain tar that begins with *first*."""
    assert server.size is not None  # it sends ranges

    def receive(start: int, end: int, take: Take) -> None:
        if start < len(first):
            take(start, first[start:end])
        if end > len(first):
            server.receive(max(start, len(first)), end, take)

    local = OpenFile(unlinked_file(settings.tmpdir), server.name)
    file = RemoteFile(Pieces(Room(local, settings.tmpdir), server.size, receive), server.check)
    try:
        with readable(server.name):
            file.fetch(0, len(first))
            with settings.progress.waiting(f"reading the headers of {server.name}"):
                blobs = TarBlobs(file, MemberTable.of(file.name, scan(file)))
            digest_of = hashing(f"hashing layers of {server.name}", settings.progress)
            return tar_image(asked, name, settings.platform, blobs, digest_of)
    except BaseException:
        file.close()
        raise
