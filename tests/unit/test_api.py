"""The Python API: what `fusefs.open_image` gives, and its documentation, which is run."""

import doctest
import gc
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from unittest.mock import patch

import pytest

import fusefs
import fusefs.api
from tests.conftest import TakeWarnings
from tests.support.builders import CREATED_NS, END, Archive, compressed, image_config, sha256
from tests.support.changesets import About, changeset, device, file, folder, hard_link, symlink, whiteout
from tests.support.conformance import open_descriptors
from tests.support.package_databases import dpkg_status

NS = 1_500_000_000_123456789
DATA = About(mode=0o640, uid=7, gid=8, mtime_ns=NS, xattrs={b"user.a": b"\0"})
BASE = changeset(
    folder("etc"),
    file("etc/motd", b"old\n"),
    file("etc/gone", b"x"),
    file("etc/latin", b"\xe9\n"),
    file("data", bytes(range(256)) * 1024, DATA),
    hard_link("again", "data", DATA),
    symlink("absolute", "/etc/motd"),
    symlink("etc/up", ".."),
    symlink("dangling", "nowhere"),
    symlink("loop", "loop"),
    device("null", "c", 1, 3),
    file(b"\xff", b"odd"),
)
UPPER = changeset(file("etc/motd", b"new\n"), whiteout("etc/gone"))
HISTORY = [{"created_by": "ADD base"}, {"created_by": "CMD x", "empty_layer": True}, {"created_by": "RUN b"}]
CONFIG = image_config([BASE, UPPER], history=HISTORY, config={"Env": ["A=b"]})


def _hello(motd: bytes = b"hello\n", lang: str = "C") -> bytes:
    """Return an image of the documentation."""
    layers = [changeset(file("bin/sh", b"#!"), file("bin/x", b"")), changeset(file("etc/motd", motd))]
    history = [{"created_by": text} for text in ("ADD bin /bin", "RUN echo hello > /etc/motd")]
    config = image_config(layers, architecture="arm64", history=history, config={"Env": [f"LANG={lang}"]})
    return Archive(layers=layers, config=config).data()


