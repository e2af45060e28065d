"""The inputs: images written the way engines save them, cached between runs if they take long to make."""

import contextlib
import functools
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.layouts import write_gzip_layout
from benchmarks.workplace import Failed, Workplace

NAME = "imgfs-bench:latest"
ONLY_ABOVE = "srv"
"""Where the second layer's files are, all of them: a peer that merges no layers is given the rest."""
_MIB = 1 << 20
_FILES_A_DIRECTORY = 1000


@dataclass(frozen=True)
class Blob:
    """A layer in an archive: its member's name, its digest without the algorithm, and where its bytes are."""

    member: str
    digest: str
    offset: int
    size: int


@dataclass(frozen=True)
class Image:
    """An archive of one image."""

    path: Path
    layers: tuple[Blob, ...]

    @property
    def largest(self) -> Blob:
        """Return the largest layer."""
        return max(self.layers, key=lambda blob: blob.size)


class Archive:
    """Writes a tar; a member's bytes may be a hole, so that an archive of any size takes no space."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.path = path

    def _member(self, name: str, size: int, kind: bytes = tarfile.REGTYPE) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.mtime = size, kind, 1_700_000_000
        info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        self._file.write(info.tobuf(tarfile.GNU_FORMAT))

    def directory(self, name: str) -> None:
        """Add a directory."""
        self._member(name, 0, tarfile.DIRTYPE)

    def data(self, name: str, data: bytes) -> None:
        """Add a file."""
        self._member(name, len(data))
        self._file.write(data + bytes(-len(data) % 512))

    def hole(self, name: str, size: int) -> Blob:
        """Add a file of *size* zeros, which take no space, as a layer."""
        self._member(name, size)
        offset = self._file.tell()
        self._file.seek(size + -size % 512, os.SEEK_CUR)
        return Blob(name, hashlib.sha256(name.encode()).hexdigest(), offset, size)  # no reader of an archive checks it

    def layer(self, path: Path) -> Blob:
        """Add a layer's tar, as a classic engine names it."""
        size = path.stat().st_size
        with path.open("rb") as tar:
            digest = hashlib.file_digest(tar, "sha256").hexdigest()
            name = f"{hashlib.sha256(digest.encode()).hexdigest()}/layer.tar"
            self._member(name, size)
            offset = self._file.tell()
            tar.seek(0)
            shutil.copyfileobj(tar, self._file, _MIB)
        self._file.write(bytes(-size % 512))
        return Blob(name, digest, offset, size)

    def end(self) -> None:
        """End the tar."""
        self._file.write(bytes(1024))
        self._file.truncate(self._file.tell())
        self._file.close()

    def image(self, layers: Iterable[Blob]) -> Image:
        """Add config and manifest of an image of *layers*, and end the tar."""
        blobs = tuple(layers)
        diff_ids = [f"sha256:{blob.digest}" for blob in blobs]
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "2026-01-01T00:00:00Z",
                "config": {"Cmd": ["/bin/sh"]},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "bench"} for _ in blobs],
            }
        ).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        self.data(name, config)
        item = {"Config": name, "RepoTags": [NAME], "Layers": [blob.member for blob in blobs]}
        self.data("manifest.json", json.dumps([item]).encode())
        self.end()
        return Image(self.path, blobs)


def write_files(path: Path, count: int, size: int = 0) -> Path:
    """Write a layer of *count* files of *size* bytes, a thousand in a directory."""
    archive = Archive(path)
    noise = random.Random(2).randbytes(size)  # noqa: S311 - no secret
    for number in range(count):
        if number % _FILES_A_DIRECTORY == 0:
            archive.directory(f"{ONLY_ABOVE}/{number // _FILES_A_DIRECTORY:04}")
        archive.data(f"{ONLY_ABOVE}/{number // _FILES_A_DIRECTORY:04}/file-{number:07}", noise)
    archive.end()
    return path


