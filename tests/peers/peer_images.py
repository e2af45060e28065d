"""The real image with layers on top that do all that layers can do."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.builders import END, image_config, member
from tests.support.builders import header as tar_header
from tests.support.changesets import (
    FILE,
    About,
    changeset,
    device,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    opaque,
    pax_sparse,
    symlink,
    whiteout,
)
from tests.support.real_image import root_file_system

# cap_net_bind_service, permitted and effective (linux/capability.h, vfs_cap_data version 2)
_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
_BEFORE = 1_600_000_000_000_000_000
_LATER = 1_650_000_000_123_456_789


def _about(mode: int = 0o644, uid: int = 0, gid: int = 0, mtime_ns: int = _LATER, **xattrs: bytes) -> About:
    names = {key.replace("_", ".", 1).encode(): value for key, value in xattrs.items()}
    return About(mode, uid, gid, mtime_ns, names)


ADDED = changeset(
    folder("t", _about(0o1777)),
    file("t/setuid", b"s", _about(0o4755)),
    file("t/setgid", b"s", _about(0o2711, 12, 34)),
    file("t/none", b"", _about(0o000)),
    file("t/big-owner", b"o", _about(0o640, 3_000_000_000, 4_294_967_294)),
    file("t/capability", b"\x7fELF", _about(0o755, security_capability=_CAPABILITY)),
    file("t/attributes", b"a", _about(user_one=b"1", user_bytes=b"\x00\xff=\n")),
    folder("t/marked", _about(0o750, 1, 2, user_two=b"22")),
    device("t/null", "c", 1, 3, _about(0o666)),
    device("t/loop", "b", 7, 300, _about(0o660, 0, 6)),
    fifo("t/fifo", _about(0o600)),
    symlink("t/absolute", "/etc/passwd", _about(0o777)),
    symlink("t/dangling", "../no/where", _about(0o777, 5, 6)),
    symlink("t/long", "x/" * 1000, _about(0o777)),
    file("t/one", b"linked", _about(0o600, 7, 8)),
    folder("t/deep", _about(0o755)),
    hard_link("t/deep/two", "t/one", _about(0o600, 7, 8)),
    hard_link("t/three", "t/one", _about(0o600, 7, 8)),
    file(b"t/\xff\xfe", b"1", _about()),
    file("t/new\nline", b"2", _about()),
    file("t/ 'quoted\" \\", b"3", _about()),
    file("t/" + "n" * 255, b"4", _about()),
    folder("t/" + "d" * 200, _about(0o755)),
    file("t/" + "d" * 200 + "/" + "f" * 200, b"5", _about()),
    pax_sparse("0.1", "t/sparse", 1 << 22, [(0, b"begin".ljust(512)), (1 << 20, b"x" * 5120), (1 << 22, b"")]),
    pax_sparse("1.0", "t/sparse-1.0", 3 << 20, [(1 << 20, b"x" * 4096), (3 << 20, b"")]),
    pax_sparse("0.0", "t/sparse-0.0", 1 << 21, [(4096, b"y" * 512), ((1 << 21) - 512, b"end".rjust(512))]),
    file("t/implicit/below/file", b"i", _about()),
    folder("t/real", _about(0o755)),
    symlink("t/link-dir", "real", _about(0o777)),
    folder("t/opaque", _about(0o755)),
    file("t/opaque/lower", b"", _about()),
    folder("t/opaque/below", _about(0o700)),
    folder("t/late-opaque", _about(0o755)),
    file("t/late-opaque/lower", b"", _about()),
    *(folder(f"t/dir{n}", _about(0o755, n, n)) for n in range(6)),
    *(file(f"t/dir{n}/file", b"%d" % n, _about()) for n in range(6)),
    *(file(f"t/file{n}", b"%d" % n, _about()) for n in range(6)),
    *(symlink(f"t/symlink{n}", "real", _about(0o777)) for n in range(4)),
)
"""Adds files of every kind."""

CHANGED = changeset(
    whiteout("etc/issue"),
    whiteout("etc/nginx/sites-available"),
    whiteout("usr/share/doc"),
    folder("etc/issue.net", _about(0o755)),
    file("etc/issue.net/file", b"a directory now", _about()),
    file("usr/share/lintian", b"a file now", _about()),
    symlink("srv", "/mnt", _about(0o777)),
    file("bin", b"no link any more", _about(0o755)),
    folder("var/cache", _about(0o2770, 33, 44, user_changed=b"yes")),
    file("etc/passwd", b"root:x:0:0::/:/bin/sh\n", _about(0o600, 1, 1)),
    folder("etc/nginx", _about(0o711, mtime_ns=_BEFORE)),
    folder("etc/nginx/conf.d", _about(0o755)),
    opaque("etc/nginx/conf.d"),
    file("etc/nginx/conf.d/own.conf", b"# own\n", _about()),
    folder("t", _about(0o711, mtime_ns=_BEFORE)),
    folder("t/opaque", _about(0o555)),
    opaque("t/opaque"),
    file("t/opaque/upper", b"", _about()),
    folder("t/late-opaque", _about(0o755)),
    file("t/late-opaque/upper", b"", _about()),
    opaque("t/late-opaque"),
    whiteout("t/one"),
    whiteout("t/dir0"),
    file("t/dir1", b"was a directory", _about()),
    symlink("t/dir2", "real", _about(0o777)),
    folder("t/dir3", _about(0o700, 9, 9)),
    fifo("t/dir4", _about()),
    whiteout("t/file0"),
    folder("t/file1", _about(0o755)),
    file("t/file1/inside", b"", _about()),
    symlink("t/file2", "real", _about(0o777)),
    whiteout("t/symlink0"),
    folder("t/symlink1", _about(0o755)),
    file("t/symlink1/inside", b"", _about()),
    file("t/symlink2", b"was a link", _about()),
    symlink("t/symlink3", "elsewhere", _about(0o777)),
    file("t/capability", b"\x7fELF2", _about(0o755)),
    file("t/setuid", b"s", _about(0o755, security_capability=_CAPABILITY)),
)
"""Removes, replaces, changes kinds and attributes."""

AGAIN = changeset(
    file("etc/issue", b"again\n", _about(0o640)),
    folder("etc/nginx/sites-available", _about(0o700)),
    file("etc/nginx/sites-available/again", b"", _about()),
    folder("t/dir0", _about(0o700, 3, 3)),
    file("t/dir0/other", b"", _about()),
    folder("t/dir1", _about(0o755)),
    whiteout("t/dir3/nothing-here"),
    file("t/opaque/lower", b"again", _about()),
    file("t/file3", b"3, with other attributes", _about(0o4711, 70_000, 80_000)),
    whiteout("t/implicit/below/file"),
    file("t/one", b"not linked", _about()),
    folder("t/late-opaque", _about(0o750, mtime_ns=_BEFORE)),
    symlink("t/symlink0", "real", _about(0o777)),
)
"""Adds again what was removed."""

THROUGH = changeset(file("t/link-dir/inside", b"where am I", FILE))
"""A path through a lower layer's symbolic link: an engine makes it a directory, umoci follows it."""

