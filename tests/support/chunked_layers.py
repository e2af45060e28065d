"""Layers in zstd:chunked and eStargz, written as their builders write them, with faults on demand."""

import base64
import datetime as dt
import gzip
import hashlib
import io
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fusefs.content.protocol import Literal
from fusefs.tar.attributes import file_attributes
from fusefs.tar.header import Kind
from fusefs.tar.members import ContentSource, Member, scan
from tests.support.builders import END, compressed, header, padded, resealed

Json = dict[str, Any]
Change = Callable[[Json], object]
"""Changes a table of contents, as a hostile builder does."""

ZSTD_CHUNKED = "io.github.containers.zstd-chunked."
STARGZ = "containerd.io/snapshot/stargz/toc.digest"
_TYPES = {
    Kind.REGULAR: "reg", Kind.HARD_LINK: "hardlink", Kind.SYMLINK: "symlink", Kind.DIRECTORY: "dir",
    Kind.CHARACTER_DEVICE: "char", Kind.BLOCK_DEVICE: "block", Kind.FIFO: "fifo",
}  # fmt: skip
CHUNK = 1000
"""Bytes of a chunk of both formats, so that small files have several."""
LANDMARK = b".no.prefetch.landmark"


class Chunked(NamedTuple):
    """A layer."""

    blob: bytes
    annotations: dict[str, str]
    tar: bytes
    """The plain tar."""


