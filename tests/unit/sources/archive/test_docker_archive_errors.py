"""Everything that can be wrong with a Docker archive, each with its whole message."""

from pathlib import Path

import pytest

from fusefs.errors import ImgfsError, InvalidImage, Unavailable, Unsupported
from tests.support.builders import (
    END,
    LAYERS,
    Archive,
    archive_of,
    directory,
    fifo,
    hard_link,
    image_config,
    member,
    sha256,
    symlink,
)
from tests.support.changesets import gnu_sparse
from tests.support.conformance import SPOOLING, refusal

FIRST = f"{sha256(LAYERS[0])[7:]}.tar"
CONFIG = f"{sha256(image_config(LAYERS))[7:]}.json"
EXPECTING_NAME = "Expecting property name enclosed in double quotes"

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def refused(data: bytes) -> tuple[type[ImgfsError], str]:
    """Return the class and message of the error for an archive."""
    Path("x.tar").write_bytes(data)
    return refusal("./x.tar")


def replaced(name: str, by: bytes) -> bytes:
    """Return an archive in which the member *name* is replaced by other members."""
    archive = Archive()
    blobs = dict(zip([FIRST, *archive.item()["Layers"][1:3]], LAYERS, strict=False))
    files = {CONFIG: archive.config_data, "manifest.json": archive.manifest_data()} | blobs
    return archive_of(*(by if name == other else member(other, data) for other, data in files.items()))


def listing(document: object) -> bytes:
    """Return an archive with another manifest list."""
    return Archive(manifest=document).data()


def config(data: bytes) -> bytes:
    """Return an archive with another image config, called ``c``."""
    return Archive(config=data, config_name="c").data()


def diff_ids(*texts: object) -> bytes:
    """Return an archive whose image config has other diffIDs."""
    return config(image_config([], rootfs={"type": "layers", "diff_ids": list(texts)}))


TWO_OF_THREE = Archive(
    layers=LAYERS[:3], config=image_config([*LAYERS[:2]]), config_name="c", layer_names=["a", "b", "d"]
)

