"""Images and tars for the tests, built byte by byte so that every lie can be told."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 512
END = bytes(2 * BLOCK)
"""The mark at the end of a tar."""

CREATED = "2024-02-29T12:34:56.123456789Z"
CREATED_NS = 1709210096_123456789


def sha256(data: bytes) -> str:
    """Return the digest of *data*, as in ``sha256:…``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def padded(data: bytes) -> bytes:
    """Return *data* filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def header(
    name: bytes | str,
    size: int = 0,
    typeflag: bytes = b"0",
    link: bytes | str = b"",
    *,
    mode: int = 0o644,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    size_field: bytes | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """Return one header block; sizes that octal cannot say are written in base-256."""
    name = name.encode() if isinstance(name, str) else name
    link = link.encode() if isinstance(link, str) else link
    if size_field is None:
        size_field = b"%011o\0" % size if 0 <= size < 8**11 else _base256(size, 12)
    block = bytearray(BLOCK)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:148] = b"%07o\0%07o\0%07o\0" % (mode, 0, 0) + size_field + b"%011o\0" % 0
    block[148:156] = b" " * 8
    block[156:157] = typeflag
    block[157:257] = link[:100].ljust(100, b"\0")
    block[257:265] = magic
    block[345:500] = prefix[:155].ljust(155, b"\0")
    block[148:156] = b"%06o\0 " % sum(block) if checksum is None else checksum
    return bytes(block)


def resealed(block: bytes, offset: int, data: bytes) -> bytes:
    """Return a header *block* with *data* at *offset*, and the checksum that is right for it."""
    raw = bytearray(block)
    raw[offset : offset + len(data)] = data
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def _base256(value: int, length: int) -> bytes:
    raw = bytearray((value % (1 << (8 * length))).to_bytes(length, "big"))
    raw[0] |= 0x80
    return bytes(raw)


def member(name: bytes | str, data: bytes = b"", typeflag: bytes = b"0", link: bytes | str = b"") -> bytes:
    """Return a header and its data; names and links over 100 bytes get GNU long names."""
    name = name.encode() if isinstance(name, str) else name
    link = link.encode() if isinstance(link, str) else link
    before = b""
    if len(name) > 100:
        before += extended(b"L", name + b"\0")
    if len(link) > 100:
        before += extended(b"K", link + b"\0")
    return before + header(name, len(data), typeflag, link) + padded(data)


def extended(typeflag: bytes, data: bytes) -> bytes:
    """Return an extended header: a GNU long name (L), long link (K), or PAX records (x, g)."""
    return header("././@LongLink", len(data), typeflag) + padded(data)


def pax(records: Mapping[str, bytes | str], typeflag: bytes = b"x") -> bytes:
    """Return a PAX extended header with *records*."""
    return extended(typeflag, b"".join(pax_record(key, value) for key, value in records.items()))


def pax_record(key: str, value: bytes | str) -> bytes:
    """Return one PAX record, its length counting itself."""
    value = value.encode() if isinstance(value, str) else value
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def directory(name: str) -> bytes:
    """Return a directory's header."""
    return member(name, typeflag=b"5")


def symlink(name: str, target: str) -> bytes:
    """Return a symbolic link."""
    return member(name, typeflag=b"2", link=target)


def hard_link(name: str, target: str) -> bytes:
    """Return a hard link."""
    return member(name, typeflag=b"1", link=target)


def fifo(name: str) -> bytes:
    """Return a named pipe."""
    return member(name, typeflag=b"6")


def layer(files: Mapping[str, bytes]) -> bytes:
    """Return the tar of a layer with *files*."""
    return b"".join(member(name, data) for name, data in files.items()) + END


LAYERS = (
    layer({"etc/os-release": b"ID=test\n", "bin/sh": b"\x7fELF" + bytes(5000)}),
    layer({}),
    layer({"etc/motd": b"hello\n"}),
    layer({}),
)
"""Four layers; the second comes again as the last."""