class Ranges:
    """The ranges of a blob, as `RemoteBlob` gives them, and what was asked for."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.size = len(blob)
        self.asked: list[tuple[int, int]] = []
        self.dropped: list[tuple[int, int]] = []

    def unverified_range(self, offset: int, size: int) -> bytes:
        """Return the bytes."""
        self.asked.append((offset, size))
        return self.blob[offset : offset + size]

    def drop_range(self, offset: int, size: int) -> None:
        """Take note of it."""
        self.dropped.append((offset, size))


def _unchanged(_: Json) -> None:
    pass


def zstd_chunked(
    tar: bytes, change: Change = _unchanged, split: Change = _unchanged, *, digest_of_split: bool = True
) -> Chunked:
    """Return *tar* as containers/storage writes it; *change* changes the table, *split* each line of the tar-split."""
    out = io.BytesIO()
    entries: list[Json] = []
    lines: list[Json] = []
    end = 0

    def segment(data: bytes) -> None:
        lines.append({"type": 2, "payload": base64.b64encode(data).decode()})
        out.write(compressed(data, "zstd"))

    for member in _members(tar):
        segment(tar[end : member.offset])
        end = member.offset + member.size
        data = tar[member.offset : end]
        entry = _entry(member)
        lines.append({"type": 1, "name": entry["name"], "size": len(data), "payload": "AAAAAAAAAAA="})
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        parts = [entry, *({"type": "chunk", "name": entry["name"]} for _ in chunks[1:])]
        for number, (part, chunk) in enumerate(zip(parts, chunks, strict=False)):
            part["offset"] = out.tell()
            if len(chunks) > 1:
                part |= {"chunkSize": len(chunk), "chunkOffset": number * CHUNK, "chunkDigest": _digest(chunk)}
                if not any(chunk):
                    part["chunkType"] = "zeros"
            out.write(compressed(chunk, "zstd"))
        if data:
            entry |= {"digest": _digest(data), "endOffset": out.tell()}
        entries += parts
    segment(tar[end:])
    for line in lines:
        split(line)
    plain_split = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    compressed_split = compressed(plain_split, "zstd")
    toc: Json = {"version": 1, "entries": entries}
    if digest_of_split:
        toc["tarSplitDigest"] = _digest(compressed_split)
    change(toc)
    plain_toc = json.dumps(toc).encode()
    compressed_toc = compressed(plain_toc, "zstd")
    toc_at = _skippable(out, compressed_toc)
    split_at = _skippable(out, compressed_split)
    _skippable(out, bytes(56) + b"GNUlInUx")
    annotations = {
        f"{ZSTD_CHUNKED}manifest-checksum": _digest(compressed_toc),
        f"{ZSTD_CHUNKED}manifest-position": f"{toc_at}:{len(compressed_toc)}:{len(plain_toc)}:1",
        f"{ZSTD_CHUNKED}tarsplit-position": f"{split_at}:{len(compressed_split)}:{len(plain_split)}",
    }
    return Chunked(out.getvalue(), annotations, tar)


def estargz(tar: bytes, change: Change = _unchanged, *, legacy: bool = False, together: int = 0) -> Chunked:
    """Return *tar* as stargz-snapshotter writes it, with its landmark and table; *change* changes the table.

    *together*: so many plain bytes go into one gzip member at least.
    """
    tar = header(LANDMARK, size=1, mode=0) + padded(b"\x0f") + tar.removesuffix(END)
    out, stream = io.BytesIO(), bytearray()
    entries: list[Json] = []
    position, begun = 0, 0

    def begin_member() -> None:
        nonlocal begun
        out.write(gzip.compress(bytes(stream), mtime=0))
        stream.clear()
        begun = out.tell()

    for member in _members(tar + END):
        stream += tar[position : member.offset]
        position = member.offset + member.size
        data = tar[member.offset : position]
        entry = _entry(member)
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        parts = [entry, *({"type": "chunk", "name": entry["name"]} for _ in chunks[1:])]
        for number, (part, chunk) in enumerate(zip(parts, chunks, strict=False)):
            if not entries or len(stream) >= together or member.name == LANDMARK:
                begin_member()
            part["offset"] = begun
            if stream:
                part["innerOffset"] = len(stream)
            part["chunkDigest"] = _digest(chunk)
            if number:
                part["chunkOffset"] = number * CHUNK
            if number < len(chunks) - 1:
                part["chunkSize"] = len(chunk)
            stream += chunk
        if member.kind is Kind.REGULAR:
            entry["digest"] = _digest(data)
        entries += parts
    stream += tar[position:]
    out.write(gzip.compress(bytes(stream), mtime=0))
    toc: Json = {"version": 1, "entries": entries}
    change(toc)
    table = json.dumps(toc, indent="\t").encode()
    at = out.tell()
    own = resealed(header(b"stargz.index.json", size=len(table), mode=0), 329, b"0000000\0" * 2)
    plain = own + padded(table) + END
    out.write(gzip.compress(plain, mtime=0))
    field = b"%016xSTARGZ" % at
    extra = field if legacy else b"SG" + struct.pack("<H", len(field)) + field
    out.write(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra + b"\1\0\0\xff\xff" + bytes(8))
    return Chunked(out.getvalue(), {STARGZ: _digest(table)}, tar + plain)


def _members(tar: bytes) -> Iterator[Member]:
    return scan(ContentSource(Literal(tar), "a tar"))


def _entry(member: Member) -> Json:
    found = file_attributes(member)
    entry: Json = {"type": _TYPES[member.kind], "name": member.name.decode("utf-8", "replace"), "uid": found.uid}
    entry |= {"gid": found.gid, "mode": found.mode & 0o7777, "size": member.size}
    entry |= {"devMajor": found.major, "devMinor": found.minor}
    if member.kind in (Kind.HARD_LINK, Kind.SYMLINK):
        entry["linkName"] = member.link.decode("utf-8", "replace")
    if found.mtime:
        entry["modtime"] = _rfc3339(found.mtime)
    if found.xattrs:
        entry["xattrs"] = {name.decode(): base64.b64encode(value).decode() for name, value in found.xattrs}
    return {key: value for key, value in entry.items() if value}


def _rfc3339(seconds: int) -> str:
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _skippable(out: io.BytesIO, data: bytes) -> int:
    """Write a frame that zstd skips; return where *data* begin."""
    out.write(b"\x50\x2a\x4d\x18" + struct.pack("<I", len(data)))
    at = out.tell()
    out.write(data)
    return at