def _write_upper(path: Path, size: int) -> None:
    """Write a layer of *size* bytes below `ONLY_ABOVE`: half of it one file of noise, half texts of 100 kB."""
    noise = random.Random(3)  # noqa: S311 - no secret
    archive = Archive(path)
    archive.directory(ONLY_ABOVE)
    archive.data(f"{ONLY_ABOVE}/noise", noise.randbytes(size // 2))
    words = [bytes(noise.choices(b"abcdefghijklmnopqrstuvwxyz", k=noise.randint(2, 9))) for _ in range(1000)]
    text = b" ".join(noise.choices(words, k=16_000))
    for number in range(size // 2 // 100_000):
        archive.data(f"{ONLY_ABOVE}/text-{number:04}", b"%d\n%s" % (number, text))
    archive.end()


def _write_small_base(path: Path) -> None:
    """Write the root file system of a quick run."""
    archive = Archive(path)
    for top in ("bin", "etc", "usr", ONLY_ABOVE):
        archive.directory(top)
    for number in range(300):
        archive.data(f"usr/file-{number:03}", b"%d\n" % number * 200)
    archive.end()


def _write_debian(path: Path) -> None:
    """Write a root file system of Debian with nginx."""
    command = ["mmdebstrap", "--variant=minbase", "--include=nginx-light,curl", "bookworm", str(path)]
    if not shutil.which(command[0]):
        raise Failed("mmdebstrap is not installed, which makes the root file system")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"mmdebstrap: {done.stderr.strip()[-500:]}")


def _write_ext4(path: Path, tar: Path) -> None:
    """Write an ext4 file system with the files of *tar*, with room for as much again."""
    folder = path.with_name(f"{path.name}-files")
    folder.mkdir()
    try:
        subprocess.run(["tar", "-xpf", tar, "-C", folder], check=True)
        blocks = str(64 * 1024 + 2 * tar.stat().st_size // 1024)
        subprocess.run(
            ["mkfs.ext4", "-q", "-b", "4096", "-d", folder, path, f"{blocks}k"], check=True, capture_output=True
        )
    finally:
        shutil.rmtree(folder)


class Inputs:
    """The images of a run: tiny and temporary if it is *quick*; otherwise some are cached in *cache*."""

    def __init__(self, work: Workplace, cache: Path, *, quick: bool) -> None:
        self._work, self._quick = work, quick
        self._cache = work.new_folder("inputs") if quick else cache
        self._cache.mkdir(parents=True, exist_ok=True)

    def _kept(self, name: str, write: Callable[[Path], object]) -> Path:
        path = self._cache / name
        if not path.exists():
            unfinished = self._cache / f"unfinished-{os.getpid()}-{name}"
            try:
                write(unfinished)
                unfinished.rename(path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        return path

    @functools.cached_property
    def base(self) -> Path:
        """The tar of the base layer: Debian with nginx, some 190 MB."""
        return self._kept("rootfs.tar", _write_small_base if self._quick else _write_debian)

    @functools.cached_property
    def base_files(self) -> dict[str, int]:
        """The base layer's regular files: names and sizes."""
        with tarfile.open(self.base, "r:") as tar:
            return {member.name.removeprefix("./"): member.size for member in tar if member.isfile()}

    @functools.cached_property
    def ext4(self) -> Path:
        """The base layer's files in a file system of their own, in the page cache."""
        path = self._kept("rootfs.ext4", lambda path: _write_ext4(path, self.base))
        with path.open("rb") as whole:
            while whole.read(_MIB):
                pass
        return path

    @functools.cached_property
    def upper(self) -> Path:
        """The tar of the second layer, some 210 MB."""
        return self._kept("upper.tar", lambda path: _write_upper(path, 1_000_000 if self._quick else 210_000_000))

    @functools.cached_property
    def image(self) -> Image:
        """The image that nearly everything is measured on, 400 MB, in the page cache."""
        return self.of_layers("image.tar", lambda: [self.base, self.upper])

    @functools.cached_property
    def gzip_layout(self) -> Path:
        """The same image as a directory with an image layout, its layers compressed."""
        return self._kept("gzip-layout", lambda path: write_gzip_layout(path, [self.base, self.upper]))

    def of_layers(self, name: str, layers: Callable[[], list[Path]]) -> Image:
        """Return the cached archive *name*, written from *layers* on first use."""

        def write(path: Path) -> None:
            archive = Archive(path)
            archive.image([archive.layer(layer) for layer in layers()])

        path = self._kept(name, write)
        with path.open("rb") as whole:
            while whole.read(_MIB):
                pass
        return Image(path, tuple(_layers_of(path)))

    def many_members(self, count: int) -> Image:
        """Return an archive with one layer of *count* members."""
        tar = self._work.new_path("members.tar")
        try:
            return self.of_layers(f"members-{count}.tar", lambda: [write_files(tar, count)])
        finally:
            tar.unlink(missing_ok=True)

    def sparse(self, *, size: int = 400_000_000, members: int = 12, layers: int = 10) -> Image:
        """Return a new archive of an image with *layers* layers of *size* bytes together, all holes.

        The *members* that are neither layer nor config nor manifest are as good as another image's.
        """
        archive = Archive(self._work.new_path("sparse.tar"))
        blobs = [archive.hole(f"{number}/layer.tar", size // layers // 512 * 512) for number in range(layers)]
        for number in range(members - layers - 2):
            archive.hole(f"{number:06}/other.tar", 512)
        return archive.image(blobs)


def _layers_of(path: Path) -> Iterable[Blob]:
    with tarfile.open(path, "r:") as tar:
        (item,) = json.load(_opened(tar, "manifest.json"))
        config = json.load(_opened(tar, item["Config"]))
        for name, diff_id in zip(item["Layers"], config["rootfs"]["diff_ids"], strict=True):
            member = tar.getmember(name)
            yield Blob(name, diff_id.removeprefix("sha256:"), member.offset_data, member.size)


def _opened(tar: tarfile.TarFile, name: str) -> io.BufferedReader:
    file = tar.extractfile(name)
    if file is None:
        raise FileNotFoundError(name)
    return file  # type: ignore[return-value]
