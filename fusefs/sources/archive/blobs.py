"""The blobs and documents of an image layout, in a directory or a tar."""

from collections.abc import Collection
from typing import Protocol

from fusefs.content.file import OpenFile, Sparse
from fusefs.content.protocol import Content, Literal
from fusefs.errors import DigestMismatch, InvalidImage, Unsupported
from fusefs.image.model import Document
from fusefs.oci import documents
from fusefs.oci.digest import Digest
from fusefs.oci.documents import Descriptor
from fusefs.tar.attributes import sparse_runs
from fusefs.tar.header import BrokenHeader, Kind
from fusefs.tar.members import Member, MemberTable, member_at
from fusefs.text import printable

MemberKey = tuple[int, int, int]
"""Identifies a member, whatever names lead to it: device, inode and offset; the first two are 0 in a tar."""


class StoredBlobs(Protocol):
    """Blobs by their descriptors, in an image layout or in a registry."""

    @property
    def name(self) -> str:
        """The name of the source in messages."""

    @property
    def lazy(self) -> bool:
        """Whether reading a layer takes requests to a server, so that it is only read when somebody needs it."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is stored."""

    def blob_data(self, descriptor: Descriptor) -> bytes | None:
        """Return the bytes of a document, None if it is not stored.  Nothing is checked but their number."""

    def blob_size(self, descriptor: Descriptor) -> int | None:
        """Return the size of the stored blob in bytes, None if that is not known without a request."""

    def blob_content(self, descriptor: Descriptor) -> Content | None:
        """Return the content of a blob, None if it is not stored.  It stays readable."""


class Blobs(StoredBlobs, Protocol):
    """The files of an image layout: ``index.json``, ``blobs/<algorithm>/<encoded>``."""

    @property
    def lazy(self) -> bool:
        """False: the files are here."""
        return False

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Return whether there is a file of the blob's name."""
        return self.has(*_path(descriptor))

    def blob_data(self, descriptor: Descriptor) -> bytes | None:
        """Return the bytes of the file of the document's name."""
        return self.data(*_path(descriptor))

    def blob_size(self, descriptor: Descriptor) -> int | None:
        """Return the size of the file of the blob's name, None without one."""
        return self.size(*_path(descriptor))

    def blob_content(self, descriptor: Descriptor) -> Content | None:
        """Return the content of the file of the blob's name."""
        return self.file(*_path(descriptor))

    def has(self, *parts: str) -> bool:
        """Return whether a path below the root exists."""

    def size(self, *parts: str) -> int | None:
        """Return the size of the file at a path below the root, None if it is missing."""

    def file(self, *parts: str) -> Content | None:
        """Return the content of the file at a path below the root, None if it is missing.  It stays readable."""

    def data(self, *parts: str) -> bytes | None:
        """Return the bytes of the document at a path below the root, None if it is missing."""

    def content(self, name: bytes) -> Content:
        """Return the content of the file at the path *name*; InvalidImage if it is missing or not a regular file."""

    def member_key(self, name: bytes) -> MemberKey:
        """Return the key of the file or member called *name*; raises as `content` does."""

    def names(self) -> Collection[bytes]:
        """Return the names of the files, of a directory those at its top."""