def image_config(layers: Sequence[bytes], **changes: Any) -> bytes:
    """Return the image config for *layers*; a change to None leaves the key out."""
    document: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in layers]},
    }
    document.update(changes)
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def schema2_manifest(config: bytes, layers: Sequence[bytes]) -> bytes:
    """Return the manifest that containers/image generates for uncompressed *layers*."""
    media = "application/vnd.docker"
    entries = ",".join(
        f'{{"mediaType":"{media}.image.rootfs.diff.tar.gzip","size":{len(data)},"digest":"{sha256(data)}"}}'
        for data in layers
    )
    return (
        f'{{"schemaVersion":2,"mediaType":"{media}.distribution.manifest.v2+json",'
        f'"config":{{"mediaType":"{media}.container.image.v1+json","size":{len(config)},"digest":"{sha256(config)}"}},'
        f'"layers":[{entries}]}}'
    ).encode()


@dataclass
class Archive:
    """A Docker archive in the making: change what you like, then ask for `data`."""

    layers: Sequence[bytes] = LAYERS
    tags: list[str] | None = field(default_factory=lambda: ["test/image:1"])
    config: bytes | None = None
    config_name: str | None = None
    layer_names: list[str] | None = None
    manifest: Any = None
    """The document to write as manifest.json instead; bytes are written as they are."""
    end: bytes = END

    @property
    def config_data(self) -> bytes:
        """The image config's bytes."""
        return image_config(self.layers) if self.config is None else self.config

    def item(self) -> dict[str, Any]:
        """Return the entry of this image in the manifest list."""
        name = self.config_name or sha256(self.config_data)[7:] + ".json"
        return {"Config": name, "RepoTags": self.tags, "Layers": self._names()}

    def _names(self) -> list[str]:
        if self.layer_names is not None:
            return self.layer_names
        return [f"{sha256(data)[7:]}.tar" for data in self.layers]

    def manifest_data(self) -> bytes:
        """Return the bytes of manifest.json."""
        document = [self.item()] if self.manifest is None else self.manifest
        return document if isinstance(document, bytes) else json.dumps(document).encode()

    def blobs(self) -> Iterable[bytes]:
        """Yield the config and each distinct layer as members."""
        yield member(self.item()["Config"], self.config_data)
        yield from dict.fromkeys(map(member, self._names(), self.layers))

    def data(self) -> bytes:
        """Return the whole archive, blobs first."""
        return b"".join(self.blobs()) + member("manifest.json", self.manifest_data()) + self.end

    def write(self, path: Path) -> Path:
        """Write the archive to *path* and return it."""
        path.write_bytes(self.data())
        return path


def archive_of(*parts: bytes) -> bytes:
    """Return an archive of members in this order."""
    return b"".join(parts) + END


def two_images() -> bytes:
    """Return an archive with two images that share layers: tags a:1 and b:1, b:2."""
    first = Archive(tags=["a:1"])
    second = Archive(layers=LAYERS[:1], tags=["b:1", "b:2"])
    parts = dict.fromkeys([*first.blobs(), *second.blobs()])
    return archive_of(*parts, member("manifest.json", json.dumps([first.item(), second.item()]).encode()))


COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lru_cache(16)(partial(gzip.compress, mtime=0)),  # the same at each second
    "zstd": lru_cache(16)(zstd.compress),
    "xz": lru_cache(16)(lzma.compress),
    "bzip2": lru_cache(16)(bz2.compress),
}
"""How to compress, by the names that imgfs has for it; cached, as xz takes a second for what many tests compress."""

DECOMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zstd": zstd.decompress,
    "xz": lzma.decompress,
    "bzip2": bz2.decompress,
}
"""How to decompress, several members or frames too."""


def compressed(data: bytes, compression: str | None) -> bytes:
    """Return *data* compressed, or as it is."""
    return data if compression is None else COMPRESSIONS[compression](data)


def write_sparse(path: Path, *parts: bytes | int) -> Path:
    """Write *parts* to *path*, where a number is a hole of so many bytes, and return it."""
    with path.open("wb") as file:
        for part in parts:
            if isinstance(part, int):
                file.truncate(file.tell() + part)
                file.seek(part, os.SEEK_CUR)
            else:
                file.write(part)
    return path


class Memory:
    """Bytes that a scan can read, and how often and how much of them it did."""

    def __init__(self, data: bytes, name: str = "x.tar") -> None:
        self.name = name
        self.reads = 0
        self.bytes_read = 0
        self._data = data

    def read_at(self, offset: int, size: int) -> bytes:
        """Return *size* bytes, fewer only at the end."""
        data = self._data[offset : offset + size]
        self.reads += 1
        self.bytes_read += len(data)
        return data

    def length(self) -> int:
        """Return how many bytes there are."""
        return len(self._data)