REFUSED: dict[str, tuple[bytes, type[ImgfsError], str]] = {
    # Not an archive.
    "empty file": (b"", InvalidImage, "not a tar archive: the file is empty"),
    "zeros": (bytes(10240), InvalidImage, "not an image archive: it has no members, only zero bytes"),
    "garbage": (b"garbage" * 1000, InvalidImage, "not a tar archive: the checksum does not match at offset 0"),
    "text": (
        b"hello\n",
        InvalidImage,
        "not a tar archive: it has 6 bytes, less than a header",
    ),
    "truncated in a member": (
        Archive().data()[:5000],
        InvalidImage,
        f"truncated in {FIRST} at offset 5000: 3464 of 7680 bytes are there",
    ),
    "broken header after good ones": (
        member("a", b"x") + b"\xff" * 512 + END,
        InvalidImage,
        "damaged: no tar header at offset 1024: the checksum does not match",
    ),
    # The manifest list.
    "no manifest.json": (
        archive_of(member("x/etc/passwd")),
        InvalidImage,
        "not an image archive: manifest.json is missing",
    ),
    "a root file system": (
        archive_of(member("etc/passwd")),
        InvalidImage,
        (
            "not an image archive: manifest.json is missing; it looks like a root file system, as docker export writes "
            "it: docker import makes an image of it"
        ),
    ),
    "before 1.10, with repositories": (
        archive_of(member("repositories", b"{}"), member(f"{'a' * 64}/layer.tar")),
        Unsupported,
        "saved by a Docker older than 1.10 (no manifest.json); docker load and docker save it with a newer one",
    ),
    "before 1.10, saved by ID": (
        archive_of(member(f"{'a' * 64}/layer.tar")),
        Unsupported,
        "saved by a Docker older than 1.10 (no manifest.json); docker load and docker save it with a newer one",
    ),
    "list is null": (listing(b"null"), InvalidImage, "manifest.json is null or missing, not a list of images"),
    "list is empty": (listing(b"[]"), InvalidImage, "manifest.json lists no image"),
    "list is an object": (listing({"a": 1}), InvalidImage, "manifest.json is an object, not a list of images"),
    "list is no JSON": (
        listing(b"[{"),
        InvalidImage,
        f"manifest.json is not JSON: {EXPECTING_NAME}: line 1 column 3 (char 2)",
    ),
    "list is too deep": (listing(b"[" * 100000), InvalidImage, "manifest.json is not JSON: nested too deeply"),
    "list is too big": (
        listing(b"[" + b" " * (1 << 20)),
        InvalidImage,
        "manifest.json has 1048577 bytes, more than 1048576",
    ),
    "list is a directory": (
        replaced("manifest.json", directory("manifest.json/")),
        InvalidImage,
        "manifest.json is a directory, not a regular file",
    ),
    "list dangles": (
        replaced("manifest.json", symlink("manifest.json", "gone")),
        InvalidImage,
        "manifest.json is a dangling link: gone is missing",
    ),
    "item is a number": (listing([1]), InvalidImage, "manifest.json: image 0 is a number, not an object"),
    "item without config": (
        listing([{"Layers": []}]),
        InvalidImage,
        "manifest.json: image 0 names no config: Config is null or missing",
    ),
    "layers are no list": (
        listing([{"Config": "c", "Layers": "a"}]),
        InvalidImage,
        "manifest.json: image 0: Layers is a string, not a list",
    ),
    "layer is no string": (
        listing([{"Config": "c", "Layers": [None]}]),
        InvalidImage,
        "manifest.json: image 0: Layers has an item that is not a string",
    ),
    "layer outside": (
        listing([{"Config": "c", "Layers": ["../a"]}]),
        InvalidImage,
        "manifest.json: image 0: Layers: refused: '../a' names no member",
    ),
    "config outside": (
        listing([{"Config": "a/../../c", "Layers": []}]),
        InvalidImage,
        "manifest.json: image 0: Config: refused: 'a/../../c' names no member",
    ),
    # The image config.
    "config missing": (replaced(CONFIG, b""), InvalidImage, f"{CONFIG} is missing"),
    "config is a directory": (
        replaced(CONFIG, directory(CONFIG)),
        InvalidImage,
        f"{CONFIG} is a directory, not a regular file",
    ),
    "config is no JSON": (config(b"{"), InvalidImage, f"c is not JSON: {EXPECTING_NAME}: line 1 column 2 (char 1)"),
    "config is empty": (config(b""), InvalidImage, "c is not JSON: Expecting value: line 1 column 1 (char 0)"),
    "config is not UTF-8": (
        config(b'"\xff"'),
        InvalidImage,
        "c is a string, not an image config",
    ),
    "config is null": (config(b"null"), InvalidImage, "c is null or missing, not an image config"),
    "config is a list": (config(b"[]"), InvalidImage, "c is a list, not an image config"),
    "config is too big": (
        config(b" " * ((4 << 20) + 1)),
        InvalidImage,
        "c has 4194305 bytes, more than 4194304",
    ),
    "config without rootfs": (
        config(image_config([], rootfs=None)),
        InvalidImage,
        "c has no rootfs: it is null or missing",
    ),
    "rootfs is a list": (config(b'{"rootfs":[]}'), InvalidImage, "c: rootfs is a list, not an object"),
    "diffIDs are an object": (
        config(b'{"rootfs":{"diff_ids":{}}}'),
        InvalidImage,
        "c: rootfs.diff_ids is an object, not a list",
    ),
    "diffID is no string": (diff_ids(1), InvalidImage, "c: rootfs.diff_ids has an item that is not a string"),
    "diffID malformed": (
        diff_ids("sha256:abc"),
        InvalidImage,
        "c: rootfs.diff_ids[0]: malformed sha256 digest 'sha256:abc'",
    ),
    "diffID by MD5": (
        diff_ids(sha256(b""), f"md5:{'a' * 32}"),
        InvalidImage,
        "c: rootfs.diff_ids[1]: unsupported digest algorithm 'md5'",
    ),
    # The layers.
    "layer count differs": (TWO_OF_THREE.data(), InvalidImage, "manifest.json lists 3 layers, the config 2"),
    "one path for two diffIDs": (
        Archive(layer_names=["a", "a", "b", "c"]).data(),
        InvalidImage,
        f"a is listed for two diffIDs: {sha256(LAYERS[0])} and {sha256(LAYERS[1])}",
    ),
    "two paths to one file for two diffIDs": (
        archive_of(
            hard_link("b", "a"),
            Archive(layers=LAYERS[:2], layer_names=["a", "b"]).data().replace(member("b", LAYERS[1]), b""),
        ),
        InvalidImage,
        f"b is listed for two diffIDs: {sha256(LAYERS[0])} and {sha256(LAYERS[1])}",
    ),
    "layer missing": (replaced(FIRST, b""), InvalidImage, f"{FIRST} is missing"),
    "layer is a fifo": (replaced(FIRST, fifo(FIRST)), InvalidImage, f"{FIRST} is a fifo, not a regular file"),
    "layer is a directory": (
        replaced(FIRST, directory(FIRST)),
        InvalidImage,
        f"{FIRST} is a directory, not a regular file",
    ),
    "layer dangles": (
        replaced(FIRST, symlink(FIRST, "../gone/layer.tar")),
        InvalidImage,
        f"the link {FIRST} leads out of the archive: ../gone/layer.tar",
    ),
    "layer links to what is missing": (
        replaced(FIRST, symlink(FIRST, "gone/layer.tar")),
        InvalidImage,
        f"{FIRST} is a dangling link: gone/layer.tar is missing",
    ),
    "layer links in a cycle": (
        replaced(FIRST, symlink(FIRST, "a") + hard_link("a", FIRST)),
        InvalidImage,
        f"{FIRST} is a link cycle, or more than 40 links",
    ),
    "layer is sparse": (
        replaced(FIRST, gnu_sparse(FIRST, 8, [(2, b"data")])),
        Unsupported,
        f"{FIRST} is a GNU sparse file (typeflag S), which engines refuse",
    ),
}


@pytest.mark.parametrize(("data", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_named(data: bytes, error: type[ImgfsError], message: str) -> None:
    assert refused(data) == (error, f"./x.tar: {message}")


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("./gone.tar", Unavailable, "cannot open ./gone.tar: No such file or directory"),
        ("docker-archive:gone", Unavailable, "cannot open gone: No such file or directory"),
        ("./", InvalidImage, "./: not an OCI image layout: index.json is missing"),
        ("/dev/null", InvalidImage, "/dev/null: not a tar archive: the file is empty"),
        ("/dev/zero", InvalidImage, "/dev/zero: not an image archive: it has no members, only zero bytes"),
        ("./a\0b", Unavailable, "cannot open ./a\\x00b: no file name has a NUL byte"),
        ("/proc/self/mem", Unavailable, "cannot read /proc/self/mem: Input/output error"),
    ],
)
def test_what_is_no_file_is_named(argument: str, error: type[ImgfsError], message: str) -> None:
    assert refusal(argument, SPOOLING) == (error, message)