class TarBlobs(Blobs):
    """Members of an indexed tar."""

    def __init__(self, tar: OpenFile, index: MemberTable) -> None:
        """Read the members in *index* from *tar*."""
        self.tar = tar
        self.index = index

    @property
    def name(self) -> str:
        """The name of the source in messages."""
        return self.tar.name

    def has(self, *parts: str) -> bool:
        """Return whether there is a member of that name."""
        return self.index.find("/".join(parts).encode()) is not None

    def size(self, *parts: str) -> int | None:
        """Return the size of a member, None if it is missing."""
        content = self.file(*parts)
        return None if content is None else content.size

    def file(self, *parts: str) -> Content | None:
        """Return the content of a member, links in the archive followed, None if it is missing."""
        name = "/".join(parts).encode()
        return None if self.index.find(name) is None else self.content(name)

    def data(self, *parts: str) -> bytes | None:
        """Return the bytes of a member, None if it is missing."""
        content = self.file(*parts)
        return (
            None if content is None else limited(content, documents.DOCUMENT_LIMIT, f"{self.name}: {'/'.join(parts)}")
        )

    def content(self, name: bytes) -> Content:
        """Return the content of the member called *name*; InvalidImage if it is not a regular file."""
        member = self._regular(name)
        return self._sparse(name, member) if member.sparse else self.tar.slice(member.offset, member.size)

    def member_key(self, name: bytes) -> MemberKey:
        """Return the key of the member called *name*; raises as `content` does."""
        return 0, 0, self._regular(name).offset

    def _sparse(self, name: bytes, listed: Member) -> Sparse:
        """Return the content of a member that is a PAX sparse file: bsdtar and macOS' tar write these by default."""
        member = member_at(self.tar, listed.header)
        if member.block[156:157] == b"S":  # the one form of which engines say "unhandled tar header type"
            raise Unsupported(f"{self.name}: {printable(name)} is a GNU sparse file (typeflag S), which engines refuse")
        try:
            size, runs = sparse_runs(member, self.tar.read_at)
        except BrokenHeader as error:
            raise InvalidImage(f"{self.name}: {printable(name)}: {error}") from None
        extents = [(offset, self.tar.slice(at, length)) for offset, at, length in runs]
        return Sparse(size, sum(length for _, _, length in runs), lambda: extents)

    def names(self) -> Collection[bytes]:
        """Return the names of all members."""
        return self.index.members.keys()

    def _regular(self, name: bytes) -> Member:
        member = self.index.follow(name)
        if member.kind is not Kind.REGULAR:
            raise InvalidImage(f"{self.name}: {printable(name)} is a {member.kind.value}, not a regular file")
        return member


def _path(descriptor: Descriptor) -> tuple[str, str, str]:
    return "blobs", descriptor.digest.algorithm, descriptor.digest.encoded


def blob(blobs: StoredBlobs, descriptor: Descriptor, what: str) -> Content | None:
    """Return the blob of *descriptor*, stored or embedded, None if it is neither; *what* names it in messages."""
    content = blobs.blob_content(descriptor)
    if content is None and descriptor.data is not None:
        content = _checked(blobs, descriptor, what, descriptor.data).content
    if content is not None:
        check_size(blobs, descriptor, what, content.size)
    return content


def document(blobs: StoredBlobs, descriptor: Descriptor, what: str) -> Document:
    """Return the JSON document of *descriptor*, its size and digest checked."""
    found = stored_document(blobs, descriptor, what)
    if found is None:
        raise InvalidImage(f"{blobs.name}: {what} {descriptor.digest} is missing")
    return found


def stored_document(blobs: StoredBlobs, descriptor: Descriptor, what: str) -> Document | None:
    """Return the same as `document`, None if it is neither stored nor embedded."""
    data = blobs.blob_data(descriptor)
    if data is None:
        data = descriptor.data
    return None if data is None else _checked(blobs, descriptor, what, data)


def is_stored(blobs: StoredBlobs, descriptor: Descriptor) -> bool:
    """Return whether the blob of *descriptor* is stored or embedded."""
    return descriptor.data is not None or blobs.has_blob(descriptor)


def _checked(blobs: StoredBlobs, descriptor: Descriptor, what: str, data: bytes) -> Document:
    """Return *data* as the document of *descriptor*, its size and digest checked."""
    check_size(blobs, descriptor, what, len(data))
    digest = Digest.of([data], descriptor.digest.algorithm)
    if digest != descriptor.digest:
        raise DigestMismatch(f"{blobs.name}: {what} has the digest {digest}, its descriptor says {descriptor.digest}")
    return Document(descriptor, Literal(data))


def check_size(blobs: StoredBlobs, descriptor: Descriptor, what: str, size: int) -> None:
    """Raise InvalidImage if the blob of *descriptor* has another *size* than it says; *what* names it in messages."""
    if size != descriptor.size:
        raise InvalidImage(
            f"{blobs.name}: {what} {descriptor.digest} has {size} bytes, its descriptor says {descriptor.size}"
        )


def limited(content: Content, limit: int, where: str) -> bytes:
    """Return the bytes of *content*; InvalidImage if it has more than *limit*."""
    if content.size > limit:
        raise InvalidImage(f"{where} has {content.size} bytes, more than {limit}")
    return bytes(content.read_at(0, content.size))
