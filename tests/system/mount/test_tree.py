"""What a mounted image looks like, seen through the kernel."""

import errno
import itertools
import mmap
import os
import random
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.builders import CREATED_NS, LAYERS, Archive, image_config, layer, schema2_manifest, sha256
from tests.support.documents import LAYOUT, oci_index, oci_manifest
from tests.support.layouts import Layout
from tests.support.mounts import Bench, bench, the_mount, tree

BIG = layer({"noise": random.Random(7).randbytes(3_000_001)})
ALL_LAYERS = (*LAYERS, BIG)
CONFIG = image_config(ALL_LAYERS)
MANIFEST = schema2_manifest(CONFIG, ALL_LAYERS)
OCI = oci_manifest(CONFIG, ALL_LAYERS)
BLOBS = {sha256(data)[7:]: data for data in (CONFIG, MANIFEST, OCI, *ALL_LAYERS)}
DOCUMENTS = {"manifest.json": MANIFEST, "config": CONFIG, "oci-layout": LAYOUT, "index.json": oci_index(OCI)}
FILES = DOCUMENTS | {f"blobs/sha256/{name}": data for name, data in BLOBS.items()}
FOLDERS = ("", "blobs", "blobs/sha256", "layers")
TREES = ("rootfs", *(f"layers/{number}" for number in range(len(ALL_LAYERS))))
"""What is tested elsewhere: without it, this is the whole tree."""


@pytest.fixture(scope="module", name="image")
def mounted_image() -> Iterator[Path]:
    """A mount that no test here changes."""
    with bench() as made:
        yield made.mount(Archive(layers=ALL_LAYERS).write(made.folder / "image.tar"))


@pytest.fixture(scope="module", name="plain")
def mounted_image_without_trees() -> Iterator[Path]:
    """The same without layers/ and rootfs/, which no test here changes either."""
    with bench() as made:
        yield made.mount(Archive(layers=ALL_LAYERS).write(made.folder / "image.tar"), "--no-trees")


@pytest.fixture(name="big")
def big_layer(image: Path) -> Path:
    """The one layer that no read takes at once."""
    return image / "blobs" / "sha256" / sha256(BIG)[7:]


def test_the_tree_has_the_documents_and_every_blob_and_nothing_else(plain: Path) -> None:
    assert tree(plain) == {"blobs": None, "blobs/sha256": None, **FILES}


def test_beside_them_are_the_layers_and_the_root_file_system(image: Path) -> None:
    shown = tree(image)
    assert {path for path in shown if not path.startswith(("rootfs/", "layers/"))} == {*FILES, *FOLDERS[1:], "rootfs"}
    assert {path for path in shown if re.fullmatch("layers/[^/]*", path)} == set(TREES[1:])


def test_a_blob_has_the_name_that_sha256sum_gives_it(image: Path) -> None:
    names = sorted(BLOBS)
    done = subprocess.run(
        ["sha256sum", *names], cwd=image / "blobs" / "sha256", capture_output=True, text=True, check=True
    )
    assert done.stdout == "".join(f"{name}  {name}\n" for name in names)


@pytest.mark.parametrize("path", FILES)
def test_a_file_has_these_attributes(image: Path, path: str) -> None:
    found = os.stat(image / path)
    size = len(FILES[path])
    assert stat.filemode(found.st_mode) == "-r--r--r--"
    assert (found.st_uid, found.st_gid, found.st_nlink) == (os.getuid(), os.getgid(), 1)
    assert (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns) == (CREATED_NS,) * 3
    assert (found.st_size, found.st_blocks, found.st_blksize) == (size, (size + 511) // 512, 4096)


@pytest.mark.parametrize("path", FOLDERS)
def test_a_directory_has_these_attributes(image: Path, path: str) -> None:
    found = os.stat(image / path)
    assert stat.filemode(found.st_mode) == "dr-xr-xr-x"
    assert (found.st_uid, found.st_gid, found.st_nlink) == (os.getuid(), os.getgid(), 1)
    assert (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns) == (CREATED_NS,) * 3


def test_the_file_system_is_full_and_as_large_as_its_files(image: Path) -> None:
    found = os.statvfs(image)
    assert (found.f_bsize, found.f_frsize, found.f_namemax) == (4096, 4096, 255)
    assert found.f_blocks == sum(-(-len(data) // 4096) for data in FILES.values())
    assert found.f_files == len(FILES) + len(FOLDERS) + len(TREES)
    assert (found.f_bfree, found.f_bavail, found.f_ffree, found.f_favail) == (0, 0, 0, 0)
    assert found.f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV) == os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV


def test_every_directory_lists_itself_and_its_parent(image: Path) -> None:
    for folder in FOLDERS:
        listed = subprocess.run(["ls", "-ia", image / folder], capture_output=True, text=True, check=True)
        numbers = dict(line.split()[::-1] for line in listed.stdout.splitlines())
        assert int(numbers["."]) == (image / folder).stat().st_ino
        if folder:
            assert int(numbers[".."]) == (image / folder).parent.stat().st_ino


def test_a_listing_has_the_numbers_and_types_that_stat_has(image: Path) -> None:
    numbers = []
    for folder in FOLDERS:
        with os.scandir(image / folder) as entries:
            for entry in entries:
                numbers.append(entry.inode())
                assert entry.inode() == os.stat(entry.path).st_ino
                assert entry.is_dir(follow_symlinks=False) == os.path.isdir(entry.path)
    assert len(set(numbers)) == len(numbers)


def test_dot_dot_leads_up(image: Path) -> None:
    folder = os.open(image / "blobs" / "sha256", os.O_RDONLY)
    top = os.open("../..", os.O_RDONLY, dir_fd=folder)
    assert os.stat("../../config", dir_fd=folder) == os.stat(image / "config")
    assert sorted(os.listdir(top)) == sorted(["blobs", "layers", "rootfs", *DOCUMENTS])
    os.close(top)
    os.close(folder)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("x", errno.ENOENT),
        ("blobs/sha512", errno.ENOENT),
        ("blobs/sha256/x", errno.ENOENT),
        (f"blobs/sha256/sha256:{sha256(BIG)[7:]}", errno.ENOENT),
        (f"blobs/sha256/{sha256(BIG)[7:].upper()}", errno.ENOENT),
        ("n" * 255, errno.ENOENT),
        (b"\xff\xfe".decode("utf-8", "surrogateescape"), errno.ENOENT),
        ("config/x", errno.ENOTDIR),
    ],
)
def test_what_is_not_there_is_not_there_the_second_time_either(image: Path, path: str, error: int) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match=r".") as raised:
            os.stat(image / path)
        assert raised.value.errno == error