@pytest.fixture(name="image", params=[None, "gzip"])
def opened_image(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[fusefs.OpenedImage]:
    """An image of two layers, stored plain and compressed."""
    stored = [compressed(data, request.param) for data in (BASE, UPPER)]
    path = Archive(layers=stored, config=CONFIG).write(tmp_path / "image.tar")
    with fusefs.open_image(str(path), tmpdir=str(tmp_path)) as image:
        yield image


def test_the_documentation_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hello.tar").write_bytes(_hello())
    (tmp_path / "other.tar").write_bytes(_hello(b"hello, world\n", "C.UTF-8"))
    page = Path(__file__).parents[2] / "docs" / "python.md"
    monkeypatch.chdir(tmp_path)
    for tried in (doctest.testmod(fusefs.api), doctest.testfile(str(page), module_relative=False)):
        assert tried.attempted > 3
        assert tried.failed == 0


def test_documents_and_blobs_are_bytes_by_their_digests(image: fusefs.OpenedImage) -> None:
    assert image.config.read_bytes() == CONFIG
    assert (image.id, image.config.size, image.platform) == (sha256(CONFIG), len(CONFIG), "linux/amd64")
    assert image.digest == sha256(image.manifest.read_bytes())
    manifest = image.manifest.json()
    assert manifest["config"]["digest"] == image.id
    assert [layer["digest"] for layer in manifest["layers"]] == [layer.digest for layer in image.layers]
    for digest, blob in image.blobs.items():
        assert (blob.digest, sha256(blob.read_bytes()), len(blob.read_bytes())) == (digest, digest, blob.size)
    assert {image.id, image.digest, *(layer.digest for layer in image.layers)} <= set(image.blobs)
    assert image.details.environment == ("A=b",)


def test_layers_say_what_they_are_and_have_their_plain_tar(image: fusefs.OpenedImage) -> None:
    assert [(layer.number, layer.created_by) for layer in image.layers] == [(0, "ADD base"), (1, "RUN b")]
    assert [layer.diff_id for layer in image.layers] == [sha256(BASE), sha256(UPPER)]
    assert [layer.tar.read_bytes() for layer in image.layers] == [BASE, UPPER]
    for layer in image.layers:
        assert layer.blob is not None
        assert (layer.blob.size, layer.blob.digest, layer.blob.media_type) == (
            layer.size,
            layer.digest,
            layer.media_type,
        )
    names = [path.name for path in (image.layers[1].files / "etc").iterdir()]
    assert names == [".wh.gone", "motd"]


def test_a_blob_is_a_file_with_a_position(image: fusefs.OpenedImage) -> None:
    tar = image.layers[0].tar
    with tar.open() as file, tar.open() as other:
        assert file.seek(-len(END), io.SEEK_END) == len(BASE) - len(END)
        assert (file.read(), file.read()) == (END, b"")
        assert file.seek(7) == 7
        assert file.seek(3, io.SEEK_CUR) == 10
        assert (file.read(20), other.read(4)) == (BASE[10:30], BASE[:4])
        assert file.seek(1 << 40) == 1 << 40
        assert file.read() == b""
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
    with pytest.raises(ValueError, match="closed file"):
        file.read()


def test_rootfs_is_a_traversable_tree(image: fusefs.OpenedImage) -> None:
    root = image.rootfs
    assert isinstance(root, Traversable)
    names = ["absolute", "again", "dangling", "data", "etc", "loop", "null", "\udcff"]
    assert [path.name for path in root.iterdir()] == names
    assert [path.name for path in root.joinpath("etc").iterdir()] == ["latin", "motd", "up"]
    assert root.joinpath("etc", "motd").read_text() == (root / "etc/motd").read_text() == "new\n"
    assert (root / "\udcff").read_bytes() == b"odd"
    assert [path.is_dir() for path in (root, root / "etc", root / "etc/up", root / "data", root / "no")] == [
        *(True, True, True, False, False)
    ]
    assert [path.is_file() for path in (root / "data", root / "absolute", root / "null", root / "etc")] == [
        *(True, True, False, False)
    ]


def test_paths_are_as_those_of_pathlib(image: fusefs.OpenedImage) -> None:
    path = image.rootfs / "etc" / "conf.d"
    assert (str(path), path.name, path.suffix, path.parts) == ("/etc/conf.d", "conf.d", ".d", ("/", "etc", "conf.d"))
    assert (path.parent, repr(path)) == (image.rootfs / "etc", "ImagePath('/etc/conf.d')")
    assert len({path, image.rootfs / "etc/conf.d", image.layers[0].files / "etc/conf.d"}) == 2
    assert path / "/data" == image.rootfs / "data" == path / "//data"
    assert sorted([path, image.rootfs, path.parent]) == [image.rootfs, path.parent, path]
    with pytest.raises(TypeError):
        assert path < "/etc"
    assert not path.exists()


def test_links_lead_to_where_they_do_in_a_container(image: fusefs.OpenedImage) -> None:
    root = image.rootfs
    assert (root / "absolute").read_text() == "new\n"
    assert (root / "absolute").readlink() == "/etc/motd"
    assert (root / "etc/up/../../etc/up/absolute").resolve() == root / "etc/motd"
    assert ((root / "dangling").is_symlink(), (root / "dangling").exists()) == (True, False)
    with pytest.raises(OSError, match="Too many levels"):
        (root / "loop").read_bytes()


def test_a_file_has_its_stat_and_attributes(image: fusefs.OpenedImage) -> None:
    said = (image.rootfs / "data").stat()
    assert (said.st_mode, said.st_uid, said.st_gid, said.st_size) == (0o100640, 7, 8, 256 * 1024)
    assert (said.st_mtime_ns, said.st_nlink) == (NS, 2)
    assert (image.rootfs / "again").xattrs() == {"user.a": b"\0"}
    assert (image.rootfs / "absolute").lstat().st_size == len("/etc/motd")
    assert (image.rootfs / "absolute").stat().st_size == 4
    assert (image.rootfs / "null").stat().st_rdev == os.makedev(1, 3)
    assert (image.layers[1].files / "etc").stat().st_mtime_ns == CREATED_NS


def test_files_open_as_text_and_as_bytes(image: fusefs.OpenedImage) -> None:
    with (image.rootfs / "etc/motd").open() as text, (image.rootfs / "data").open("rb") as data:
        assert (text.readlines(), data.read(4)) == (["new\n"], b"\0\1\2\3")
    assert (image.rootfs / "etc/latin").read_text("latin-1") == "é\n"
    assert (image.rootfs / "etc/latin").read_text(errors="replace") == "\ufffd\n"
    with pytest.raises(ValueError, match="read-only"):
        (image.rootfs / "etc/motd").open("w")  # type: ignore[call-overload]


def test_walk_is_as_pathlibs(image: fusefs.OpenedImage) -> None:
    walked = [(str(here), folders, files) for here, folders, files in image.rootfs.walk()]
    assert walked == [
        ("/", ["etc"], ["absolute", "again", "dangling", "data", "loop", "null", "\udcff"]),
        ("/etc", [], ["latin", "motd", "up"]),
    ]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("no", FileNotFoundError),
        ("etc/gone", FileNotFoundError),
        ("data/x", NotADirectoryError),
        ("etc", IsADirectoryError),
        ("null", OSError),
    ],
)
def test_what_cannot_be_read_raises_what_pathlib_raises(
    image: fusefs.OpenedImage, path: str, error: type[OSError]
) -> None:
    with pytest.raises(error):
        (image.rootfs / path).read_bytes()
    with pytest.raises(OSError, match=path):
        (image.rootfs / path).readlink()


