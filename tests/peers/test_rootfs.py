"""``rootfs/`` next to what umoci, podman and Docker make of the same image: every file, and all of it.

umoci decides.  Engines keep each layer by itself, so of a directory that the topmost layer touching it
does not list they know no attributes, nor are the root's an image's there.
"""

import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.peers.peer_images import ONLY_UMOCI, UPPER, PeerImage, write_peer_image
from tests.peers.whole_trees import Differences, FileState, Tree, differences, touched, tree_at
from tests.support.engines import RealEngine, _folder
from tests.support.mounts import bench
from tests.support.real_image import root_file_system
from tests.support.requirements import ROOT, need


@dataclass(frozen=True)
class Shown:
    """The image, and what imgfs shows of it."""

    image: PeerImage
    rootfs: Tree
    """Of the archive."""
    of_layout: Tree
    """Of the image layout, which has more layers."""


@pytest.fixture(scope="module", name="ours")
def what_imgfs_shows() -> Iterator[Shown]:
    """Give the image and both trees that imgfs makes of it."""
    need(ROOT)
    with bench() as imgfs:
        image = write_peer_image(imgfs.folder)
        trees = []
        for name, source in (("by-archive", str(image.archive)), ("by-layout", f"oci:{image.layout}:1")):
            mountpoint = imgfs.mount(source, at=imgfs.mountpoint(name))
            trees.append(tree_at(mountpoint / "rootfs"))
        yield Shown(image, *trees)


def _without(entry: FileState, *fields: str) -> FileState:
    values = entry._asdict()
    nothing = {"mtime_ns": 0, "mode": 0, "uid": 0, "gid": 0, "xattrs": ()}
    return FileState(**values | {name: nothing[name] for name in fields})


UMOCI_DIFFERS: Differences = {
    b"t/link-dir": {
        "type": (stat.S_IFDIR, stat.S_IFLNK),
        "mode": (0o755, 0o777),
        "size": (0, 4),
        "target": (b"", b"real"),
    },
    b"t/link-dir/inside": {"path": (True, False)},
    b"t/real/inside": {"path": (False, True)},
}
"""The layer `THROUGH`: umoci follows a lower layer's symbolic link, engines and imgfs make it a directory."""


def test_umoci_unpacks_what_rootfs_shows(ours: Shown) -> None:
    need("umoci")
    bundle = ours.image.layout.parent / "bundle"
    try:
        command = ["umoci", "unpack", "--image", f"{ours.image.layout}:1", str(bundle)]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        theirs = tree_at(bundle / "rootfs")
    finally:
        shutil.rmtree(bundle, ignore_errors=True)
    lists = touched([root_file_system(), *UPPER, *ONLY_UMOCI])
    nobodys = {path for path, listed in lists.items() if not any(listed)}
    found = differences(_timeless(ours.of_layout, nobodys), _timeless(theirs, nobodys))
    assert found == UMOCI_DIFFERS
    assert ours.of_layout.same == theirs.same


def _timeless(tree: Tree, directories: set[bytes]) -> dict[bytes, FileState]:
    return {path: _without(entry, "mtime_ns") if path in directories else entry for path, entry in tree.entries.items()}


def _as_an_engine_has_it(tree: Tree) -> dict[bytes, FileState]:
    """Return what can be compared with an engine."""
    lists = touched([root_file_system(), *UPPER])
    nobodys = {path for path, listed in lists.items() if not listed[-1]} | {b"."}
    return {
        path: _without(entry, "mode", "uid", "gid", "mtime_ns", "xattrs") if path in nobodys else entry
        for path, entry in tree.entries.items()
    }


def test_podman_mounts_what_rootfs_shows(ours: Shown) -> None:
    need("podman")
    with _folder("podman") as folder:
        environment = os.environ | {"CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf", "TMPDIR": str(folder)}
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
        )

        def podman(*arguments: str | Path) -> str:
            done = subprocess.run(["podman", *arguments], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        podman("load", "-q", "-i", ours.image.archive)
        name = f"localhost/{ours.image.name}"
        try:
            theirs = tree_at(Path(podman("image", "mount", name)))
        finally:
            podman("image", "umount", name)
    assert differences(_as_an_engine_has_it(ours.rootfs), _as_an_engine_has_it(theirs)) == {}
    assert ours.rootfs.same == theirs.same


DOCKER_ADDS = {
    b".dockerenv",
    b"dev",
    b"dev/console",
    b"dev/pts",
    b"dev/shm",
    b"etc/hostname",
    b"etc/hosts",
    b"etc/mtab",
    b"etc/resolv.conf",
}
"""What Docker puts into every container, unless it is there: all that may differ."""


@pytest.mark.parametrize("fixture", ["docker_engine", "docker26_classic", "docker26_containerd"])
def test_docker_exports_what_rootfs_shows(ours: Shown, request: pytest.FixtureRequest, fixture: str) -> None:
    engine = request.getfixturevalue(fixture)
    assert isinstance(engine, RealEngine)
    engine.docker("load", "-i", ours.image.archive)
    container = engine.docker("create", ours.image.name, "sh").strip()
    try:
        command = ["docker", "export", container]
        with subprocess.Popen(command, env=engine.environment, stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            theirs = _tree_in(export.stdout)
        assert export.returncode == 0
    finally:
        engine.docker("rm", container)
        engine.docker("rmi", ours.image.name)
    mine = _as_docker_exports(ours.rootfs)
    found = differences(mine.entries, _as_docker_exports(theirs).entries)
    assert {path: fields for path, fields in found.items() if path not in DOCKER_ADDS} == {}
    assert mine.same == theirs.same


def _as_docker_exports(tree: Tree) -> Tree:
    """Return what an export can say: whole seconds, and of the extended attributes only the capabilities."""
    entries = {
        path: entry._replace(
            mtime_ns=entry.mtime_ns // 10**9,
            xattrs=tuple((name, value) for name, value in entry.xattrs if name == "security.capability"),
        )
        for path, entry in _as_an_engine_has_it(tree).items()
    }
    return tree._replace(entries=entries)


_TYPES = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


def _tree_in(stream: IO[bytes]) -> Tree:
    """Return the tree in a tar."""
    entries: dict[bytes, FileState] = {}
    names: dict[bytes, set[bytes]] = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            path = os.path.normpath(os.fsencode(member.name))
            if member.islnk():
                first = os.path.normpath(os.fsencode(member.linkname))
                entries[path] = entries[first]
                names.setdefault(first, {first}).add(path)
                continue
            entries[path] = _entry(tar, member)
    stream.read()
    entries.setdefault(b".", FileState(stat.S_IFDIR, 0, 0, 0, 0, 0, b"", 0, (), ""))
    return Tree(entries, set(map(frozenset, names.values())))


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo) -> FileState:
    target = os.fsencode(member.linkname) if member.issym() else b""
    prefix = "SCHILY.xattr."
    data = tar.extractfile(member) if member.isreg() else None
    return FileState(
        type=_TYPES[member.type],
        mode=stat.S_IMODE(member.mode),  # Docker 20.10 writes the type, too
        uid=member.uid,
        gid=member.gid,
        size=len(target) or member.size,
        mtime_ns=int(member.mtime * 10**9),
        target=target,
        rdev=os.makedev(member.devmajor, member.devminor) if member.isdev() and not member.isfifo() else 0,
        xattrs=tuple(
            (key.removeprefix(prefix), os.fsencode(value))
            for key, value in sorted(member.pax_headers.items())
            if key.startswith(prefix)
        ),
        sha256=hashlib.sha256(data.read()).hexdigest() if data else "",
    )