def test_a_directory_cannot_be_read_as_a_file(image: Path) -> None:
    folder = os.open(image / "blobs", os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        os.read(folder, 1)
    os.close(folder)


def test_access_is_what_the_modes_say(image: Path) -> None:
    assert os.access(image / "config", os.R_OK)
    assert not os.access(image / "config", os.W_OK)
    assert not os.access(image / "config", os.X_OK)
    assert os.access(image / "blobs", os.R_OK | os.X_OK)
    assert not os.access(image / "blobs", os.W_OK)


def test_what_describes_nothing_has_no_extended_attributes(image: Path) -> None:
    assert os.listxattr(image / "index.json") == os.listxattr(image / "blobs") == os.listxattr(image / "rootfs") == []
    with pytest.raises(OSError, match=r".") as raised:
        os.getxattr(image / "config", "user.x")
    assert raised.value.errno == errno.ENODATA


def test_any_offset_and_length_reads_the_bytes_that_are_there(big: Path) -> None:
    choose = random.Random(1)
    edges = (0, 1, 511, 512, 4095, 4096, 4097, 131071, 131072, len(BIG) // 2, len(BIG) - 1, len(BIG), len(BIG) + 1)
    lengths = (1, 2, 511, 4096, 131072, 131073, 1 << 20, len(BIG), 2 * len(BIG))
    file = os.open(big, os.O_RDONLY)
    for offset, length in itertools.product(edges, lengths):
        assert os.pread(file, length, offset) == BIG[offset : offset + length]
    for _ in range(2000):
        offset, length = choose.randrange(len(BIG) + 100), choose.randrange(1, 300_000)
        assert os.pread(file, length, offset) == BIG[offset : offset + length]
    os.close(file)


def test_reads_at_impossible_offsets_are_the_end_of_the_file(big: Path) -> None:
    file = os.open(big, os.O_RDONLY)
    assert os.pread(file, 4096, 1 << 40) == b""
    assert os.pread(file, 4096, (1 << 63) - 4097) == b""
    assert os.lseek(file, 0, os.SEEK_END) == len(BIG)
    os.close(file)


def test_mmap_shows_the_same_bytes(big: Path) -> None:
    choose = random.Random(2)
    with big.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        for _ in range(500):
            offset = choose.randrange(len(BIG))
            assert memory[offset : offset + 5000] == BIG[offset : offset + 5000]
        assert memory[:] == BIG


def test_sendfile_and_copies_give_the_same_bytes(big: Path, tmp_path: Path) -> None:
    with big.open("rb") as source, (tmp_path / "sent").open("wb") as target:
        while os.sendfile(target.fileno(), source.fileno(), None, 1 << 30):
            pass
    shutil.copyfile(big, tmp_path / "copyfile")
    subprocess.run(["cp", "-a", big, tmp_path / "cp"], check=True)
    for name in ("sent", "copyfile", "cp"):
        subprocess.run(["cmp", big, tmp_path / name], check=True)
        assert (tmp_path / name).read_bytes() == BIG
    assert (tmp_path / "cp").stat().st_mtime_ns == CREATED_NS


def test_a_direct_read_passes_the_page_cache_by(big: Path) -> None:
    buffer = mmap.mmap(-1, 1 << 20)  # pages: aligned as O_DIRECT wants it
    file = os.open(big, os.O_RDONLY | os.O_DIRECT)
    for offset in range(0, len(BIG), len(buffer)):
        count = os.preadv(file, [buffer], offset)
        assert buffer[:count] == BIG[offset : offset + len(buffer)]
    os.close(file)
    buffer.close()


def test_many_readers_at_once_all_read_right(image: Path) -> None:
    def read_everything(seed: int) -> bool:
        paths = list(FILES)
        random.Random(seed).shuffle(paths)
        return all((image / path).read_bytes() == FILES[path] for path in paths)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read_everything, range(64)))