def test_after_the_end_nothing_can_be_read(tmp_path: Path) -> None:
    path = Archive(layers=[BASE, UPPER]).write(tmp_path / "image.tar")
    with fusefs.open_image(str(path)) as image:
        file = image.rootfs / "data"
        assert file.read_bytes()
    image.close()
    # Also when the number of the descriptor is another file's by now.
    with (tmp_path / "other").open("wb+"), pytest.raises(OSError, match="Bad file descriptor"):
        file.read_bytes()


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_closed_image_leaves_no_file_open(tmp_path: Path, compression: str | None) -> None:
    stored = [compressed(data, compression) for data in (BASE, UPPER)]
    path = Archive(layers=stored, config=CONFIG).write(tmp_path / "image.tar")
    gc.collect()
    before = open_descriptors()
    with fusefs.open_image(str(path), tmpdir=str(tmp_path)) as image:
        assert [layer.tar.size for layer in image.layers] == [len(BASE), len(UPPER)]
        assert (image.rootfs / "data").is_file()
        assert open_descriptors() > before
    del image
    gc.collect()
    assert open_descriptors() == before
    assert os.listdir(tmp_path) == ["image.tar"]


@pytest.mark.parametrize("data", [b"x" * 2000, _hello()[:3000], Archive(layers=[BASE], config=b"{}").data()])
def test_an_image_that_cannot_be_opened_leaves_no_file_open(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.tar").write_bytes(data)
    gc.collect()
    before = open_descriptors()
    for _ in range(2):
        with pytest.raises(fusefs.ImgfsError):
            fusefs.open_image(tmp_path / "bad.tar", cache_dir=str(tmp_path / "cache"))
    gc.collect()
    assert open_descriptors() == before


def test_errors_are_those_of_the_command(tmp_path: Path) -> None:
    for name, why in (
        ("./no.tar", "cannot open"),
        ("X", "bad reference"),
        ("ftp://x/y", "a registry's image is docker://"),
    ):
        with pytest.raises(fusefs.ImgfsError, match=why):
            fusefs.open_image(name)
    path = Archive(layers=[BASE]).write(tmp_path / "image")
    with fusefs.open_image(path) as image:
        assert image.name == str(path)
    with pytest.raises(fusefs.ImgfsError, match="bad platform"):
        fusefs.open_image(str(path), platform="linux/")


def test_the_engine_is_found_as_the_environment_says() -> None:
    with pytest.raises(fusefs.ImgfsError, match="nonexistent"):
        fusefs.open_image("nginx", environment={"DOCKER_CONTEXT": "nonexistent"})


def test_what_programs_do_not_ask_for_is_not_imported() -> None:
    code = "import sys, fusefs; print('json' in sys.modules, sorted(m for m in sys.modules if 'fusefs' in m))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False ['fusefs']\n"
    code = "import sys, fusefs; fusefs.open_image; print({'pyfuse3', 'trio', 'docker', 'urllib3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
    with pytest.raises(AttributeError):
        fusefs.no_such_name  # noqa: B018


def test_files_are_found_with_the_layers_that_have_or_hide_them(image: fusefs.OpenedImage) -> None:
    assert [str(found.path) for found in image.find("/etc", type="f")] == ["/etc/latin", "/etc/motd"]
    (motd,) = image.find(name="mot[d]", size="-5c")
    assert (motd.path.read_text(), motd.layer) == ("new\n", 1)
    (gone,) = image.find(deleted=True)
    assert (str(gone.path), gone.path.read_bytes(), gone.layer, gone.deleted_by) == ("/etc/gone", b"x", 0, 1)
    old, new = image.find("/etc/motd", all_layers=True)
    assert (old.layer, old.replaced_by, old.deleted_by, new.layer, new.replaced_by) == (0, 1, None, 1, None)
    assert old.path.read_text() == "old\n"
    assert [str(found.path) for found in image.find(layer=1, type="f")] == ["/etc/motd"]
    for words in ({"size": "x"}, {"type": "x"}, {"path": "/no"}, {"layer": 9}):
        with pytest.raises(fusefs.ImgfsError):
            list(image.find(**words))


def test_waste_and_packages_are_those_of_the_command(image: fusefs.OpenedImage) -> None:
    waste = image.waste()
    assert waste.size == 5
    assert waste.files == (
        fusefs.WastedFile("/etc/motd", 0, 4, 1, "overwritten"),
        fusefs.WastedFile("/etc/gone", 0, 1, 1, "deleted"),
    )
    assert image.packages() == []


def test_two_images_and_a_layer_are_compared(image: fusefs.OpenedImage, tmp_path: Path) -> None:
    status = file("var/lib/dpkg/status", dpkg_status(("a", "1")))
    layers = [BASE, changeset(file("etc/motd", b"new\n", DATA), status)]
    config = image_config(layers, config={"Env": ["A=c"]})
    with fusefs.open_image(Archive(layers=layers, config=config).write(tmp_path / "other.tar")) as other:
        compared = image.diff(other)
        assert [(found.change, found.path, found.what) for found in compared.files] == [
            ("added", "/etc/gone", ()),
            ("changed", "/etc/motd", ("mode", "owner", "xattrs")),
            *(("added", path, ()) for path in ("/var", "/var/lib", "/var/lib/dpkg", "/var/lib/dpkg/status")),
        ]
        gone, motd, *_ = compared.files
        assert (gone.before, gone.after and gone.after.st_size) == (None, 1)
        assert (motd.before and motd.before.st_mode, motd.after and motd.after.st_uid) == (0o100644, 7)
        assert gone.unified() == b"--- /dev/null\n+++ b/etc/gone\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n"
        assert motd.unified() == b""
        assert compared.config == (fusefs.ConfigChange("env", "A", "b", "c"),)
        assert compared.packages == (fusefs.PackageChange("deb", "a", (), ("1",)),)
        assert [found.path for found in image.diff(other, "/etc/motd").files] == ["/etc/motd"]
        assert [found.what for found in image.diff(other, "/absolute", "/etc/motd").files] == [
            ("mode", "owner", "xattrs")
        ]
        with pytest.raises(fusefs.ImgfsError, match="has no /etc/gone"):
            image.diff(other, "/etc/gone")
    assert [(found.change, found.path) for found in image.layers[1].diff().files] == [
        ("removed", "/etc/gone"),
        ("changed", "/etc/motd"),
    ]
    assert {found.change for found in image.layers[0].diff("/etc").files} == {"added"}
    assert image.layers[1].diff().config == ()


def test_the_packages_of_a_layer_are_compared_also_at_a_path_that_is_new(tmp_path: Path) -> None:
    layers = [
        changeset(file("var/lib/dpkg/status", dpkg_status(("a", "1"), ("b", "1")))),
        changeset(file("var/lib/dpkg/status", dpkg_status(("a", "2"), ("b", "1"))), file("new/x", b"x")),
    ]
    with fusefs.open_image(Archive(layers=layers).write(tmp_path / "image.tar")) as image:
        changed = (fusefs.PackageChange("deb", "a", ("1",), ("2",)),)
        assert image.layers[1].diff().packages == image.layers[1].diff("/new").packages == changed
        assert [(found.change, found.path) for found in image.layers[1].diff("/new").files] == [
            ("added", "/new"),
            ("added", "/new/x"),
        ]
        assert [found.unified() for found in image.layers[1].diff("/new/x").files] == [
            b"--- /dev/null\n+++ b/new/x\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n"
        ]
        assert [found.change for found in image.layers[0].diff("/").packages] == ["added", "added"]


def _cached(folder: Path) -> dict[str, int]:
    """Return the cached layer indexes with their inodes."""
    return {path.name: path.stat().st_ino for path in folder.glob("files/*/*.layer")}


def test_the_cache_is_filled_at_the_end_and_used_the_next_time(tmp_path: Path) -> None:
    path = Archive(layers=[BASE, UPPER]).write(tmp_path / "image.tar")
    folder, other = tmp_path / "cache", tmp_path / "other"
    with fusefs.open_image(path, cache_dir=str(folder)) as image:
        assert (image.rootfs / "data").is_file()
    before = _cached(folder)
    assert len(before) == 2
    with fusefs.open_image(path, cache_dir=str(folder)) as image:
        assert (image.rootfs / "data").is_file()
        assert image.waste().size == 5
    assert _cached(folder) == before
    with fusefs.open_image(path, cache=False, cache_dir=str(other)) as image:
        assert (image.rootfs / "data").is_file()
    with fusefs.open_image(path, environment={"IMGFS_CACHE_DIR": str(other)}) as image:
        assert image.name == str(path)
    assert _cached(other) == {}
    assert other.is_dir()


def test_a_cache_that_cannot_be_used_is_an_error_if_it_was_named(tmp_path: Path, take_warnings: TakeWarnings) -> None:
    path = Archive(layers=[BASE, UPPER]).write(tmp_path / "image.tar")
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(fusefs.ImgfsError, match="cannot use the cache"):
        fusefs.open_image(path, cache_dir=str(file))
    environment = {"XDG_CACHE_HOME": str(file)}
    no_root = patch("fusefs.sources.caching.owns_system", return_value=False)
    with no_root, fusefs.open_image(path, environment=environment) as image:
        assert (image.rootfs / "data").is_file()
    (warning,) = take_warnings()
    assert warning.startswith("continuing without a cache: cannot use the cache")