LOWER_LINKS = changeset(
    hard_link("t/to-lower", "t/three", _about(0o600, 7, 8)),
    hard_link("t/to-lower-again", "t/to-lower", _about(0o600, 7, 8)),
    hard_link("t/to-base", "etc/debian_version"),
)
"""Hard links into lower layers, which engines refuse."""

TWICE = changeset(
    folder("u", _about(0o755)),
    file("u/twice", b"first", _about(0o600)),
    file("u/twice", b"second", _about(0o644)),
    file("u/replaced", b"linked", _about()),
    hard_link("u/linked", "u/replaced", _about()),
    file("u/replaced", b"another", _about()),
    file("u/before-1970", b"", _about(mtime_ns=-1_500_000_000)),
)
"""Names that come again, which podman refuses, and a time that containerd's store makes 1970."""

GNU_SPARSE = changeset(
    gnu_sparse("sparse", 1 << 22, [(0, b"begin".ljust(512)), (1 << 20, b"x" * 5120), ((1 << 22) - 512, b"e" * 512)]),
    gnu_sparse("many", 1 << 22, [*((at << 16, b"%512d" % at) for at in range(60)), (1 << 22, b"")]),
    gnu_sparse("hole", 1 << 21, [(1 << 21, b"")]),
    file("after", b"still in step", _about()),
)
"""Sparse files as GNU tar writes them unless told otherwise, which engines and umoci refuse."""

UPPER = (ADDED, CHANGED, AGAIN, THROUGH)
ONLY_UMOCI = (LOWER_LINKS, TWICE)


@dataclass(frozen=True)
class PeerImage:
    """The image for engines, as an archive; with more layers for umoci, as an image layout."""

    archive: Path
    layout: Path
    name: str = "peers:1"


def write_peer_image(where: Path) -> PeerImage:
    """Write the image into the folder *where*."""
    base = root_file_system()
    with base.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    _write_archive(where / "peers.tar", base, digest)
    _write_layout(where / "layout", base, digest)
    return PeerImage(where / "peers.tar", where / "layout")


def _encoded(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _config(base: str, layers: Iterable[bytes]) -> bytes:
    diff_ids = [f"sha256:{digest}" for digest in (base, *map(_encoded, layers))]
    return image_config([], rootfs={"type": "layers", "diff_ids": diff_ids})


def _write_archive(path: Path, base: Path, digest: str) -> None:
    config = _config(digest, UPPER)
    names = [f"{one}.tar" for one in (digest, *map(_encoded, UPPER))]
    config_name = f"{_encoded(config)}.json"
    item = {"Config": config_name, "RepoTags": ["peers:1"], "Layers": names}
    with path.open("wb") as tar, base.open("rb") as opened:
        tar.write(tar_header(names[0], base.stat().st_size))
        shutil.copyfileobj(opened, tar, 1 << 20)
        tar.write(bytes(-tar.tell() % 512))
        for name, data in zip(names[1:], UPPER, strict=True):
            tar.write(member(name, data))
        tar.write(member(config_name, config) + member("manifest.json", json.dumps([item]).encode()) + END)


def _write_layout(path: Path, base: Path, digest: str) -> None:
    layers = (*UPPER, *ONLY_UMOCI)
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    shutil.copyfile(base, blobs / digest)

    def put(kind: str, data: bytes) -> dict[str, Any]:
        (blobs / _encoded(data)).write_bytes(data)
        return _descriptor(kind, _encoded(data), len(data))

    manifest = {
        "schemaVersion": 2,
        "config": put("config.v1+json", _config(digest, layers)),
        "layers": [
            _descriptor("layer.v1.tar", digest, base.stat().st_size),
            *(put("layer.v1.tar", data) for data in layers),
        ],
    }
    entry = put("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def _descriptor(kind: str, encoded: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{encoded}", "size": size}