def test_the_bytes_are_those_in_the_archive(image: Path) -> None:
    archive = image.parent / "image.tar"
    for name, data in BLOBS.items():
        if data in (MANIFEST, OCI):
            continue
        position = archive.read_bytes().find(data)
        assert position > 0
        done = subprocess.run(
            ["cmp", "-n", str(len(data)), archive, image / "blobs" / "sha256" / name, str(position), "0"], check=False
        )
        assert done.returncode == 0


def test_tar_and_find_are_content(plain: Path) -> None:
    found = subprocess.run(["find", plain, "-type", "f"], capture_output=True, text=True, check=True)
    assert sorted(found.stdout.split()) == sorted(str(plain / path) for path in FILES)
    packed = subprocess.run(["tar", "-C", plain, "-c", "."], capture_output=True, check=True)
    assert packed.stderr == b""


def test_the_mount_is_read_only_without_set_user_id_and_without_devices(image: Path) -> None:
    mount = the_mount(image)
    assert mount.file_system == "fuse.imgfs"
    assert mount.source == str(image.parent / "image.tar")
    assert {"ro", "nosuid", "nodev"} <= mount.options
    assert not {"allow_other", "default_permissions"} & mount.super_options


def test_an_image_without_layers_has_three_blobs_and_an_empty_root_file_system(imgfs: Bench) -> None:
    archive = Archive(layers=[])
    mountpoint = imgfs.mount(archive.write(imgfs.folder / "empty.tar"))
    config, manifest = archive.config_data, schema2_manifest(archive.config_data, [])
    oci = oci_manifest(config, [])
    assert tree(mountpoint) == {
        "manifest.json": manifest,
        "config": config,
        "oci-layout": LAYOUT,
        "index.json": oci_index(oci),
        "layers": None,
        "rootfs": None,
        "blobs": None,
        "blobs/sha256": None,
        f"blobs/sha256/{sha256(config)[7:]}": config,
        f"blobs/sha256/{sha256(manifest)[7:]}": manifest,
        f"blobs/sha256/{sha256(oci)[7:]}": oci,
    }
    for words in (["ls"], ["ls", "-la"], ["diff", imgfs.folder / "empty.tar"]):
        assert imgfs.run(*words, imgfs.folder / "empty.tar").status == 0


def test_an_artifact_is_mounted_with_its_files_and_a_line_that_says_so(imgfs: Bench) -> None:
    layout = Layout()
    title = {"org.opencontainers.image.title": "docs/a.txt"}
    config = layout.blob("application/vnd.oci.empty.v1+json", b"{}")
    text = layout.blob("text/plain", b"hello", annotations=title)
    layout.list(layout.image([], config=config, stored=[text]), "1").write(str(imgfs.folder / "layout"))
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--log-file", imgfs.log, f"oci:{imgfs.folder}/layout", mountpoint)
    why = "it is an artifact, its config is application/vnd.oci.empty.v1+json"
    first, second = done.err.splitlines()
    assert first == f"imgfs: warning: oci:{imgfs.folder}/layout is mounted without rootfs/: {why}"
    assert second.startswith(f"imgfs: mounted oci:{imgfs.folder}/layout on {mountpoint} in ")
    found = tree(mountpoint)
    assert {path: found.get(path) for path in ("files", "files/docs", "files/docs/a.txt", "config")} == {
        "files": None,
        "files/docs": None,
        "files/docs/a.txt": b"hello",
        "config": b"{}",
    }
    assert ("layers" in found, "rootfs" in found) == (True, False)


def test_an_image_without_a_time_is_from_1970(imgfs: Bench) -> None:
    archive = Archive(config=image_config(LAYERS, created="yesterday"))
    mountpoint = imgfs.mount(archive.write(imgfs.folder / "image.tar"))
    assert (mountpoint / "config").stat().st_mtime_ns == 0


def test_five_thousand_blobs_are_listed_and_found(imgfs: Bench) -> None:
    layers = [layer({"n": b"%d" % number}) for number in range(5000)]
    mountpoint = imgfs.mount(Archive(layers=layers).write(imgfs.folder / "many.tar"))
    assert len(os.listdir(mountpoint / "blobs" / "sha256")) == 5003
    for data in layers[::97]:
        assert (mountpoint / "blobs" / "sha256" / sha256(data)[7:]).read_bytes() == data
